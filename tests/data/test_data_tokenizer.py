"""A tokenizer's file (the extra `text`): its tokens, and what each of them stands for."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.text import Text
from data.words import documents
from data.words.tokenizer import FromFile

tokenizers: Any = pytest.importorskip("tokenizers", reason="needs the extra: pip install tokenizers")
LINES = [f"There once was a number {number}; it was as good as {number + 1}, or überhaupt any." for number in range(200)]


@pytest.fixture
def of_bytes(tmp_path: Path) -> Path:
    """Pairs of bytes as GPT-2 has them, with a token that is no text; cut to 4 tokens, filled up to 64, with one of its own in front."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=400, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(LINES, trainer)
    made.enable_truncation(4)
    made.enable_padding(length=64)
    made.post_processor = tokenizers.processors.TemplateProcessing(single="<|end|> $A", special_tokens=[("<|end|>", 0)])
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def of_words(path: Path, words: list[str], decoder: Any) -> Path:
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: number for number, word in enumerate(words)}, unk_token=words[0]))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.decoder = decoder
    made.save(str(path))
    return path


def text_of(data: Text, tokens: torch.Tensor) -> str:
    names = list(data.class_names)
    return "".join(names[token] for token in tokens.tolist())


def test_documents_become_its_tokens_and_can_be_read_again(tmp_path: Path, of_bytes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in LINES))
    asked: dict[str, Any] = {"length": 40, "end": 0}
    pinned = Text(str(tmp_path / "a.jsonl"), tokenizer=str(of_bytes), **asked).prepare()
    assert pinned["tokenizer"] == str(of_bytes)
    monkeypatch.setitem(sys.modules, "tokenizers", None)  # whoever reads them needs it no more
    data = Text(**pinned, **asked)  # pyright: ignore[reportArgumentType]
    windows = data.part("train", "cpu")
    assert windows is not None
    tokens, _ = windows.batch(torch.tensor([0, 1]))
    assert len(data.class_names) == 400
    assert 40 < len(text_of(data, tokens[0])) < 400, "some letters a token"
    text = text_of(data, tokens.flatten()).replace("\ufffd\ufffd", "ü").rstrip("\ufffd")
    assert "<|end|>".join(LINES).startswith(text)
    stream = windows._stream  # pyright: ignore[reportPrivateUsage]
    assert (stream.windows(np.array([0]), len(stream)) == 0).sum() == len(LINES), "an end behind each, and nothing else of its own"


def test_tokens_of_a_long_text_are_those_of_the_whole(tmp_path: Path, of_bytes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("\n".join(LINES))
    pieces = list(documents.read(".txt", tmp_path / "a.txt", "", utf8=True))
    monkeypatch.setattr(documents, "PIECE", 300)
    cut = list(documents.read(".txt", tmp_path / "a.txt", "", utf8=True))
    assert len(pieces) == 1 < 20 < len(cut)
    whole, parts = (np.concatenate([tokens for tokens, _ in FromFile(of_bytes).encode(iter(each))]) for each in (pieces, cut))
    assert (whole == parts).all()


def test_a_vocabulary_of_more_than_two_bytes(tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(70_000)]
    path = of_words(tmp_path / "tokenizer.json", words, tokenizers.decoders.WordPiece(prefix="##"))
    (tmp_path / "a.txt").write_text(" ".join(words[-10:]))
    data = Text(str(tmp_path / "a.txt"), tokenizer=str(path), length=3, validation=0.0)
    windows = data.part("train", "cpu")
    assert windows is not None
    assert windows.batch(torch.tensor([1]))[0].tolist() == [[69_993, 69_994, 69_995]]


@pytest.mark.parametrize(
    ("words", "decoder", "names"),
    [
        (["[UNK]", "a", "good", "##ness"], "WordPiece", ["[UNK]", "a", "good", "ness"]),
        (["<unk>", "a", "▁good", "ness"], "Metaspace", ["<unk>", "a", " good", "ness"]),
    ],
)
def test_a_name_is_what_a_token_adds_to_a_text(tmp_path: Path, words: list[str], decoder: str, names: list[str]) -> None:
    made = FromFile(of_words(tmp_path / "tokenizer.json", words, getattr(tokenizers.decoders, decoder)()))
    assert [name.strip() if decoder == "WordPiece" else name for name in made.names()] == names


def test_an_end_that_it_has_not_gets_a_name(tmp_path: Path, of_bytes: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(LINES))
    data = Text(str(tmp_path / "a.txt"), tokenizer=str(of_bytes), end=400)
    data.prepare()
    assert (len(data.class_names), data.class_names[400]) == (401, "<end>")


def test_a_text_in_another_encoding_is_one_line(tmp_path: Path, of_bytes: Path) -> None:
    (tmp_path / "a.txt").write_bytes("one\ntwo\nüber\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"^data\.path=.*a\.txt: line 3 is no UTF-8, which data\.tokenizer reads"):
        Text(str(tmp_path / "a.txt"), tokenizer=str(of_bytes)).prepare()


def test_a_file_that_is_no_tokenizer_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a text")
    (tmp_path / "vocab.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match=r"^data\.tokenizer=.*vocab\.json: is no tokenizer \(.*\); type the path of a tokenizer\.json"):
        Text(str(tmp_path / "a.txt"), tokenizer=str(tmp_path / "vocab.json")).prepare()
    with pytest.raises(FileNotFoundError, match=r"^data\.tokenizer=.*none\.json: there is no such file"):
        Text(str(tmp_path / "a.txt"), tokenizer=str(tmp_path / "none.json")).prepare()
    (tmp_path / "vocab.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"^data\.tokenizer=.*: is no tokenizer"):
        Text(str(tmp_path / "a.txt"), tokenizer=str(tmp_path / "vocab.json")).prepare()

"""Texts of many kinds as tokens: what becomes of each, that bytes are what they were, and shards that are whole or absent."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from data.resident import Resident
from data.sampling.order import SHIFT, words
from data.store.parquet import read_texts
from data.text import Text, Windows
from data.words import documents, shards
from data.words.documents import Piece
from launcher.plan import Mesh

DOCUMENTS = ["The first of them.\n", "", "Äther, and a second one, which is longer.", "The third"]
PACKED = "\0".join(text for text in DOCUMENTS if text).encode() + b"\0"


def as_lines(path: Path, texts: Sequence[object], field: str = "text") -> Path:
    path.write_text("".join(json.dumps({"id": number, field: text}) + "\n" for number, text in enumerate(texts)))
    return path


def as_rows(path: Path, texts: Sequence[object], field: str = "text") -> Path:
    pq.write_table(pa.table({"id": list(range(len(texts))), field: texts}), path, row_group_size=2)
    return path


def text_files(folder: Path) -> Path:
    for number, text in enumerate(DOCUMENTS):
        (folder / f"{number}.txt").write_text(text)
    return folder


def lines_in_a_folder(folder: Path) -> Path:
    as_lines(folder / "a.jsonl", DOCUMENTS[:1])
    as_lines(folder / "b.jsonl", DOCUMENTS[1:])
    (folder / "README.md").write_text("no part of it")
    return folder


def rows_in_a_folder(folder: Path) -> Path:
    as_rows(folder / "train-00000-of-00002.parquet", DOCUMENTS[:3])
    as_rows(folder / "train-00001-of-00002.parquet", DOCUMENTS[3:])
    return folder


def one_file(folder: Path) -> Path:
    (folder / "all").write_bytes(PACKED[:-1])
    return folder / "all"


KINDS: dict[str, Callable[[Path], Path]] = {
    "a file": one_file,
    "a folder of texts": text_files,
    "JSON lines": lambda folder: as_lines(folder / "a.jsonl", DOCUMENTS),
    "a folder of JSON lines": lines_in_a_folder,
    "parquet": lambda folder: as_rows(folder / "a.parquet", DOCUMENTS),
    "a folder of parquet": rows_in_a_folder,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "texts"
    place.mkdir()
    return place


def part(data: Text, split: str = "train") -> Windows:
    found = data.part(split, "cpu")
    assert found is not None
    return found


def tokens_of(data: Text) -> list[int]:
    """All of them."""
    data.length, data.validation = 1, 0.0
    windows = part(data)
    tokens, targets = windows.batch(torch.from_numpy(windows.places))
    return [*tokens[:, 0].tolist(), int(targets[-1, 0])]


@pytest.mark.parametrize("kind", KINDS)
def test_documents_are_packed_with_an_end_behind_each(folder: Path, kind: str) -> None:
    data = Text(str(KINDS[kind](folder)), end=0)
    assert bytes(tokens_of(data)) == PACKED
    assert data.class_names == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "a file"])
def test_without_an_end_they_follow_each_other(folder: Path, kind: str) -> None:
    assert bytes(tokens_of(Text(str(KINDS[kind](folder))))) == "".join(DOCUMENTS).encode()


def test_another_field_is_asked_for(folder: Path) -> None:
    for path in (as_lines(folder / "a.jsonl", DOCUMENTS, "words"), as_rows(folder / "a.parquet", DOCUMENTS, "words")):
        assert bytes(tokens_of(Text(str(path), field="words"))) == "".join(DOCUMENTS).encode()


def test_an_end_that_no_text_has_is_a_token_of_its_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = Text(str(text_files(folder)), end=256)
    data.prepare()
    assert "of 257 kinds; a model with fewer cannot read them: model.vocab_size=257" in capsys.readouterr().err
    assert tokens_of(data) == [token if token else 256 for token in PACKED]


def numbers_of(data: Text) -> list[int]:
    """Of the documents, token by token."""
    data.length, data.validation = 1, 0.0
    windows = part(data)
    _, _, documents = windows.batch(torch.from_numpy(windows.places))
    return documents[:, 0].tolist()


@pytest.mark.parametrize("end", [None, 0])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "a file"])
def test_a_batch_says_which_document_each_token_is_in(folder: Path, kind: str, end: int | None) -> None:
    """An end is the last of its own."""
    lengths = [len(text.encode()) + (end is not None) for text in DOCUMENTS if text]
    expected = [number for number, length in enumerate(lengths) for _ in range(length)]
    assert numbers_of(Text(str(KINDS[kind](folder)), end=end, boundaries=True)) == expected[:-1]


def test_documents_are_told_apart_across_shards_and_by_a_gpu_that_holds_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "FILES_BYTES", 300)
    data = Text(str(small_shards(folder)), end=10, length=40, boundaries=True)
    windows = part(data)
    stream = windows._stream  # pyright: ignore[reportPrivateUsage]
    assert (stream.documents, len(stream._shards)) == (120, 6)  # pyright: ignore[reportPrivateUsage]
    tokens, _, documents = windows.epoch(0, 1)(torch.from_numpy(windows.places))
    assert documents.shape == tokens.shape
    assert documents.dtype == torch.int64
    # each ends with token 10, and no other token is one
    assert torch.equal(documents.diff() == 1, tokens[:, :-1] == 10)
    windows._held = torch.from_numpy(stream.windows(np.array([0]), len(stream))[0])  # pyright: ignore[reportPrivateUsage]
    windows._ends = torch.from_numpy(stream.ends)  # pyright: ignore[reportPrivateUsage]
    assert torch.equal(windows.epoch(0, 1)(torch.from_numpy(windows.places))[2], documents)
    val = part(data, "val")
    last = val.batch(torch.from_numpy(val.places[-1:]))[2]
    assert last[0, -1] == 119, "the validation part goes on counting"


@pytest.mark.parametrize("end", [None, 0])
def test_boundaries_of_one_document_change_nothing_and_it_is_said(
    folder: Path, end: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Text(str(one_file(folder)), boundaries=True, end=end, length=3)
    data.prepare()
    assert f"WARNING: data.boundaries=true changes nothing: {folder}/all is one document" in capsys.readouterr().err
    assert len(part(data).batch(torch.tensor([0]))) == 2


# What bytes were before there were other tokens.


class Before:
    """A text in memory, and one gather for a batch."""

    def __init__(self, text: bytes, length: int, validation: float) -> None:
        self.text, self.length = torch.frombuffer(bytearray(text), dtype=torch.uint8), length
        end = len(text) - round(len(text) * validation)
        self.parts = {"train": (self.text[:end], max(0, end - 1 - (length - 1)) // length), "val": (self.text[end:], 0)}
        self.parts["val"] = (self.text[end:], max(0, len(text) - end - 1) // length)

    def part(self, split: str, device: object) -> Before.Source | None:
        return None if split == "test" else Before.Source(*self.parts[split], self.length)

    class Source:
        def __init__(self, text: torch.Tensor, windows: int, length: int) -> None:
            self.places, self.text, self.length = np.arange(windows), text, length

        def batch(self, places: torch.Tensor, shift: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
            tokens = self.text[(places * self.length + shift)[:, None] + torch.arange(self.length + 1)].long()
            return tokens[:, :-1], tokens[:, 1:]

        def epoch(self, seed: int, epoch: int) -> Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
            shift = int(words(1, SHIFT, seed, epoch)[0] % np.uint64(self.length))
            return lambda places: self.batch(places, shift)


def batches(data: object, rank: int) -> Iterator[torch.Tensor]:
    loader = Resident(data, batch_size=8, accumulate=2, seed=3, eval_batch_size=5)
    loader.open(Mesh(dp_replicate=2).at(rank), torch.device("cpu"))
    for epoch in range(3):
        for batch in loader.steps(epoch, start=epoch):
            yield from batch
    for split in ("train", "val", "test"):
        for batch in loader.evaluation(split):
            yield from batch


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("kind", ["a file", "files", "too many files", "JSON lines"])
def test_bytes_are_in_the_windows_and_the_order_in_which_they_were(
    folder: Path, kind: str, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "FILES_BYTES", 400)
    if kind == "too many files":
        monkeypatch.setattr("data.text._MAPS", 3)
    text = np.random.default_rng(0).integers(32, 127, 5003, dtype=np.uint8).tobytes()
    pieces = [text[:1000], text[1000:1003], text[1003:1500], text[1500:]]
    path = folder
    if kind == "a file":
        path = folder / "a.txt"
        path.write_bytes(text)
    for number, piece in enumerate(pieces if kind != "a file" else ()):
        if kind == "JSON lines":
            as_lines(folder / f"{number}.jsonl", [piece.decode()])
        else:
            (folder / f"{number}.txt").write_bytes(piece)
    now, before = (list(batches(data, rank)) for data in (Text(str(path), length=16), Before(text, 16, 0.1)))
    assert len(now) == len(before) > 100
    assert all(one.dtype == other.dtype and torch.equal(one, other) for one, other in zip(now, before, strict=True))


def test_what_is_pinned_for_a_text_as_it_is_has_not_changed(folder: Path) -> None:
    (folder / "a.txt").write_bytes(b"to be, or not")
    assert Text(str(folder / "a.txt")).prepare() == {
        "path": str(folder / "a.txt"),
        "fingerprint": hashlib.sha256(b"to be, or not").hexdigest(),
        "kinds": ord("t") + 1,
    }
    assert not (folder.parent / "cache").exists(), "nothing is made of it"


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("one two\nthree\nfour five", ["one two\nthree\n", "four five"]),
        ("one two\n\nthree\n\nfour", ["one two\n\nthree\n\n", "four"]),
        ("a row of words that has no end", ["a row of words", " that has no end"]),
        ("ÄÖÜÄÖÜÄÖÜÄÖÜ", ["ÄÖÜÄÖ", "ÜÄÖÜÄÖÜ"]),
    ],
)
def test_a_long_document_is_cut_and_still_one(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, pieces: list[str]) -> None:
    monkeypatch.setattr(documents, "PIECE", 9)
    (folder / "a.txt").write_text(text)
    for kind, path in ((".txt", folder / "a.txt"), (".jsonl", as_lines(folder / "a.jsonl", [text]))):
        found = list(documents.read(kind, path, "text", utf8=True))
        assert [piece.text.decode() for piece in found] == pieces
        assert [piece.ends for piece in found] == [False] * (len(pieces) - 1) + [True]
    assert bytes(tokens_of(Text(str(folder / "a.txt"), end=0))) == text.encode() + b"\0"


@pytest.mark.parametrize("end", [None, 0, 200, 256])
@pytest.mark.parametrize("kind", KINDS)
def test_of_bytes_the_largest_that_there_is_is_pinned(folder: Path, kind: str, end: int | None) -> None:
    pinned = Text(str(KINDS[kind](folder)), end=end).prepare()
    assert pinned["kinds"] == 1 + max(max("Ä".encode()), end or 0)
    again = Text(str(folder / "all") if kind == "a file" else str(pinned["path"]), end=end, kinds=195)
    with pytest.raises(ValueError, match=r"^data\.kinds=195: .* has tokens up to \d+; type data\.kinds=null"):
        again.prepare()


# Shards.


def small_shards(folder: Path) -> Path:
    for number in range(6):
        as_lines(folder / f"{number}.jsonl", [f"{number} and {index}. " for index in range(20)])
    return folder


def test_windows_run_across_shards_and_are_read_where_they_lie(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, whole = str(small_shards(folder)), Text(str(folder), end=10)
    assert len(part(whole)._stream._shards) == 1  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(shards, "FILES_BYTES", 300)
    monkeypatch.setenv("LAUNCHER_CACHE", str(folder.parent / "another"))
    cut = Text(path, end=10)
    found = part(cut)._stream._shards  # pyright: ignore[reportPrivateUsage]
    assert len(found) == 6
    assert all(isinstance(shard.base, np.memmap) for shard in found)
    assert tokens_of(whole) == tokens_of(cut)
    for length in (7, 500):  # 500: over several of them
        whole.length = cut.length = length
        one, other = part(whole), part(cut)
        places = torch.from_numpy(one.places)
        assert torch.equal(torch.stack(one.epoch(0, 1)(places)), torch.stack(other.epoch(0, 1)(places)))


MAKE = """
import os, sys, time
from pathlib import Path
import numpy as np
from data.words import documents, shards
from data.text import Text

folder, made, seconds, slow = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
shards.FILES_BYTES = 300
read = documents.read

def slowly(kind, file, field, utf8):
    with (made / file.name).open("a") as log:
        log.write("x")
    for each in read(kind, file, field, utf8=utf8):
        yield each
        if slow in ("all", file.name):
            time.sleep(seconds / 20)

documents.read = slowly
child = os.fork() if len(sys.argv) > 5 else 0
stream = Text(str(folder), end=10)._opened()
os.write(1, b"%d " % stream.windows(np.array([0]), len(stream)).sum())  # at once: the other process may write too
if child:
    sys.exit(os.waitpid(child, 0)[1])
"""


def times_read(made: Path) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in sorted(made.iterdir())}


@pytest.mark.timeout(60)
def test_processes_that_come_together_make_them_once(folder: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    made, path = tmp_path / "made", small_shards(folder)
    made.mkdir()
    out, err = start(MAKE, path, made, 0.2, "all", "fork").communicate(timeout=40)
    total = sum(tokens_of(Text(str(path), end=10)))
    assert out.split() == [str(total)] * 2, err
    assert times_read(made) == {f"{number}.jsonl": 1 for number in range(6)}
    assert sum("Waiting for another process that is making tokens in" in line for line in err.splitlines()) == 1


@pytest.mark.timeout(60)
def test_behind_a_maker_that_is_killed_the_next_goes_on(folder: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    made, path, cache = tmp_path / "made", small_shards(folder), tmp_path / "cache"
    made.mkdir()
    victim = start(MAKE, path, made, 1000, "3.jsonl")
    deadline = time.monotonic() + 30
    while not (made / "3.jsonl").exists():
        assert time.monotonic() < deadline, victim.communicate(timeout=1)
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.communicate(timeout=10)
    whole = sorted(place.name.partition("-of-")[0] for place in cache.glob("text-*-v2"))
    assert whole == ["text-0", "text-1", "text-2"]
    assert list(cache.glob("tmp.*")), "it did leave something behind"
    out, err = start(MAKE, path, made, 0, "none").communicate(timeout=40)
    assert out.split() == [str(sum(tokens_of(Text(str(path), end=10))))], err
    assert times_read(made) == {f"{number}.jsonl": 2 if number == 3 else 1 for number in range(6)}
    assert not list(cache.glob("tmp.*"))


def test_tokens_that_were_made_stay_what_they_were(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = Text(str(as_lines(folder / "a.jsonl", DOCUMENTS)), end=0).prepare()
    as_lines(folder / "a.jsonl", DOCUMENTS[::-1])
    assert bytes(tokens_of(Text(**pinned, end=0))) == PACKED  # pyright: ignore[reportArgumentType]
    monkeypatch.setenv("LAUNCHER_CACHE", str(folder.parent / "of another node"))
    with pytest.raises(ValueError, match=r"data\.fingerprint=.*a\.jsonl is another text now .*data\.fingerprint=null"):
        Text(**pinned, end=0).part("train", "cpu")  # pyright: ignore[reportArgumentType]
    for other in ({"end": 1}, {"end": 0, "field": "id"}):
        with pytest.raises(ValueError, match=r"data\.fingerprint=.*is another text now .*or is read in another way"):
            Text(**pinned, **other).prepare()  # pyright: ignore[reportArgumentType]


def test_a_file_that_changes_while_it_is_read_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = as_lines(folder / "a.jsonl", DOCUMENTS)

    def read(*_: object, **__: object) -> Iterator[Piece]:
        yield Piece(b"a text", 1.0, True)
        as_lines(path, DOCUMENTS[::-1])

    monkeypatch.setattr(shards.documents, "read", read)
    with pytest.raises(ValueError, match=r"data\.path=.*a\.jsonl: has changed while it was read"):
        Text(str(path)).prepare()
    assert not list((folder.parent / "cache").glob("text-*-v2"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file to somebody else")
def test_tokens_that_somebody_else_could_change_are_not_taken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, cache = str(text_files(folder)), folder.parent / "cache"
    Text(path, end=0).prepare()
    (theirs,) = cache.glob("text-*-v2")
    os.chown(theirs / "tokens.uint8", 65_534, 65_534)
    (theirs / "tokens.uint8").write_bytes(bytes(len(PACKED)))
    capsys.readouterr()
    assert bytes(tokens_of(Text(path, end=0))) == PACKED
    assert f"WARNING: the cache {theirs} is not taken: {theirs}/tokens.uint8 belongs to " in capsys.readouterr().err
    assert (cache / f"{theirs.name}-u0").is_dir()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_how_far_it_is_and_a_log_does_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(text_files(folder))
    Text(path, end=0).prepare()
    assert capsys.readouterr().err.splitlines() == [f"Making tokens of 4 file(s) in {folder.parent / 'cache'}, once"]
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    Text(path, end=1).prepare()
    assert terminal.getvalue().endswith("\rTokens: 100% of 0.0 MB are made\n")


@pytest.mark.parametrize(("kinds", "kind"), [(256, np.uint8), (257, np.uint16), (65_536, np.uint16), (65_537, np.uint32)])
def test_tokens_take_as_many_bytes_as_they_need(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kinds: int, kind: type[np.generic]
) -> None:
    class Last:
        """Each text is the last of so many tokens, and the first."""

        size = kinds

        def encode(self, pieces: Iterator[Piece]) -> Iterator[tuple[np.ndarray, Piece]]:
            return ((np.array([kinds - 1, 0] * 3), piece) for piece in pieces)

        def names(self) -> list[str]:
            return [str(token) for token in range(kinds)]

    monkeypatch.setattr("data.text.opened", lambda path, end: Last())
    monkeypatch.setattr(shards, "opened", lambda path, end: Last())
    (folder / "tokenizer.json").touch()
    data = Text(str(as_lines(folder / "a.jsonl", DOCUMENTS)), tokenizer=str(folder / "tokenizer.json"), length=3, validation=0.0)
    pinned = data.prepare()
    assert (pinned["tokenizer"], pinned["kinds"]) == (str(folder / "tokenizer.json"), kinds)
    assert (f"18 tokens of {kinds:,} kinds" in capsys.readouterr().err) == (kinds > 256)
    windows = part(data)
    stream = windows._stream  # pyright: ignore[reportPrivateUsage]
    assert (len(stream), stream.nbytes, stream.windows(np.array([0]), 1).dtype) == (18, 18 * kind().itemsize, kind)
    tokens, targets = windows.batch(torch.tensor([1]))
    assert (tokens.tolist(), targets.tolist(), tokens.dtype) == ([[0, kinds - 1, 0]], [[kinds - 1, 0, kinds - 1]], torch.int64)
    windows._held = held(windows)  # pyright: ignore[reportPrivateUsage]
    assert torch.equal(windows.batch(torch.tensor([1]))[0], tokens), "what a GPU holds"
    assert len(data.class_names) == kinds


def held(windows: Windows) -> torch.Tensor:
    from data.text import _signed  # pyright: ignore[reportPrivateUsage]

    return _signed(windows._stream.windows(np.array([0]), 18)[0])  # pyright: ignore[reportPrivateUsage]


# What cannot be.


BAD_LINES = {
    "is no JSON": '{"text": "a"}\n\n{"text": "b"]\n',
    "is no object but b'\\[1, 2\\]": '{"text": "a"}\n\n[1, 2]\n',
    "has no field 'text', but 'id', 'words'; name .*data.field=": '{"text": "a"}\n\n{"id": 1, "words": "b"}\n',
    "has None in field 'text', which is no text": '{"text": "a"}\n\n{"text": null}\n',
    "has half a surrogate pair": '{"text": "a"}\n\n{"text": "\\ud800"}\n',
    "is no JSON .* has no end: the file may be cut": '{"text": "a"}\n\n{"text": "b',
}


@pytest.mark.parametrize("said", BAD_LINES)
def test_a_bad_line_is_named(folder: Path, said: str) -> None:
    (folder / "a.jsonl").write_text(BAD_LINES[said])
    with pytest.raises(ValueError, match=rf"^data\.path={folder}/a\.jsonl: line 3 .*({said})") as refused:
        Text(str(folder)).prepare()
    assert len(str(refused.value).splitlines()) == 1
    assert not list((folder.parent / "cache").glob("*-v2")), "nothing of it is taken for whole"


def cut_parquet(path: Path) -> None:
    path.write_bytes(as_rows(path, DOCUMENTS).read_bytes()[:-20])


BAD_ROWS: dict[str, Callable[[Path], object]] = {
    r"is not readable as parquet \(no footer at its end\); download": cut_parquet,
    r"has no column text, but id: int64, words: string; .*data\.field=": lambda path: as_rows(path, DOCUMENTS, "words"),
    r"has no texts in column text \(int64\)": lambda path: as_rows(path, [1, 2]),
    r"has no text in row 2": lambda path: as_rows(path, ["a", "b", None]),
}


@pytest.mark.parametrize("said", BAD_ROWS)
def test_a_bad_row_is_named(folder: Path, said: str) -> None:
    BAD_ROWS[said](folder / "a.parquet")
    with pytest.raises(ValueError, match=rf"^data\.path={folder}/a\.parquet: {said}"):
        Text(str(folder)).prepare()


def test_a_page_of_books_is_read(folder: Path) -> None:
    path, book = folder / "a.parquet", "a word " * 60_000
    pq.write_table(pa.table({"text": [book] * 100}), path, use_dictionary=False)
    assert [len(text) for text, _ in read_texts(path, "text")] == [len(book)] * 100


def test_a_folder_of_several_kinds_is_refused(folder: Path) -> None:
    as_lines(text_files(folder) / "a.jsonl", DOCUMENTS)
    with pytest.raises(ValueError, match=r"has \*\.txt and \*\.jsonl; type the path of one file, or of a folder with one of these kinds"):
        Text(str(folder)).prepare()


def test_a_tokenizer_that_cannot_be_had_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ValueError, match=r"^data\.tokenizer=.*: .* not installed; pip install tokenizers$"):
        Text(str(text_files(folder)), tokenizer="tokenizer.json").prepare()


@pytest.mark.parametrize(
    ("end", "said"),
    [(257, "there are 256 tokens; type one of 0 to 255, or 256 for one that no text has"), (-1, "not possible"), (True, "not possible")],
)
def test_an_end_that_is_no_token_is_one_line(folder: Path, end: int, said: str) -> None:
    with pytest.raises(ValueError, match=rf"^data\.end={end}: {said}"):
        Text(str(text_files(folder)), end=end).prepare()

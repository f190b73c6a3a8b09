"""Texts in windows: which bytes a window has, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from data.resident import Resident
from data.text import Text, Windows
from launcher.plan import Mesh

LETTERS = "".join(map(chr, range(33, 127))) * 4  # 376 of them


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    path = tmp_path / "letters.txt"
    path.write_text(LETTERS)
    return path


def text_of(tokens: torch.Tensor) -> str:
    return bytes(tokens.tolist()).decode()


def part(path: Path, split: str, **asked: object) -> Windows:
    found = Text(str(path), **{"length": 10, **asked}).part(split, "cpu")  # pyright: ignore[reportArgumentType]
    assert found is not None
    return found


def test_a_window_is_followed_by_the_token_behind_each_of_its_own(letters: Path) -> None:
    tokens, targets = part(letters, "train").batch(torch.tensor([0, 3]))
    assert [text_of(row) for row in tokens] == [LETTERS[0:10], LETTERS[30:40]]
    assert [text_of(row) for row in targets] == [LETTERS[1:11], LETTERS[31:41]]
    assert tokens.dtype == torch.int64


def test_the_end_is_held_out_and_no_window_reaches_into_it(letters: Path) -> None:
    train, val = part(letters, "train", validation=0.25), part(letters, "val", validation=0.25)
    end = len(LETTERS) - 94
    assert text_of(val.batch(torch.tensor([0]))[0][0]) == LETTERS[end : end + 10]
    last = torch.tensor([len(train.places) - 1])
    starts = {LETTERS.find(text_of(train.epoch(0, epoch)(last)[0][0]), (len(train.places) - 1) * 10) for epoch in range(60)}
    assert len(starts) == 10, "every place of the last window has been one's beginning"
    assert max(starts) + 10 + 1 <= end
    assert len(val.places) == 9
    assert Text(str(letters)).part("test", "cpu") is None


def test_the_shift_of_an_epoch_is_a_function_of_its_seed_and_number(letters: Path) -> None:
    first = torch.tensor([0])
    drawn = [[text_of(part(letters, "train").epoch(seed, epoch)(first)[0][0]) for epoch in range(8)] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) > 3


def test_a_loader_gives_each_process_its_share(letters: Path) -> None:
    def windows(rank: int, size: int) -> list[str]:
        loader = Resident(Text(str(letters), length=10), batch_size=4, accumulate=1, seed=0)
        loader.open(Mesh(dp_replicate=size).at(rank), torch.device("cpu"))
        return [text_of(row) for tokens, _ in loader.steps(0) for row in tokens]

    one = windows(0, 1)
    assert sorted(one) == sorted([*windows(0, 2), *windows(1, 2)])
    assert len(one) == 32


def test_a_folder_is_its_texts_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, content in (("b.txt", "second."), ("a.txt", "first."), ("c.txt", ""), ("notes.md", "none of them")):
        (tmp_path / name).write_text(content)
    tokens, targets = part(tmp_path, "train", length=4, validation=0.0).batch(torch.tensor([0, 1]))
    assert "".join(text_of(row) for row in tokens) + text_of(targets[1, -1:]) == "first.sec"


def test_what_was_prepared_is_pinned(letters: Path) -> None:
    pinned = Text(str(letters)).prepare()
    again = Text(**pinned, length=10)  # pyright: ignore[reportArgumentType]
    assert again.part("train", "cpu") is not None
    letters.write_text(LETTERS[::-1])
    with pytest.raises(ValueError, match=r"data\.fingerprint=.*is another text now .*data\.fingerprint=null"):
        again.part("train", "cpu")


def test_where_nothing_is_said_the_shelf_is_looked_at(letters: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LAUNCHER_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"data\.path is null and LAUNCHER_DATA is not set.*type data\.path=.*https://"):
        Text().prepare()
    monkeypatch.setenv("LAUNCHER_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"there is no .*tinyshakespeare; type data\.path="):
        Text().prepare()
    (tmp_path / "tinyshakespeare").mkdir()
    with pytest.raises(FileNotFoundError, match=r"has no \*\.txt"):
        Text().prepare()
    (tmp_path / "tinyshakespeare" / "input.txt").write_bytes(letters.read_bytes())
    assert Text().prepare()["path"] == str(tmp_path / "tinyshakespeare")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"length": 0}, "data.length=0: not possible; type a whole number from 1"),
        ({"validation": 1.0}, "data.validation=1.0: not possible; type a share from 0"),
        ({"length": 200}, "data.length=200: the training part of .* has 338 bytes.*type data.length=84 or less"),
    ],
)
def test_what_cannot_be_is_one_line(letters: Path, asked: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        part(letters, "train", **asked)


def test_an_empty_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ValueError, match=r"has 0 bytes"):
        part(tmp_path / "empty.txt", "train")


def test_bytes_beyond_ascii_are_tokens_too(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(np.arange(256, dtype=np.uint8).tobytes() * 2)
    tokens, _ = part(tmp_path / "a.txt", "train", length=200, validation=0.0).batch(torch.tensor([1]))
    assert tokens[0].tolist() == [*range(200, 256), *range(144)]

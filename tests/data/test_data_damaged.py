"""Shards that are missing, cut or slow: refused, or the same sample is given by the same other one; what waits is started again."""

from __future__ import annotations

import os
import pickle
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_data_sharded import files, grey, made
from test_data_webdataset import packed, png, sharded

from data.parquet import Parquet
from data.sampling.order import Windowed
from data.sharded import shards
from data.webdataset import WebDataset
from data.workers import Workers


def tars(root: Path) -> Path:
    """Three of four samples to train on, one of two to evaluate on; sample n is of grey 10 n."""
    return sharded(root)


def numbers(data: Any) -> list[int]:
    """Which sample is at each place, by its grey."""
    return [grey(data[index]) // 10 for index in range(len(data))]


def test_a_shard_that_is_lost_later_has_its_samples_given_by_the_same_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for of, root, lost in ((WebDataset, tars(tmp_path / "tars"), "train-1.tar"), (Parquet, files(tmp_path / "files"), "train-1.parquet")):
        strict, data = made(of, root), made(of, root, damaged="skip")
        assert numbers(data) == [*range(len(data))]
        (root / lost).rename(tmp_path / lost)
        strict, data = pickle.loads(pickle.dumps(strict)), pickle.loads(pickle.dumps(data))  # as a worker has them
        per = len(data) // 3
        with pytest.raises(ValueError, match=rf"{lost} is gone: there is no such file"):
            strict[per]
        found = numbers(data)
        assert [found[index] for index in (*range(per), *range(2 * per, 3 * per))] == [*range(per), *range(2 * per, 3 * per)]
        assert all(given >= 2 * per for given in found[per : 2 * per]), "by those behind"
        again = pickle.loads(pickle.dumps(data))  # as a worker that is started again has it
        assert [grey(again[index]) // 10 for index in reversed(range(len(data)))] == found[::-1], "whoever asks, in whichever order"
        assert "sample(s) could not be read and were given by another" in capsys.readouterr().err
        (tmp_path / lost).rename(root / lost)
        assert numbers(pickle.loads(pickle.dumps(data))) == [*range(len(data))]  # in a worker


def test_a_run_that_skips_goes_on_with_the_places_that_it_began_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tars(tmp_path / "tars")
    pinned = made(WebDataset, root, damaged="skip").prepare()
    (root / "train-1.tar").write_bytes((root / "train-1.tar").read_bytes()[:700])
    options = {key: value for key, value in pinned.items() if key != "root"}
    data = made(WebDataset, root, damaged="skip", **options)
    assert (len(data), data.shards.tolist()) == (12, [4, 4, 4])
    assert numbers(data)[4:8] == [8, 8, 8, 8]
    assert made(WebDataset, root, split="val", damaged="skip", **options)[0][1] == 2
    assert "1 shard(s) of" in capsys.readouterr().err
    (root / "train-1.tar").unlink()
    assert numbers(made(WebDataset, root, damaged="skip", **options))[4:8] == [8, 8, 8, 8]
    with pytest.raises(ValueError, match="has other shards now"):
        made(WebDataset, root, fingerprint=pinned["fingerprint"])
    packed(root / "train-1.tar", {f"{n}.{kind}": b"1" if kind == "cls" else png(10) for n in range(4) for kind in ("png", "cls")})
    with pytest.raises(ValueError, match="has other shards now"):
        made(WebDataset, root, damaged="skip", **options)
    with pytest.raises(ValueError, match=r"data.index.train=../x: it is filled in at submit"):
        made(WebDataset, root, damaged="skip", **{**options, "index": {"train": "../x"}})


def test_a_shard_that_is_named_and_missing_is_refused_or_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tars(tmp_path / "tars")
    with pytest.raises(ValueError, match=r"train-3.tar: there is no such file; bring it back, or type a pattern that does not name it"):
        made(WebDataset, root, train="train-{0..3}.tar")
    assert len(made(WebDataset, root, train="train-{0..3}.tar", damaged="skip")) == 12
    assert "left out: train-3.tar: there is no such file" in capsys.readouterr().err
    (root / "train-9.tar").symlink_to("nowhere")
    with pytest.raises(ValueError, match=r"train-9.tar: it is a link to nothing"):
        made(WebDataset, root)
    with pytest.raises(ValueError, match=r"data.train=train-\{9..0\}.tar: no pattern of names"):
        made(WebDataset, root, train="train-{9..0}.tar")


@pytest.mark.parametrize(("there", "missing"), [((0, 2), "1-of-3"), ((1, 2), "0-of-3"), ((2, 3), "1-of-3"), ((0, 1), "2-of-3")])
def test_a_shard_that_the_names_of_others_count_is_missing(tmp_path: Path, there: tuple[int, ...], missing: str) -> None:
    root = tars(tmp_path / "tars")
    for number, each in zip(there, sorted(root.glob("train*")), strict=False):
        each.rename(root / f"train-{number}-of-3-{number}ab.tar")
    for left in root.glob("train-?.tar"):
        left.unlink()
    with pytest.raises(ValueError, match=rf"/train-{missing}: there is no such file; bring it back, or name those that there are"):
        made(WebDataset, root)
    assert len(made(WebDataset, root, damaged="skip").shards) == 2
    assert len(made(WebDataset, root, train=f"train-{{{there[0]}..{there[0]}}}-of-*").shards) == 1, "as it was asked for"


def test_a_read_that_fails_is_tried_again_and_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the network has now it may not have in the next attempt, which would then have another sample."""
    data, real, left = made(WebDataset, tars(tmp_path / "tars"), damaged="skip"), os.pread, [2]

    def stale(*words: int) -> bytes:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(116, "Stale file handle")
        return real(*words)

    monkeypatch.setattr(shards, "_PAUSES_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(os, "pread", stale)
    assert grey(data[3]) == 30
    left[0] = 99
    with pytest.raises(OSError, match="Stale file handle"):
        data[3]


@pytest.mark.usefixtures("no_process_left")
def test_a_shard_that_does_not_answer_ends_the_run_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe stands in for a mount that hangs. Its worker is started again three times, and no sample is left out for being late."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    root = tars(tmp_path / "tars")
    data = made(WebDataset, root, damaged="skip")
    (root / "train-1.tar").unlink()
    os.mkfifo(root / "train-1.tar")
    loader = Workers(data, batch_size=4, accumulate=1, seed=0, num_workers=1, timeout=0.3, window=4, val=0, test=0)
    loader.open(SimpleNamespace(dp_rank=0, dp_size=1), "cpu")
    monkeypatch.setattr("data.processes.crew.START_SECONDS", 3.0)
    try:
        with pytest.raises(RuntimeError, match=r"took more than loader.timeout=0.3 s and was killed by SIGKILL while it read WebDataset\["):
            list(loader.steps(0))
    finally:
        loader.close()


def test_the_middle_of_an_epoch_of_twenty_million_begins_at_once() -> None:
    """No replay: nothing before it is made."""
    sizes = torch.full((2_000,), 10_000).numpy()
    begin = time.perf_counter()
    places = Windowed(sizes, 20_000, 1, 3)[12_345_678:12_345_806]
    assert time.perf_counter() - begin < 1.0
    assert len(set(places.tolist())) == 128


class Many:
    """Of which nothing is read but what is asked for."""

    def __init__(self) -> None:
        self.shards, self.asked = [10_000] * 2_000, []

    def __len__(self) -> int:
        return sum(self.shards)

    def __getitem__(self, index: int) -> int:
        self.asked.append(index)
        return index


def test_a_loader_opens_in_the_middle_of_an_epoch_of_twenty_million_at_once() -> None:
    data = Many()
    loader = Workers(data, batch_size=100, accumulate=1, seed=0, num_workers=0, window=20_000, val=0, test=0)
    begin = time.process_time()
    loader.open(SimpleNamespace(dp_rank=0, dp_size=1), "cpu")
    next(loader.steps(3, 123_456))
    assert time.process_time() - begin < 1.0
    assert len(data.asked) == 100
    loader.close()


@pytest.mark.parametrize("of", [WebDataset, Parquet])
def test_each_update_has_the_same_samples_in_worlds_of_two_one_and_four(tmp_path: Path, of: Any) -> None:
    """From the middle of an epoch on, which is opened anew in each world."""
    data = made(of, (tars if of is WebDataset else files)(tmp_path / "shards"))

    def update(world: int, step: int) -> list[float]:
        found: list[float] = []
        for rank in range(world):
            loader = Workers(data, batch_size=4, accumulate=1, seed=5, num_workers=0, window=8, val=0, test=0)
            loader.open(SimpleNamespace(dp_rank=rank, dp_size=world), "cpu")
            images, _ = next(loader.steps(1, step))
            found += images[:, 0, 0, 0].tolist()
            loader.close()
        return found

    steps = len(data) // 4
    whole = [update(1, step) for step in range(steps)]
    assert len({each for step in whole for each in step}) == len(data)
    for world in (2, 4):
        assert [update(world, step) for step in range(steps)] == whole

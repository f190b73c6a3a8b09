"""Worker processes: the same bytes whoever makes them, whoever dies meanwhile; and nobody is left behind."""

from __future__ import annotations

import contextlib
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch.utils import _pytree as pytree
from toyproject.noisy import Bag, Collated, Elsewhere, Growing, Noisy
from toyproject.squares import Squares

from data import workers
from data.resident import Resident
from data.workers import Workers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="worker processes need Linux")
Opened = Callable[..., Workers]


@pytest.fixture(autouse=True)
def _modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers find the modules that we find: by our sys.path, not by our environment."""
    monkeypatch.delenv("PYTHONPATH")


@pytest.fixture
def opened(no_process_left: None) -> Iterator[Opened]:
    """`opened(data, num_workers, rank, size, …)`; closed at the end of the test."""
    with contextlib.ExitStack() as stack:

        def call(data: Any, num_workers: int | str = 0, rank: int = 0, size: int = 1, **more: Any) -> Workers:
            asked = {"batch_size": 4, "accumulate": 1, "seed": 3, **more}
            loader = Workers(data, num_workers=num_workers, **asked)
            stack.callback(loader.close)
            loader.open(SimpleNamespace(dp_rank=rank, dp_size=size), "cpu")
            return loader

        yield call


def without_pids(batch: Any) -> list[torch.Tensor]:
    return pytree.tree_leaves({key: value for key, value in batch.items() if key != "pid"})


def assert_same(some: Any, others: Any) -> None:
    some, others = list(some), list(others)
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        for leaf, wanted in zip(without_pids(one), without_pids(other), strict=True):
            assert leaf.dtype == wanted.dtype
            assert torch.equal(leaf, wanted)


def pids(loader: Workers) -> set[int]:
    return {int(pid) for batch in loader.evaluation("train") for pid in batch["pid"]}


def mine() -> list[psutil.Process]:
    """The worker processes, and the one that forks them; not orphans that this process has adopted and not buried."""
    return [each for each in psutil.Process().children(recursive=True) if each.status() != psutil.STATUS_ZOMBIE]


# ---------------------------------------------------------------- which bytes come


@pytest.mark.parametrize("count", [1, 2])
def test_any_number_of_workers_makes_the_same_bytes_as_none(opened: Opened, count: int) -> None:
    alone, loader = opened(Noisy()), opened(Noisy(), count, eval_batch_size=3)
    for epoch in range(2):
        assert_same(loader.steps(epoch), alone.steps(epoch))
    assert_same(loader.steps(1, 5), list(alone.steps(1))[5:])
    assert_same(loader.steps(0), alone.steps(0))
    part = loader.evaluation("val")
    assert (part.samples, len(part)) == (4, 2)
    assert_same([*part, *part], 2 * list(opened(Noisy(), eval_batch_size=3).evaluation("val")))
    assert torch.equal(part.spare()["index"], next(iter(part))["index"][:1])
    assert os.getpid() not in pids(loader)


def test_a_set_that_draws_nothing_gives_the_batches_of_the_resident_technique(opened: Opened) -> None:
    resident = Resident(Squares(), batch_size=32, accumulate=2, seed=5)
    resident.open(SimpleNamespace(dp_rank=1, dp_size=2), "cpu")
    loader = opened(Squares(), 0, 1, 2, batch_size=32, accumulate=2, seed=5)
    assert (loader.samples, loader.steps_per_epoch) == (resident.samples, resident.steps_per_epoch) == (320, 10)
    pairs = [(loader.steps(3), resident.steps(3)), *((loader.evaluation(split), resident.evaluation(split)) for split in ("val", "test"))]
    for some, others in pairs:
        for one, other in zip(some, others, strict=True):
            for leaf, wanted in zip(one, other, strict=True):
                torch.testing.assert_close(leaf, wanted, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("world", "accumulate"), [(1, 2), (2, 1), (2, 2), (4, 1)])
def test_another_world_sees_the_same_samples_and_the_same_bytes(opened: Opened, world: int, accumulate: int) -> None:
    alone = list(opened(Noisy()).steps(2))
    ranks = [list(opened(Noisy(), 0, rank, world, accumulate=accumulate).steps(2)) for rank in range(world)]
    for step, whole in enumerate(alone):
        chunks = [ranks[rank][step * accumulate + turn] for turn in range(accumulate) for rank in range(world)]
        assert_same([pytree.tree_map(lambda *leaves: torch.cat(leaves), *chunks)], [whole])


def test_draws_hang_on_seed_epoch_and_sample_and_on_nothing_else(opened: Opened) -> None:
    def drawn(loader: Workers, epoch: int) -> dict[int, Any]:
        return {int(i): d for batch in loader.steps(epoch) for i, *d in zip(batch["index"], *batch["drawn"], strict=True)}

    one, other = opened(Noisy()), opened(Noisy(), batch_size=12)
    first, again, next_epoch, other_seed = drawn(one, 0), drawn(other, 0), drawn(one, 1), drawn(opened(Noisy(), seed=4), 0)
    for index in first.keys() & again.keys():
        assert all(torch.equal(*pair) for pair in zip(first[index], again[index], strict=True))
    for other_draws in (next_epoch, other_seed):
        assert not any(torch.equal(*pair) for i in first.keys() & other_draws.keys() for pair in zip(first[i], other_draws[i], strict=True))
    for kind in range(3):
        assert len({str(values[kind].tolist()) for values in first.values()}) == len(first), "no two samples draw alike"


@pytest.mark.parametrize("count", [0, 1])
def test_nobodys_numbers_are_used_up(opened: Opened, count: int) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), torch.rand(1).item()

    def plant() -> None:
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)

    plant()
    wanted = draw()
    plant()
    loader = opened(Noisy(), count)
    next(loader.steps(0))
    next(iter(loader.evaluation("val")))
    assert draw() == wanted


def test_an_evaluation_that_comes_between_changes_nothing_and_batches_are_made_ahead(opened: Opened) -> None:
    loader, alone = opened(Noisy(), 1), list(opened(Noisy()).steps(0))
    steps = loader.steps(0)
    found = [next(steps)]
    assert len(list(loader.evaluation("train"))) == 1
    assert_same([*found, *steps], alone)
    begin = iter(loader.evaluation("train"))
    next(begin)
    assert_same(loader.steps(0, 1), alone[1:])


def test_splits_that_there_are_are_read_as_they_are(opened: Opened, capfd: pytest.CaptureFixture[str]) -> None:
    loader = opened({"train": Noisy(), "test": Noisy(7)}, 1, val=0, eval_batch_size=4)
    assert [loader.evaluation(split).samples for split in ("train", "val", "test")] == [40, 0, 7]
    assert [batch["index"].tolist() for batch in loader.evaluation("test")] == [[0, 1, 2, 3], [4, 5, 6]]
    assert [*loader.evaluation("val")] == []
    assert capfd.readouterr().err == ""


# ---------------------------------------------------------------- batches


def test_the_sets_own_collate_makes_batches_of_any_class(opened: Opened) -> None:
    for one, other in zip(opened(Collated(), 1).steps(0), opened(Collated()).steps(0), strict=True):
        assert isinstance(one, Bag)
        assert one.names == other.names
        assert [part.shape for part in one.parts] == [(2, index) for index in one.names]
        assert all(torch.equal(*pair) for pair in zip([*one.parts, one.mixed], [*other.parts, other.mixed], strict=True))


# ---------------------------------------------------------------- what goes wrong


HOW = {
    "kill": "was killed by SIGKILL",
    "parent": "died with the process that it was forked from",
    "stop": "took more than loader.timeout=3 s and was killed by SIGKILL",
    "exit": "ended by itself with status 3",
}


@pytest.mark.parametrize("fault", HOW)
def test_a_worker_that_is_lost_is_started_again_and_its_batches_are_the_same(
    opened: Opened, tmp_path: Path, fault: str, capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = list(opened(Noisy()).steps(0))
    at = int(wanted[3]["index"][1])
    loader = opened(Noisy(fault=fault, at=at, once=tmp_path / "once"), 2, timeout=3 if fault == "stop" else 40)
    assert_same(loader.steps(0), wanted)
    assert (tmp_path / "once").exists()
    said = [line for line in capfd.readouterr().err.splitlines() if "another one makes its batches once more" in line]
    assert len(said) == 1
    assert HOW[fault] in said[0]
    assert fault == "parent" or f"while it read Noisy[{at}]" in said[0], "of those that die together any may be named"


def test_what_kills_each_worker_ends_the_run_with_the_sample(opened: Opened) -> None:
    loader = opened(Noisy(fault="kill", at=11), 2)
    why = r"^data: a loader worker \(pid \d+\) was killed by SIGKILL while it read Noisy\[11\]; it is the 4th .*loader\.num_workers"
    with pytest.raises(RuntimeError, match=why) as failed:
        list(loader.steps(0))
    assert "\n" not in str(failed.value)
    loader.close()
    assert mine() == []


@pytest.mark.slow
def test_workers_that_are_killed_between_steps_change_nothing(opened: Opened) -> None:
    wanted, loader = list(opened(Noisy()).steps(0)), opened(Noisy(), 2)
    found = []
    for number, batch in enumerate(loader.steps(0)):
        found.append(batch)
        if number in (1, 3, 4) and (living := mine()):
            victim = random.choice(living)
            victim.kill()
            psutil.wait_procs([victim], timeout=5)
    assert_same(found, wanted)


@pytest.mark.slow
def test_the_process_that_forks_them_may_be_lost_again_and_again(opened: Opened) -> None:
    """It counts as one, however many go with it."""
    wanted, loader, found = list(opened(Noisy()).steps(0)), opened(Noisy(), 3), []
    for number, batch in enumerate(loader.steps(0)):
        found.append(batch)
        if number in (1, 4, 5):
            psutil.Process().children()[-1].kill()
    assert_same(found, wanted)


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize(
    ("data", "kind", "why"),
    [
        (Noisy(fault="raise", at=7), RuntimeError, r"^data: Noisy\[7\] failed: ZeroDivisionError: on purpose$"),
        (Noisy(fault="leave", at=7), RuntimeError, r"^data: Noisy\[7\] failed: SystemExit: 3$"),
        (Noisy(fault="shapes"), ValueError, r"^data: Noisy\[\d+\] has a part of shape \(2, \d+\) .*give the data set a method collate"),
    ],
)
def test_what_a_sample_does_wrong_is_one_line_that_names_it(opened: Opened, count: int, data: Any, kind: type[Exception], why: str) -> None:
    loader = opened(data, count, val=0, test=0)
    with pytest.raises(kind, match=why) as failed:
        list(loader.steps(0))
    assert "\n" not in str(failed.value)
    if data.fault == "raise":
        assert "in __getitem__" in str(failed.value.__cause__) or isinstance(failed.value.__cause__, ZeroDivisionError), "and where it was"
    if data.fault == "raise":  # the others can still be read
        assert sum(len(batch["index"]) for batch in opened(Noisy(fault="raise", at=50), count).steps(0)) == 32


def test_a_set_that_changes_its_length_is_one_line(opened: Opened) -> None:
    loader = opened(Growing(40))
    with pytest.raises(RuntimeError, match=r"^data: Growing had 41 samples when it was opened and has 42 now; .*let len stay"):
        next(loader.steps(0))


def test_what_cannot_be_sent_is_one_line_and_no_worker(opened: Opened, capfd: pytest.CaptureFixture[str]) -> None:
    data = Noisy()
    data.once = (index for index in range(3))  # type: ignore[assignment]
    why = r"data: Noisy cannot be sent to loader workers: TypeError: cannot pickle 'generator' object; open files in __getitem__"
    with pytest.raises(ValueError, match=f"^{why}"):
        opened(data, 1)
    assert len(list(opened(data, "auto").steps(0))) == 8
    assert "WARNING: no loader workers (loader.num_workers=auto): data: Noisy cannot be sent" in capfd.readouterr().err
    with pytest.raises(RuntimeError, match=r"^data: the data set cannot be made anew in a loader worker: OSError: nobody here knows"):
        next(opened(Elsewhere(), 1).steps(0))


def test_a_set_that_makes_its_batches_itself_is_told_where_it_belongs(opened: Opened) -> None:
    part = type("Arrays", (), {"part": lambda self, split, device: None})
    with pytest.raises(ValueError, match=r"^data: Arrays makes its batches itself, on the device; type loader=resident$"):
        opened(part())
    with pytest.raises(ValueError, match=r"^data: object has no __len__"):
        opened(object())
    with pytest.raises(ValueError, match=r"^train\.batch_size=33: the training part has 32 samples"):
        opened(Noisy(), batch_size=33)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"num_workers": -1}, r"loader\.num_workers=-1: not possible; type a whole number from 0, or auto"),
        ({"num_workers": "many"}, r"loader\.num_workers=many: not possible"),
        ({"num_workers": True}, r"loader\.num_workers=True: not possible"),
        ({"prefetch_factor": 0}, r"loader\.prefetch_factor=0: not possible; type a whole number from 1"),
        ({"timeout": -1}, r"loader\.timeout=-1: not possible"),
        ({"val": 1}, r"loader\.val=1: not possible"),
        ({"eval_batch_size": 0}, r"loader\.eval_batch_size=0: not possible"),
    ],
)
def test_options_that_cannot_be_are_refused(keys: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}"):
        Workers(Noisy(), batch_size=4, accumulate=1, seed=0, **keys)


# ---------------------------------------------------------------- how many


@pytest.mark.parametrize(("slow", "count"), [(5.0, 2), (0.1, 0)])
def test_auto_takes_the_faster_and_says_so_once(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], slow: float, count: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(7))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    looked = []
    monkeypatch.setattr(workers, "_seconds", lambda batches, ahead: looked.append(next(batches)) or (slow if len(looked) == 1 else 1.0))
    loader = opened(Noisy(), "auto", val=0, test=0)
    assert_same(looked[:1], looked[1:])
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"data: {count} loader workers for each process that trains (loader.num_workers=auto): a batch takes ")
    assert line.endswith("with 2, on 2 CPUs")
    assert len(mine()) == (count + 1 if count else 0)
    assert_same(loader.steps(0), opened(Noisy(), val=0, test=0).steps(0))
    opened(Noisy(), "auto", 1, 2)
    assert capfd.readouterr().err == "", "the first process speaks for all"


def test_auto_measures_and_workers_win_where_samples_take_long(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(2))
    loader = opened(Noisy(seconds=0.02), "auto")
    assert len(mine()) == 3
    assert os.getpid() not in pids(loader)

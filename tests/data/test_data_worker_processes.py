"""The processes of loader=workers: they end with the trainer and not before, have nothing of its own, and say where their time goes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from helpers import PROJECT, REPO
from toyproject.noisy import Noisy
from toyproject.squares import Squares

from data.workers import Workers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="worker processes need Linux")


@pytest.fixture(autouse=True)
def _modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers find the modules that we find: by our sys.path, not by our environment."""
    monkeypatch.delenv("PYTHONPATH")


TRAINER = """
import fcntl, os, signal, sys, time
from types import SimpleNamespace
from data.workers import Workers
from toyproject.noisy import Noisy
lock = open("lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, lambda number, frame: print("asked to stop", flush=True))
loader = Workers(Noisy(fault="sleep", at=int(sys.argv[1])), batch_size=4, accumulate=1, seed=3, num_workers=2)
loader.open(SimpleNamespace(dp_rank=0, dp_size=1), "cpu")
steps = loader.steps(0)
next(steps)
print("ready", flush=True)
for word in sys.stdin:
    if word.strip() == "close":
        loader.close()
    elif word.strip() == "raise":
        raise RuntimeError("on purpose")
    else:
        print(sum(1 for _ in steps), flush=True)
    print("done", flush=True)
"""


@pytest.fixture
def trainer(tmp_path: Path, no_process_left: None) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A process of its own with two workers, in a group of its own; it has one batch. A worker sleeps for a minute at sample `at`."""
    with contextlib.ExitStack() as stack:

        def call(at: int = -1) -> subprocess.Popen[str]:
            environment = {**os.environ, "PYTHONPATH": f"{REPO}:{PROJECT}"}
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", TRAINER, str(at)], cwd=tmp_path, env=environment, text=True, start_new_session=True,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                )
            )  # fmt: skip
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            return process

        yield call


def tell(process: subprocess.Popen[str], word: str) -> list[str]:
    """What it answers, up to "done"."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{word}\n")
    process.stdin.flush()
    return [line.strip() for line in iter(process.stdout.readline, "done\n")]


def below(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = psutil.Process(process.pid).children(recursive=True)
    assert len(found) == 3
    return found


def assert_gone(processes: list[psutil.Process], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes):
        assert time.monotonic() < deadline, f"left behind: {processes}"
        time.sleep(0.02)


def opened(data: Any, num_workers: int, **more: Any) -> Workers:
    loader = Workers(data, num_workers=num_workers, batch_size=4, accumulate=1, seed=3, **more)
    loader.open(SimpleNamespace(dp_rank=0, dp_size=1), "cpu")
    return loader


def third() -> int:
    """The first sample of the third batch."""
    with contextlib.closing(opened(Noisy(), 0)) as loader:
        return int(list(loader.steps(0))[2]["index"][0])


@pytest.mark.parametrize("is_busy", [False, True], ids=["idle", "busy"])
def test_no_worker_outlives_a_trainer_that_is_killed(trainer: Any, is_busy: bool) -> None:
    process = trainer(third() if is_busy else -1)
    found = below(process)
    time.sleep(0.5)  # until what is made ahead is made, but for that sample
    process.kill()
    assert_gone(found)


def test_no_worker_outlives_a_trainer_that_ends_by_an_exception(trainer: Any) -> None:
    process = trainer()
    found = below(process)
    process.stdin.write("raise\n")
    process.stdin.close()
    assert process.wait(20) == 1
    assert_gone(found)


def test_signals_to_the_group_are_the_trainers_to_judge(trainer: Any) -> None:
    process = trainer()
    found = below(process)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        os.killpg(process.pid, number)
        assert process.stdout.readline() == "asked to stop\n"
    assert tell(process, "count") == ["7"]
    assert {each.pid for each in below(process)} == {each.pid for each in found}, "the same ones"
    assert tell(process, "close") == []
    assert_gone(found, 1)


def test_workers_have_nothing_of_the_trainers(trainer: Any) -> None:
    process = trainer()
    for each in below(process):
        for link in Path("/proc", str(each.pid), "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # of a batch that was just sent
                assert link.readlink().name != "lock"
        assert each.num_threads() == 1
    process.kill()
    process.wait()


# ---------------------------------------------------------------- where the time goes


@pytest.mark.parametrize("count", [0, 2])
def test_reading_and_decoding_are_told_apart(no_process_left: None, count: int) -> None:
    """What a set waits for, and what it computes."""
    for data, more, less in ((Pausing(), "reading", "decoding"), (Spinning(), "decoding", "reading")):
        with contextlib.closing(opened(data, count, val=0.0, test=0.0)) as loader:
            before = loader.stages()
            assert len(list(loader.steps(0))) == 5
            spent = {name: seconds - before[name] for name, seconds in loader.stages().items()}
        assert spent[more] > 0.1
        assert spent[more] > spent[less] or more == "decoding", "a busy machine makes everybody wait"


class Pausing(Squares):
    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.01)
        return super().__getitem__(index)


class Spinning(Pausing):
    def __getitem__(self, index: int) -> Any:
        end = time.thread_time() + 0.01
        while time.thread_time() < end:
            pass
        return Squares.__getitem__(self, index)

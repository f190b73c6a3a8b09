"""Starting the real launcher, and killing it as a bad night would."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

REPO = Path(__file__).resolve().parent.parent
PROJECT = REPO / "tests" / "project"
TWO = ("id=a", "cluster.processes_per_node=2", "train.steps=120", "train.save_every=13", "train.batch_size=16")
"""The run that the tests of tests/node disturb; undisturbed it is the fixture `whole` there."""
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def environment(home: Path, **extra: str) -> dict[str, str]:
    """What a launcher process of a test sees: this checkout and the toy project, a state directory of its own."""
    env = {name: value for name, value in os.environ.items() if name not in RANK_VARIABLES}
    paths = [str(REPO), str(PROJECT), *filter(None, [env.get("PYTHONPATH")])]
    return {**env, "PYTHONPATH": os.pathsep.join(paths), "XDG_STATE_HOME": str(home / "state"), **extra}


def toy_words(runs_dir: Path, *words: str) -> list[str]:
    return ["--config-dir", str(PROJECT / "conf"), "+exp=toy", f"runs_dir={runs_dir}", *words]


def start(home: Path, words: list[str], **extra: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "launcher", *words],
        cwd=home,
        env=environment(home, **extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def running(home: Path, words: list[str], **extra: str) -> Iterator[subprocess.Popen[str]]:
    """A launcher that is gone, with everything below it, when the block is left."""
    process = start(home, words, **extra)
    try:
        yield process
    finally:
        kill_tree(process)


def finish(home: Path, words: list[str], timeout: float = 100, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run to the end. Fails the test where that takes longer than `timeout` seconds."""
    with running(home, words, **extra) as process:
        out, err = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(words, process.returncode, out, err)


def said_by(home: Path, programs: list[list[str]]) -> list[Any]:
    """What each of these programs, started side by side, prints last, as JSON."""
    started = [subprocess.Popen([sys.executable, *each], env=environment(home), stdout=subprocess.PIPE, text=True) for each in programs]
    try:
        return [json.loads(process.communicate(timeout=100)[0].splitlines()[-1]) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()


def descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def kill_tree(process: subprocess.Popen[str]) -> None:
    """SIGKILL the launcher and everything below it, in random order; return when all are gone."""
    tree = descendants(process.pid)
    victims = [*tree, psutil.Process(process.pid)] if process.poll() is None else tree
    random.shuffle(victims)
    for victim in victims:
        try:
            victim.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    assert_gone(tree)


def kill_launcher(process: subprocess.Popen[str]) -> None:
    """SIGKILL to it alone: what it started has to end by itself, within 2 s."""
    tree = descendants(process.pid)
    process.kill()
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    assert_gone(tree, 2)


def assert_gone(processes: list[psutil.Process], seconds: float = 5) -> None:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    alive = [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert not alive, f"left behind: {alive}"


def wait_for(condition: Callable[[], object], seconds: float = 60, what: str = "it") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.02)


def lines(path: Path) -> list[dict]:
    """Whole lines of a JSON-lines file that may be growing."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def losses(run: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in lines(run / "metrics.jsonl") if line["split"] == "train"}


def events(run: Path, name: str) -> list[dict]:
    return [event for event in lines(run / "events.jsonl") if event["event"] == name]


def worker_of(process: subprocess.Popen[str], rank: int) -> psutil.Process:
    """Not the watchdog, which has its worker's environment, nor torchrun, which names the module too."""
    workers = (child for child in descendants(process.pid) if "launcher.train.worker" in child.cmdline())
    return next(child for child in workers if child.environ().get("RANK") == str(rank))


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small tmpfs")


@contextmanager
def small_disk(place: Path, options: str) -> Iterator[Path]:
    """A tmpfs of its own at `place`, over what is there."""
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)  # a watchdog outlives its worker for a moment, with its log open

"""What the tests share. Nothing is patched where the real thing can be used: most tests start the real launcher.

    launch(*words, env=…, timeout=…)   `python -m launcher *words` to its end, as a CompletedProcess with text streams
    start(*words, env=…)               the same as a Popen that is not waited for; its streams are files (`.out`, `.err`: Path)
    toy(*words, …)                     launch with the toy project of tests/project (+exp=toy, ~5 s of training) and its runs below tmp_path
    toy_words                          the words that `toy` puts behind the verb, for `start(*toy_words, …)` or `command(…)`
    command(*words)                    the same command inside this process: Answer(code, out, err), for what a process would only slow down
    shared_data                        the real CIFAR-10 beside the repository, or a skip in plain sight

All of them work in tmp_path, without the rank variables and the settings of whoever runs the tests, without network, and with the
state file and runs_dir below tmp_path. A test that starts processes fails if one of them outlives it.

`--goldens` rewrites slurm/examples/ from what is rendered now; review the diff.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

REPO = Path(__file__).resolve().parent.parent
PROJECT = REPO / "tests" / "project"
TOY = ("--config-dir", str(PROJECT / "conf"), "+exp=toy")
VERBS = ("run", "render", "plan")

_FOREIGN = ("ACCELERATE_", "FSDP_", "PARALLELISM_CONFIG_", "TORCHELASTIC_", "PET_", "LAUNCHER_", "HYDRA_", "SLURM_")
_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
_PR_SET_CHILD_SUBREAPER = 36


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--goldens", action="store_true", help="rewrite the golden scripts in slurm/examples/")


@pytest.fixture(scope="session", autouse=True)
def _adopt_orphans() -> None:
    """A process whose parent was killed becomes our child instead of init's, so that the check below sees it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where decoded data goes: once per session, not into the home of whoever runs the tests."""
    return tmp_path_factory.mktemp("cache")


def environment_in(home: Path, cache: Path) -> dict[str, str]:
    """The environment of a process that a test starts: this checkout, the toy project, and nothing of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if name not in _RANKS and not name.startswith(_FOREIGN)}
    paths = [str(REPO), str(PROJECT), *filter(None, [kept.get("PYTHONPATH")])]
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(paths),
        "XDG_STATE_HOME": str(home / "state"),
        "LAUNCHER_CACHE": str(cache),
        "HF_HUB_OFFLINE": "1",
    }


@pytest.fixture
def environment(tmp_path: Path, cache: Path) -> dict[str, str]:
    return environment_in(tmp_path, cache)


@pytest.fixture
def toy_words(tmp_path: Path) -> tuple[str, ...]:
    return (*TOY, f"runs_dir={tmp_path / 'runs'}")


@pytest.fixture
def no_process_left() -> Iterator[None]:
    """At the end of the test, every process it started is gone (2 s of grace), orphans included."""
    before = set(psutil.Process().children(recursive=True))
    yield
    deadline = time.monotonic() + 2
    while (left := _living(before)) and time.monotonic() < deadline:
        time.sleep(0.05)
    shown = [f"{process.pid} {_command_of(process)}" for process in left]
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    assert not left, f"processes outlived the test: {shown}"


def _living(before: set[psutil.Process]) -> list[psutil.Process]:
    living = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error, ChildProcessError):
            if process in before:
                continue
            if process.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(process.pid, os.WNOHANG)  # an orphan that we adopted and nobody else will reap
            else:
                living.append(process)
    return living


def _command_of(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return "?"


class Started(subprocess.Popen[bytes]):
    """A launcher that runs beside the test. `out` and `err` are the files its streams go to."""

    out: Path
    err: Path


Launch = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def launch(tmp_path: Path, environment: dict[str, str], no_process_left: None) -> Launch:
    def call(*words: str, env: dict[str, str] | None = None, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "launcher", *words],
            cwd=tmp_path,
            env={**environment, **(env or {})},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
        )

    return call


@pytest.fixture
def start(tmp_path: Path, environment: dict[str, str], no_process_left: None) -> Iterator[Callable[..., Started]]:
    started: list[Started] = []

    def call(*words: str, env: dict[str, str] | None = None) -> Started:
        out, err = (tmp_path / f"launcher-{len(started)}.{stream}" for stream in ("out", "err"))
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = Started(
                [sys.executable, "-m", "launcher", *words],
                cwd=tmp_path,
                env={**environment, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
        process.out, process.err = out, err
        started.append(process)
        return process

    yield call
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.fixture
def toy(launch: Launch, toy_words: tuple[str, ...]) -> Launch:
    def call(*words: str, env: dict[str, str] | None = None, timeout: float = 90) -> subprocess.CompletedProcess[str]:
        verb, rest = (words[:1], words[1:]) if words[:1] and words[0] in VERBS else ((), words)
        return launch(*verb, *toy_words, *rest, env=env, timeout=timeout)

    return call


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """What stderr says beside warnings."""
        return [line for line in self.err.splitlines() if not line.startswith("launcher: warning:")]


@pytest.fixture
def command(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Answer]:
    from launcher.cli import main

    for name in os.environ.keys() - environment.keys():
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(PROJECT)
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Answer:
        mask = os.umask(0o077)
        capfd.readouterr()
        try:
            code = main(list(words))
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        finally:
            os.umask(mask)
        return Answer(code, *capfd.readouterr())

    return call


@pytest.fixture(scope="session")
def shared_data() -> Path:
    place = REPO.parent / "shared" / "data" / "cifar10"
    if not (place / "plain_text").is_dir():
        pytest.skip(f"the real CIFAR-10 is not in {place}")
    return place


def refused(answer: Answer, code: int, *parts: str) -> None:
    """Assert the shape of every refusal: the exit code, one line on stderr that has `parts` in it, nothing on stdout."""
    assert answer.code == code, answer
    assert answer.out == ""
    assert "Traceback" not in answer.err
    assert len(answer.lines) == 1, answer.err
    assert answer.lines[0].startswith("launcher: ")
    for part in parts:
        assert part in answer.lines[0], answer.err


def run_dir(done: subprocess.CompletedProcess[str] | Answer) -> Path:
    """The run directory, which `run` prints as its last line."""
    out = done.out if isinstance(done, Answer) else done.stdout
    return Path(out.splitlines()[-1])


def records(path: Path) -> list[dict[str, Any]]:
    """The objects of a .jsonl file, every line of which must be whole."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

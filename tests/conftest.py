"""What the tests share. Nothing is patched where the real thing can be used: most tests start the real launcher.

    launch(*words, env=…, timeout=…)   `python -m launcher *words` to its end, as a CompletedProcess with text streams
    start(*words, env=…)               the same as a Popen that is not waited for; its streams are files (`.out`, `.err`: Path)
    toy(*words, …)                     launch with the toy project of tests/project (+exp=toy, ~5 s of training) and its runs below tmp_path
    toy_words                          the words that `toy` puts behind the verb, for `start(*toy_words, …)` or `command(…)`
    command(*words)                    the same command inside this process: Answer(code, out, err), for what a process would only slow down
    fake, on_slurm                     programs that answer in SLURM's place (tests/fake_slurm.py), and the words of a batch job on them
    batch                              batch jobs of the toy project on it (tests/batch_jobs.py)
    shell                              the batch shell of one run alone, in bash, with stubs (tests/batch_shell.py)
    devcluster                         a real SLURM, or a skip in plain sight (tests/devcluster.py)
    sweep                              a finished `-m` of the toy project, once per session: a failed run, a done one, a refused one
    digits                             an export of a run on the digits, once for all workers of pytest
    shared_data                        the real CIFAR-10 beside the repository, or a skip in plain sight
    small_runs                         runs of shipped experiments on small data, trained once per session (tests/small_runs.py)

All of them work in tmp_path, without the rank variables and the settings of whoever runs the tests, without network, and with the
state file and runs_dir below tmp_path. A test that starts processes fails if one of them outlives it.

`--goldens` rewrites slurm/examples/ from what is rendered now; review the diff.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from batch_jobs import Batch
from batch_shell import Shell
from devcluster import DevCluster, why_not
from fake_slurm import FakeSlurm
from helpers import ON_SLURM, PROJECT, REPO, TOY, VERBS, Answer, Command, Launch, Started, Sweep, environment_in
from small_runs import SmallRuns, home_of

from launcher.rundir.rundir import RunDir

_PR_SET_CHILD_SUBREAPER = 36


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--goldens", action="store_true", help="rewrite the golden scripts in slurm/examples/")

    parser.addoption("--full", action="store_true", help="everything, and faults by the hundred: an hour on two cores (make chaos)")
    parser.addoption("--long", action="store_true", help="with --full: as many faults as a night has time for (make chaos-long)")
    parser.addoption("--seed", type=int, help="of the texts of make fuzz; each run of it prints its own")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--full"):
        for item in items:
            if item.get_closest_marker("full"):
                item.add_marker(pytest.mark.skip(reason="with --full"))


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    return request.config.getoption("--full")


@pytest.fixture
def many(request: pytest.FixtureRequest) -> Callable[[int, int, int], int]:
    """How often to inject a fault: a few times in every `make test-slow`, within the hour of `make chaos`, in the hours of `chaos-long`."""
    full, long = (request.config.getoption(option) for option in ("--full", "--long"))
    return lambda few, hour, hours: (hours if long else hour) if full else few


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_means_something() -> None:
    """A shell starts what it puts into the background with SIGINT ignored, and every process below inherits that."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _adopt_orphans() -> None:
    """A process whose parent was killed becomes our child instead of init's, so that the check below sees it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where decoded data goes: once per session, not into the home of whoever runs the tests."""
    return tmp_path_factory.mktemp("cache")


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
            if process in before or _of_the_cluster(process):
                continue
            if process.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(process.pid, os.WNOHANG)  # an orphan that we adopted and nobody else will reap
            else:
                living.append(process)
    return living


def _of_the_cluster(process: psutil.Process) -> bool:
    """A daemon of the cluster, not of the test: slurmscriptd has no environment left, but slurmctld as its parent;
    slurmstepd writes its title over its environment, is nobody's child, and ends a while after what it ran."""
    marked = any("LAUNCHER_DEVCLUSTER_OF" in each.environ() for each in (process, *process.parents()[:1]))
    return marked or process.name() == "slurmstepd"


def _command_of(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return "?"


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


@pytest.fixture
def command(tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    from launcher.cli import main  # here, so that collecting tests does not wait for it

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


@pytest.fixture
def fake(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path / "fake").instead(monkeypatch)


@pytest.fixture
def on_slurm(toy_words: tuple[str, ...]) -> tuple[str, ...]:
    return (*toy_words, *ON_SLURM, "cluster.shared_filesystem=true")


@pytest.fixture(scope="session")
def digits(small_runs: SmallRuns) -> Path:
    """An export of digits of 8x8 pixels, trained for eight epochs, to be read alone."""
    pytest.importorskip("sklearn", reason="the extra sklearn is not installed")
    return small_runs.exported("digits")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    place = REPO.parent / "shared" / "data" / "cifar10"
    if not (place / "plain_text").is_dir():
        pytest.skip(f"the real CIFAR-10 is not in {place}")
    return place


@pytest.fixture(scope="session")
def small_runs(tmp_path_factory: pytest.TempPathFactory) -> SmallRuns:
    return SmallRuns(home_of(tmp_path_factory.getbasetemp()))


@pytest.fixture(scope="session")
def devcluster() -> Iterator[DevCluster]:
    """The real SLURM of slurm/devcluster: the one that is up, or one for this session; or a skip in plain sight."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    cluster = DevCluster()
    was_up = cluster.is_up()
    cluster.up()
    yield cluster
    if not was_up:
        cluster.down()


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def batch(tmp_path: Path, devcluster: DevCluster, launch: Launch, toy_words: tuple[str, ...]) -> Iterator[Batch]:
    """Batch jobs of the toy project; whatever is left of them at the end is cancelled, and a process that outlives that fails the test."""
    jobs = Batch(tmp_path, devcluster, launch, toy_words)
    yield jobs
    jobs.close()


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Sweep:
    """`-m` with three members: one whose first step raises, one that trains for a step, one that is refused."""
    home = tmp_path_factory.mktemp("sweep")
    words = (*TOY, f"runs_dir={home / 'runs'}", "train.steps=1")
    driver = f"""
import sys
from pathlib import Path
from launcher.cli import main
code = main(["-m", *{words!r}, "loader.fail_at=0,null,never"])
Path("heavy").write_text(" ".join(name for name in ("torch", "accelerate", "numpy", "safetensors") if name in sys.modules))
sys.exit(code)
"""
    done = subprocess.run(
        [sys.executable, "-c", driver],
        cwd=home,
        env=environment_in(home, cache),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    runs = [RunDir(path) for path in sorted((home / "runs" / "toy").iterdir())]
    return Sweep(done, (home / "heavy").read_text(), runs, words, home)

"""What is written goes where its name says, or nowhere: not through what somebody has planted there.

Every writer meets a link to a file of mine, a link to a file that is not there, a second name of a file of mine, a pipe that nobody reads,
a pipe that somebody does, and a directory. The canaries are the file of mine, which stays as it was, and the file that is not made.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from batch_shell import Shell
from helpers import REPO, Answer, refused
from test_rundir import frozen

from launcher.errors import RunError
from launcher.node import blame, hardware
from launcher.rundir import lock, lookup, standin
from launcher.rundir.claim import Claim
from launcher.rundir.rundir import RunDir, write_atomic
from launcher.train.worker import _redirect  # pyright: ignore[reportPrivateUsage]

Writer = Callable[[RunDir], object]
pytestmark = pytest.mark.timeout(20)


def _ledger(run: RunDir) -> None:
    run.log_event("x")


def _claim(run: RunDir) -> None:
    Claim(run, 7).take()


def _file(run: RunDir) -> None:
    write_atomic(run.path / "collected.csv", "x")


def _lock(run: RunDir) -> None:
    os.close(lock.hold(run.lock, "x", 0))


def _launcher(run: RunDir) -> None:
    with lock.alone(run.lock, run.launcher):
        pass


def _turn(run: RunDir) -> None:
    with lock.in_turn(run.path / ".submit"):
        pass


def _stand_in(run: RunDir) -> None:
    standin.take(run.lock)


def _stop(run: RunDir) -> None:
    from launcher.verbs.cancel import _stop_here  # pyright: ignore[reportPrivateUsage]

    with lock.alone(run.lock, run.launcher):
        _stop_here(run)


def _report(run: RunDir) -> None:
    fields = {"rank": 0, "host": "h", "step": 1, "exception": "E", "message": "m", "exit_code": 1, "traceback": None}
    blame.leave(run, 0, 0, None, **fields)


def _log(run: RunDir) -> None:
    saved = os.dup(1), os.dup(2)
    try:
        _redirect(run, SimpleNamespace(attempt=0, rank=0, restart=1))  # pyright: ignore[reportArgumentType]
    finally:
        os.dup2(saved[0], 1), os.dup2(saved[1], 2)


def _bad_nodes(run: RunDir) -> None:
    hardware.blames_node(run, 0, "CUDA error: uncorrectable ECC error encountered", "node1")


def _remembered(run: RunDir) -> None:
    lookup.remember(run.path.parent.parent)


def _metrics(run: RunDir) -> None:
    from launcher.train.record.metrics import MetricsFile

    MetricsFile(run.metrics).write(1, "train", loss=1.0)


def _shard(run: RunDir) -> None:
    from launcher.train.checkpoint.checkpoint import CheckpointStore
    from launcher.train.world.ranks import Ranks

    store = CheckpointStore(run.checkpoints, Ranks(0, 1), Claim(run, 0), 0, keep=2)
    store._write_synced(run.path / "shard", (b"x",), "in_shard")  # pyright: ignore[reportPrivateUsage]


def _trained(run: RunDir) -> None:
    from launcher.train.deadline import Deadline

    limit = Deadline(None, run.path / "trained")
    limit.is_near(1, 1)
    limit.note()


WRITERS: dict[str, tuple[Writer, str]] = {
    # what writes, and the name that it opens
    "ledger": (_ledger, "events.jsonl"), "claim": (_claim, ".{}.{}".format(".claim", os.getpid())),
    "collect": (_file, f".collected.csv.{os.getpid()}"), "lock": (_lock, ".lock"), "launcher": (_launcher, ".launcher"),
    "turn": (_turn, ".submit"), "stand-in": (_stand_in, ".lock.000000.held"), "stop": (_stop, "STOP"),
    "report": (_report, f"attempts/000/.error.json.{os.getpid()}.0"), "log": (_log, "attempts/000/rank_0.log"),
    "bad nodes": (_bad_nodes, "attempts/000/bad_nodes"), "remembered": (_remembered, "state/launcher/runs_dirs"),
    "metrics": (_metrics, "metrics.jsonl"), "shard": (_shard, "shard"), "trained": (_trained, "trained"),
}  # fmt: skip
APPENDED = ("ledger", "log", "bad nodes", "remembered", "metrics")
"""Where nobody else may write, who has a second name of a file has it by `cp -al`: what is appended goes on. A lock is refused."""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    here = frozen(tmp_path / "runs" / "toy" / "1")
    (here.attempts / "000").mkdir()
    monkeypatch.setenv("XDG_STATE_HOME", str(here.path / "state"))
    (here.path / "state" / "launcher").mkdir(parents=True)
    (tmp_path / "victim").write_text("mine\n")
    return here


@pytest.fixture
def readers() -> Iterator[list[int]]:
    descriptors: list[int] = []
    yield descriptors
    for descriptor in descriptors:
        os.close(descriptor)


def plant(kind: str, place: Path, victim: Path, readers: list[int]) -> None:
    place.unlink(missing_ok=True)
    if kind == "link":
        place.symlink_to(victim)
    elif kind == "link to nothing":
        place.symlink_to(victim.with_name("made"))
    elif kind == "second name":
        place.hardlink_to(victim)
    elif kind == "directory":
        place.mkdir()
    else:
        os.mkfifo(place)
        if kind == "pipe with a reader":
            readers.append(os.open(place, os.O_RDONLY | os.O_NONBLOCK))


@pytest.mark.parametrize("kind", ["link", "link to nothing", "second name", "pipe", "pipe with a reader", "directory"])
@pytest.mark.parametrize("name", WRITERS)
def test_nothing_goes_elsewhere(name: str, kind: str, run: RunDir, tmp_path: Path, readers: list[int]) -> None:
    if kind == "second name" and name in APPENDED:
        pytest.skip("see APPENDED")
    write, opened = WRITERS[name]
    plant(kind, run.path / opened, tmp_path / "victim", readers)
    with suppress(RunError, OSError):
        write(run)
    assert (tmp_path / "victim").read_text() == "mine\n"
    assert not (tmp_path / "made").exists()
    assert not any(_arrived(descriptor) for descriptor in readers)


def _arrived(descriptor: int) -> bytes:
    with suppress(BlockingIOError):
        return os.read(descriptor, 100)
    return b""


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_planted_nothing_lost(name: str, run: RunDir) -> None:
    WRITERS[name][0](run)


@pytest.mark.parametrize("kind", ["link", "link to nothing", "second name", "pipe"])
def test_a_start_is_refused_in_one_line(kind: str, run: RunDir, tmp_path: Path, command: Callable[..., Answer]) -> None:
    run.config.write_text("cluster: {_target_: launcher.clusters.local.Local, processes_per_node: 1, device: cpu}\ntrust: []\n")
    plant(kind, run.launcher, tmp_path / "victim", [])
    refused(command("resume", str(run)), 3, f"rm {run.launcher}")


# ---------------------------------------------------------------- a copy has what was planted in the original


def _claim_new(run: Path, victim: Path) -> None:
    (run / ".claim.new").symlink_to(victim)


def _ledger_link(run: Path, victim: Path) -> None:
    (run / "events.jsonl").unlink(missing_ok=True)
    (run / "events.jsonl").symlink_to(victim)


def _checkpoints(run: Path, victim: Path) -> None:
    (run / "checkpoints").symlink_to(victim.parent)


def _attempts(run: Path, victim: Path) -> None:
    (run / "attempts").rmdir()
    (run / "attempts").symlink_to(victim.parent)


def _deep(run: Path, victim: Path) -> None:
    (run / "attempts" / "000").mkdir()
    (run / "attempts" / "000" / "ended").symlink_to(victim)


def _over_two(run: Path, victim: Path) -> None:
    (run / "a").symlink_to(victim)
    (run / "tb").symlink_to("a")


def _relative(run: Path, victim: Path) -> None:
    (run / "tb").symlink_to(os.path.relpath(victim, run))


def _to_nothing(run: Path, victim: Path) -> None:
    (run / "STOP").symlink_to(victim.with_name("made"))


@pytest.mark.parametrize("door", [_claim_new, _ledger_link, _checkpoints, _attempts, _deep, _over_two, _relative, _to_nothing])
def test_a_copy_with_links_out_of_it_is_not_run(door: Callable[[Path, Path], None], tmp_path: Path, command: Callable[..., Answer]) -> None:
    run = frozen(tmp_path / "runs" / "toy" / "1")
    run.config.write_text("cluster: {_target_: launcher.clusters.local.Local, processes_per_node: 1, device: cpu}\ntrust: []\n")
    (tmp_path / "mine").mkdir()
    victim = tmp_path / "mine" / "victim"
    victim.write_text("mine\n")
    door(run.path, victim)
    run.path.rename(tmp_path / "copy")
    refused(command("resume", str(tmp_path / "copy")), 3, "is a link out of this run")
    assert victim.read_text() == "mine\n"
    assert [path.name for path in victim.parent.iterdir()] == ["victim"]


def test_links_within_it_stay(tmp_path: Path) -> None:
    from launcher.start.settle import _refuse_links  # pyright: ignore[reportPrivateUsage]

    run = frozen(tmp_path / "runs" / "toy" / "1")
    (run.attempts / "000").mkdir()
    (run.attempts / "latest").symlink_to("000")
    run.code.mkdir()
    (run.code / "data").symlink_to("/")  # as the repository has it
    _refuse_links(run)


@pytest.mark.parametrize("name", [".claim", ".claim.new", "STOP", "STOP.new", "REQUEUE.new", ".doctor.new", "events.jsonl"])
def test_what_a_jobs_shell_writes_goes_through_no_link_of_a_copied_run(name: str, tmp_path: Path) -> None:
    """Whose own it is by then, and who wrote the run it is a copy of has said where the link leads."""
    shell = Shell(tmp_path)
    mine = tmp_path / "mine"
    mine.write_text("mine\n")
    (shell.run / name).symlink_to(mine)
    code, said = shell.start(text="false\n")
    assert code == 0, said
    assert mine.read_text() == "mine\n"
    assert (shell.run / ".claim").read_text() == "000\n"
    assert not (shell.run / ".claim").is_symlink()


@pytest.mark.parametrize("link", [True, False])
@pytest.mark.parametrize("name", ["REQUEUE", "STOP", ".doctor"])
def test_a_file_of_the_run_is_put_anew(link: bool, name: str, tmp_path: Path) -> None:
    text = (REPO / "launcher" / "clusters" / "slurm" / "slurm.sh").read_text(encoding="utf-8")
    put = next(part for part in text.split("\n\n") if part.startswith("put() {"))
    assert not re.search(r'[^>]>"\$run/', text), "only put writes there"
    mine, new = tmp_path / "mine", tmp_path / name
    mine.write_text("mine\n")
    for place in (new, tmp_path / f"{name}.new"):
        place.symlink_to(mine) if link else place.write_text("old\n")
    subprocess.run(["bash", "-c", f'set -euo pipefail\n{put}\nput "$0" "a text"', new], check=True)
    assert (new.read_text(), new.is_symlink(), mine.read_text()) == ("a text\n", False, "mine\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["mine", name])

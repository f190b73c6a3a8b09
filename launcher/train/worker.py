"""One process of a run: `python -m launcher.train.worker RUN_DIR`, started by torchrun.

Reads the frozen config, checks that the world is the one the plan promised, trains. Whatever it prints goes to its own log; if it
fails, the first rank to do so leaves error.json, which is what the launcher shows.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any, TextIO

from launcher.errors import ConfigError, LaunchError, TrainingFailed
from launcher.node import blame, hardware
from launcher.node.deathsig import die_with_parent
from launcher.node.place import Place, check_world
from launcher.node.watchdog import STACKS
from launcher.plan import Plan
from launcher.rundir import progress
from launcher.rundir.rundir import RunDir, read_text, umask_of
from launcher.trust import sieve, writing
from launcher.trust.secret import mask
from launcher.verdict.diagnose import LOST_PEER


def die_with_agent() -> None:
    """Before torch is imported, for that takes seconds. torchrun may be dead by then: the script left us its pid to compare."""
    die_with_parent()
    agent = os.environ.get("LAUNCHER_AGENT_PID")
    if agent is not None and os.getppid() != int(agent):
        sys.exit("torchrun is gone; so is this worker")


Work = Callable[[RunDir, Plan, Place, dict[str, Any]], None]
"""What a process is for, of a world that is as it was promised; `where["step"]` is kept up to date for whoever reports an error."""


def _train(run: RunDir, plan: Plan, place: Place, where: dict[str, Any]) -> None:
    from launcher.train.work import work

    work(run, plan, place, where)


def main(argv: list[str], work: Work = _train) -> int:
    """Do `work`, which imports torch and not before. Returns the exit code."""
    die_with_agent()
    run = RunDir(argv[1])
    os.umask(umask_of(run))
    try:
        place = Place.from_environment()
    except ConfigError as error:
        print(f"launcher: {error}", file=sys.stderr)
        return error.exit_code
    _redirect(run, place)
    where: dict[str, Any] = {"step": 0, "refused": False}
    try:
        plan = run.read_plan()
        where["refused"] = True
        check_world(plan, place)
        where["refused"] = False
        os.chdir(plan.directory)  # a batch job starts where its copy of the code is
        work(run, plan, place, where)
    except Exception as error:
        _report(run, place, error, where)
        # Not sys.exit: peers may be gone, and gloo and NCCL wait for them in their destructors.
        os._exit(error.exit_code if isinstance(error, LaunchError) else TrainingFailed.exit_code)
    return 0


def _redirect(run: RunDir, place: Place) -> None:
    """stdout and stderr, those of C libraries too, into this rank's log of this attempt, without secrets. Stacks go there as they are:
    they hold no values, and whoever asked for them waits.
    """
    path = run.rank_log(place.attempt, place.rank)
    descriptor = writing.to_append(path)
    with contextlib.suppress(LaunchError):  # said below, by whoever needs it
        mask.asked_in(read_text(run.config))
        mask.show(run.path)
    if mask.forms():
        sieve.put_before(descriptor)
    else:
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
    sys.stdout, sys.stderr = (sieve.masked(_log(descriptor)) for _ in (1, 2))
    faulthandler.enable(descriptor)
    if sys.platform == "linux":  # where there is a watchdog; elsewhere that number is another signal
        faulthandler.register(STACKS, descriptor)
    if place.restart:
        print(f"--- restart {place.restart} of attempt {place.attempt}")


def _log(descriptor: int) -> TextIO:
    raw = _Lossy(descriptor, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", "backslashreplace", line_buffering=True)


class _Lossy(io.FileIO):
    """A log on a disk that is full loses lines; training does not end for that."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return memoryview(data).nbytes


def _report(run: RunDir, place: Place, error: Exception, where: dict[str, Any]) -> None:
    """Leave error.json if no other rank has: what fails next only fails because we did."""
    expected = isinstance(error, LaunchError)
    report = {
        "rank": place.rank,
        "host": socket.gethostname(),
        "step": int(where["step"]),
        "refused": bool(where["refused"]),
        "exception": type(error).__name__,
        "message": " ".join(str(error).split()),
        "exit_code": error.exit_code if expected else TrainingFailed.exit_code,
        "traceback": None if expected else traceback.format_exc(),
    }
    print(f"{progress.FAILED}\n{error if expected else report['traceback']}", file=sys.stderr, flush=True)
    broken = not expected and hardware.blames_node(run, place.attempt, str(report["message"]))
    lost = not broken and LOST_PEER.search(str(report["message"]))  # then the batch shell finds out whether it was a node
    blame.leave(run, place.attempt, place.restart, None if lost else "hardware" if broken else "failed", **report)


if __name__ == "__main__":
    sys.exit(main(sys.argv))

"""Work that is no training, on this machine: started, shown, and waited for. It is all there at its end, or has to be done again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from launcher.clusters import submit
from launcher.clusters.screen import Screen
from launcher.errors import Interrupted, TrainingFailed
from launcher.rundir.progress import FAILED
from launcher.rundir.rundir import RunDir
from launcher.rundir.tail import Tail
from launcher.trust.ending import ending
from launcher.verdict.diagnose import failure

if TYPE_CHECKING:
    from launcher.clusters.attended import Attended

POLL_SECONDS = 0.1


def see(here: RunDir, cluster: Attended) -> dict[str, Any]:
    """Its summary. No process stays behind. Raises the error that a rank reported, TrainingFailed where
    none could, Interrupted after Ctrl-C."""
    with ending():
        process = submit.start(cluster.submit_argv(here.read_plan()))
        screen = Screen()  # a thread: after the fork
        try:
            _show(here, process.pid, screen, lambda: process.poll() is not None)
        except KeyboardInterrupt as told:
            raise Interrupted("stopped; nothing was written", told) from None
        finally:
            submit.end(process, cluster.grace)  # its processes die with it
            screen.close()
    attempt = here.attempt_of(process.pid)
    if attempt is None:
        raise TrainingFailed(f"{here.script} ended with status {process.returncode} before its first process; run it by hand to see why")
    summary = here.read_summary()
    if summary is None or summary["state"] != "done":
        raise cluster.explained(here, attempt, failure(here, attempt, process.returncode))
    return summary


def _show(here: RunDir, agent: int, screen: Screen, is_over: Callable[[], bool]) -> None:
    """The first rank's lines, as they come."""
    tail: Tail | None = None
    failed = False
    while True:
        ended = is_over()  # asked first, so that the last read below sees everything
        attempt = here.attempt_of(agent) if tail is None else None
        if attempt is not None:
            tail = Tail(here.rank_log(attempt, 0))
        for line in tail.lines() if tail else ():
            failed = failed or line == FAILED
            if not failed:
                screen.line(line)
        if ended:
            return
        time.sleep(POLL_SECONDS)

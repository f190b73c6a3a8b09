"""Staying with a local run: show it, pass signals on, say how it ended."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from types import FrameType
from typing import Any

from launcher import submit
from launcher.diagnose import failure
from launcher.errors import Interrupted, RankLost, RunError, Stopped, TrainingFailed
from launcher.plan import Cluster, Plan
from launcher.progress import FAILED
from launcher.rundir import RunDir, write_atomic
from launcher.screen import Screen, tell
from launcher.tail import Tail

POLL_SECONDS = 0.1
MOST_FRUITLESS = 3
"""Attempts in a row without a new checkpoint; as many as of a batch job (clusters/slurm.sh)."""


class _Signals:
    """Counts what arrives; the loop below acts on it."""

    def __init__(self) -> None:
        self.interrupts = 0
        self.terminated = False

    def __enter__(self) -> _Signals:
        wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        # nohup ignores SIGHUP before we start, a shell SIGINT for what it puts into the background: that choice stays
        self._saved = {number: signal.getsignal(number) for number in wanted if signal.getsignal(number) != signal.SIG_IGN}
        for number in self._saved:
            signal.signal(number, self._note)
        return self

    def _note(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT:
            self.interrupts += 1
        else:
            self.terminated = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self._saved.items():
            signal.signal(number, handler)


def attend(run: RunDir, plan: Plan, cluster: Cluster) -> dict[str, Any]:
    """Start an attempt and stay until it ends; after a rank was killed or hung, start the next one. Returns the summary.

    Raises TrainingFailed or the error a rank reported; Stopped when it was asked to stop by a signal or the STOP file;
    Interrupted after Ctrl-C (once: saved and stopped; twice: killed).
    """
    fruitless = 0
    while True:
        newest = run.newest_checkpoint()
        try:
            return _attempt(run, plan, cluster)
        except RankLost as lost:
            fruitless = 0 if run.newest_checkpoint() != newest else fruitless + 1
            if not cluster.requeue or run.stop.exists() or fruitless == MOST_FRUITLESS:
                why = f"{fruitless} attempts in a row brought no new checkpoint; the last of them: " if fruitless == MOST_FRUITLESS else ""
                raise RankLost(f"{why}{lost}; go on from the newest checkpoint with: python -m launcher resume {run}") from lost
            tell(f"launcher: {lost}\nlauncher: starting again from {run.newest_checkpoint() or 'the beginning'}")
            run.log_event("requeued", reason=str(lost))
            _note_end(run, lost)


def _note_end(run: RunDir, lost: RankLost) -> None:
    """The word that a batch job's shell would leave."""
    attempt = run.newest_attempt()
    if attempt is not None:
        with contextlib.suppress(RunError):
            write_atomic(run.attempt(attempt) / "ended", f"requeued-{'hung' if ' hangs in ' in str(lost) else 'killed'}\n")


def _attempt(run: RunDir, plan: Plan, cluster: Cluster) -> dict[str, Any]:
    run.stop.unlink(missing_ok=True)  # here and not in a worker: a STOP that arrives while processes start must count
    with _Signals() as signals:
        process = submit.start(cluster, plan)
        screen = Screen()  # a thread: after the fork
        try:
            _watch(run, process, signals, screen)
        finally:
            _kill(process)
            screen.close()
    attempt = run.attempt_of(process.pid)
    if attempt is None:
        raise TrainingFailed(f"{run.script} ended with status {process.returncode} before its first process; run it by hand to see why")
    return _verdict(run, plan, attempt, process.returncode, signals)


def _watch(run: RunDir, process: subprocess.Popen[bytes], signals: _Signals, screen: Screen) -> None:
    tail: Tail | None = None
    asked = failed = False
    while True:
        ended = process.poll() is not None  # asked first, so that the last read below sees everything
        attempt = run.attempt_of(process.pid) if tail is None else None
        if attempt is not None:
            tail = Tail(run.rank_log(attempt, 0))
        for line in tail.lines() if tail else ():
            failed = failed or line == FAILED
            if not failed:
                screen.line(line)
        if ended or signals.interrupts > 1:
            return
        if (signals.interrupts or signals.terminated) and not asked:
            asked = True
            run.stop.touch(mode=0o600)
            screen.line("stopping: saving at the next step boundary (Ctrl-C again: stop now)")
        time.sleep(POLL_SECONDS)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """torchrun first and last: its workers die with it (PR_SET_PDEATHSIG)."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    process.wait()


def _verdict(run: RunDir, plan: Plan, attempt: int, status: int, signals: _Signals) -> dict[str, Any]:
    summary = run.read_summary()
    if summary is not None and summary["state"] == "done":
        return summary
    if summary is not None and summary["state"] == "stopped" and summary["attempt"] == attempt:
        hint = f"stopped at step {summary['steps']} and saved; go on with: python -m launcher resume {run}"
        raise (Interrupted if signals.interrupts else Stopped)(hint)
    if signals.interrupts > 1:
        raise Interrupted(f"stopped at once; go on from the newest checkpoint with: python -m launcher resume {run}")
    error = failure(run, attempt, status)
    if isinstance(error, RankLost) and (signals.interrupts or signals.terminated):
        kind = Interrupted if signals.interrupts else Stopped
        raise kind(f"stopped, but not saved: {error}; go on from the newest checkpoint with: python -m launcher resume {run}")
    closing = {"state": "failed", "attempt": attempt, "name": plan.name, "id": plan.id, "error": str(error)}
    with contextlib.suppress(RunError):  # the disk may be what failed; the error matters more than its copy
        write_atomic(run.summary, json.dumps(closing, indent=2) + "\n")
    raise error

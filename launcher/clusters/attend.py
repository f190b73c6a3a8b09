"""Staying with a run that was started here: show it, pass signals on, say how it ended."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from types import FrameType
from typing import TYPE_CHECKING, Any

from launcher.clusters import submit
from launcher.clusters.screen import Screen, tell
from launcher.errors import ClusterError, Interrupted, RankLost, RunError, Stopped, TrainingFailed
from launcher.plan import Plan
from launcher.rundir import lock
from launcher.rundir.progress import FAILED
from launcher.rundir.rundir import RunDir, write_atomic
from launcher.rundir.tail import Tail
from launcher.trust import writing
from launcher.trust.secret import mask
from launcher.verdict import headway
from launcher.verdict.diagnose import failure
from launcher.verdict.evidence import newest_report

if TYPE_CHECKING:
    from launcher.clusters.attended import Attended

POLL_SECONDS = 0.1


class _Signals:
    """Counts what arrives; the loop below acts on it."""

    def __init__(self) -> None:
        self.interrupts = 0
        self.terminated = False

    @property
    def asked(self) -> bool:
        return self.interrupts > 0 or self.terminated

    @property
    def error(self) -> type[Interrupted | Stopped]:
        return Interrupted if self.interrupts else Stopped

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


def alone(run: RunDir) -> contextlib.AbstractContextManager[None]:
    """While this launcher is at the run no other is. Here, so that what attends is imported when the lock is held: a signal from then on
    finds it, or almost. Raises RunError."""
    return lock.alone(run.lock, run.launcher)


def attend(run: RunDir, plan: Plan, cluster: Attended) -> dict[str, Any]:
    """Start an attempt and stay until it ends; after a rank was killed or hung, start the next one. Returns the summary.

    Raises TrainingFailed or the error a rank reported; Stopped when it was asked to stop by a signal or the STOP file;
    Interrupted after Ctrl-C (once: saved and stopped; twice: killed).
    """
    with _Signals() as signals:  # between two attempts too
        ours: list[int] = []
        while True:
            newest, began = run.newest_checkpoint(), time.monotonic()
            try:
                return _attempt(run, plan, cluster, signals)
            except RankLost as lost:
                stays, why, attempt = not cluster.requeue or run.stop.exists(), "", run.newest_attempt()
                how = f"requeued-{'hung' if ' hangs in ' in str(lost) else 'killed'}"
                if attempt is not None and not stays:
                    headway.note(run, attempt, checkpoint=newest, lasted=f"{time.monotonic() - began:.1f}")
                    ours.append(attempt)
                    why = headway.stuck(run, ours, ended=how)
                if stays or why:
                    raise RankLost(f"{why and why + '; the last of them: '}{lost}; {_go_on(run)}") from lost
                _requeue(run, attempt, how, lost, signals)
                _again(run, cluster, lost, signals)


def _requeue(run: RunDir, attempt: int | None, how: str, lost: RankLost, signals: _Signals) -> None:
    """Another attempt follows, unless somebody has asked to stop since."""
    if attempt is not None:
        _note_end(run, attempt, how)
    if signals.asked:
        run.log_event("interrupted", attempt=attempt)
        raise signals.error(
            f"stopped between two attempts ({lost}); go on from the newest checkpoint with: python -m launcher resume {run}"
        )
    tell(f"launcher: {lost}\nlauncher: starting again from {run.newest_checkpoint() or 'the beginning'}")
    run.log_event("requeued", reason=str(lost))


def _again(run: RunDir, cluster: Attended, lost: RankLost, signals: _Signals) -> None:
    """What the next attempt needs is there, or the run ends. Raises ClusterError, Fewer, Stopped, Interrupted."""
    try:
        cluster.again(run, lambda: signals.asked or run.stop.exists())
    except ClusterError as error:
        raise ClusterError(f"{error}; {_go_on(run)}") from lost
    if signals.asked or run.stop.exists():
        raise signals.error(f"stopped between two attempts ({lost}); {_go_on(run)}")


def _go_on(run: RunDir) -> str:
    return f"go on from the newest checkpoint with: python -m launcher resume {run}"


def _note_end(run: RunDir, attempt: int, word: str) -> None:
    """The word that a batch job's shell would leave."""
    with contextlib.suppress(RunError):
        write_atomic(run.attempt(attempt) / "ended", f"{word}\n")


def _attempt(run: RunDir, plan: Plan, cluster: Attended, signals: _Signals) -> dict[str, Any]:
    run.stop.unlink(missing_ok=True)  # here and not in a worker: a STOP that arrives while processes start must count
    before = run.newest_attempt()
    process = submit.start(cluster.submit_argv(plan))
    screen = Screen()  # a thread: after the fork
    try:
        _watch(run, process, signals, screen, before)
    finally:
        submit.end(process, cluster.grace)  # torchrun first and last: its workers die with it (PR_SET_PDEATHSIG)
        screen.close()
    if not run.plan.exists():
        raise RunError(f"{run} is not there any more: moved while it trained, it has ended; go on with: python -m launcher resume PLACE")
    attempt = run.attempt_of(process.pid, before)
    if attempt is None and signals.asked:
        run.log_event("interrupted")
        raise signals.error(f"stopped before its first process; go on with: python -m launcher resume {run}")
    if attempt is None:
        raise TrainingFailed(f"{run.script} ended with status {process.returncode} before its first process; run it by hand to see why")
    return _verdict(run, plan, cluster, attempt, process.returncode, signals)


def _watch(run: RunDir, process: subprocess.Popen[bytes], signals: _Signals, screen: Screen, before: int | None) -> None:
    tail: Tail | None = None
    asked = failed = False
    while True:
        ended = process.poll() is not None  # asked first, so that the last read below sees everything
        attempt = run.attempt_of(process.pid, before) if tail is None else None
        if attempt is not None:
            tail = Tail(run.rank_log(attempt, 0))
        for line in tail.lines() if tail else ():
            failed = failed or line == FAILED
            if not failed:
                screen.line(line)
        if ended or signals.interrupts > 1:
            return
        if signals.asked and not asked:
            asked = True
            with contextlib.suppress(OSError):  # it was moved meanwhile: the rank ends by itself
                writing.over(run.stop, "")
            screen.line("stopping: saving at the next step boundary (Ctrl-C again: stop now)")
        time.sleep(POLL_SECONDS)


def _verdict(run: RunDir, plan: Plan, cluster: Attended, attempt: int, status: int, signals: _Signals) -> dict[str, Any]:
    summary = run.read_summary()
    if summary is not None and summary["state"] == "done":
        return summary
    if summary is not None and summary["state"] == "stopped" and summary.get("attempt") == attempt:
        _note_end(run, attempt, "stopped")
        at = f" at step {summary['steps']} and saved" if summary.get("steps") is not None else ""
        at += ", for the time here is nearly over" if summary.get("stopped_by") == "deadline" else ""
        raise signals.error(f"stopped{at}; go on with: python -m launcher resume {run}")
    if signals.interrupts > 1:
        _note_end(run, attempt, "interrupted")
        raise Interrupted(f"stopped at once; {_go_on(run)}")
    error = cluster.explained(run, attempt, failure(run, attempt, status))
    if isinstance(error, Stopped):
        _note_end(run, attempt, "interrupted")
    if isinstance(error, Stopped) or not run.attempt(attempt).exists():  # of what could not begin nothing is left
        raise error
    if isinstance(error, RankLost) and signals.asked:
        _note_end(run, attempt, "interrupted")
        raise signals.error(f"stopped, but not saved: {error}; {_go_on(run)}")
    report = newest_report(run, attempt)
    if report is not None and report.refused:
        run.forget_attempt(attempt)
        raise error
    closing = {"state": "failed", "attempt": attempt, "name": plan.name, "id": plan.id, "error": mask(str(error))}
    with contextlib.suppress(RunError):  # the disk may be what failed; the error matters more than its copy
        write_atomic(run.summary, json.dumps(closing, indent=2) + "\n")
    raise error

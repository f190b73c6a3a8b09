"""What a process of a script's run does: be the only one at the run, start the program, tell it when to stop, and say how it ended."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from launcher.errors import TrainingFailed
from launcher.node import blame
from launcher.node.entry import enter, read_config
from launcher.node.place import Place
from launcher.plan import Plan
from launcher.rundir.rundir import RunDir, write_atomic
from launcher.scripted.child import POLL_SECONDS, Child, die_alike
from launcher.scripted.headway import Headway
from launcher.trust import reading

_LOOK_SECONDS = 1.0
"""Between two looks for a STOP file: on a shared file system each costs the server a question."""
_TOGETHER_SECONDS = 1.5
"""After a STOP file was written, by when every rank has looked: all are told at that moment. Lightning's handler sends a message to the
other ranks, and hangs where one of them hears a step later."""


def work(run: RunDir, plan: Plan, place: Place, where: dict[str, Any]) -> None:
    """Raises TrainingFailed where the program fails; dies of the signal that it dies of."""
    os.environ |= {"LAUNCHER_RUN_DIR": str(run), "LAUNCHER_CHECKPOINT_DIR": str(run.checkpoints)}  # its words may name them
    script = read_config(run)["script"]
    enter(run, place, where)
    if _is_done(run):
        return  # while we waited for the lock, another attempt finished the run
    earlier = _earlier(run, place)
    headway = Headway(run, place, script["progress"]) if place.rank == 0 else None
    if headway is not None:
        run.summary.unlink(missing_ok=True)
        run.log_event("started", attempt=place.attempt, restart=place.restart)
        print(f"{plan.name}/{plan.id}: {plan.world}, {plan.threads} threads each; {script['file']}")
    child = Child(run, plan, script, goes_on=bool(earlier))
    code, asked = child.wait(_Stop(run, plan.world.size).is_there, headway.look if headway is not None else lambda: None)
    if asked == "peer":
        sys.exit(1 if code else 0)  # whatever it said, another has failed before, and is to be named
    where["step"] = headway.step if headway is not None else 0
    if code and not asked:
        if code < 0:
            die_alike(code)
        which = f"rank {place.rank}: " if place.world > 1 else ""
        raise TrainingFailed(f"{which}{child.name} ended with exit code {code}{_last_words(run, place)}")
    if code:
        how = f"by {signal.strsignal(-code) or f'signal {-code}'}" if code < 0 else f"with exit code {code}"
        print(f"launcher: asked to stop, {child.name} has ended {how}; what it has saved is all that is known of", flush=True)
    _leave_word(run, place, f"stopped {asked}" if asked else "done")
    if headway is not None:
        headway.end(has_stopped=bool(asked) and not code)
        if (ended := _how_all_ended(run, plan, place)) is not None:
            _close(run, plan, place, headway, ended, len(earlier) + 1)


class _Stop:
    def __init__(self, run: RunDir, world: int) -> None:
        self._path, self._next, self._world = run.stop, 0.0, world

    def is_there(self) -> bool:
        """Where it is, returns on all ranks at the same moment, as far as clocks agree."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _LOOK_SECONDS
        try:
            due = self._path.stat().st_mtime + _TOGETHER_SECONDS
        except OSError:
            return False
        if self._world > 1:
            time.sleep(min(max(0.0, due - time.time()), _TOGETHER_SECONDS))
        return True


def _is_done(run: RunDir) -> bool:
    summary = run.read_summary()
    return summary is not None and summary["state"] == "done"


def _earlier(run: RunDir, place: Place) -> list[dict[str, Any]]:
    """Starts before this one, since the run began or began anew."""
    found: list[dict[str, Any]] = []
    for event in run.read_events():
        if event["event"] == "began_anew":
            found = []
        start = (reading.whole_number(event.get("attempt")) or 0, reading.whole_number(event.get("restart")) or 0)
        if event["event"] == "started" and start < (place.attempt, place.restart):
            found.append(event)
    return found


def _last_words(run: RunDir, place: Place) -> str:
    """Of the program, which has said what is wrong."""
    lines = [line.strip() for line in reading.last_lines(run.rank_log(place.attempt, place.rank), 8192) if line.strip()]
    return f": {lines[-1][:300]}" if lines else ""


def _word(run: RunDir, place: Place, rank: int) -> Path:
    return run.attempt(place.attempt) / f"rank_{rank}.{place.restart}.ended"


def _leave_word(run: RunDir, place: Place, word: str) -> None:
    write_atomic(_word(run, place, place.rank), f"{word}\n")


def _how_all_ended(run: RunDir, plan: Plan, place: Place) -> str | None:
    """`done`, or what stopped some of them. Waits until the last program has ended; None where one of them failed."""
    waiting, found = set(range(plan.world.size)), "done"
    while waiting:
        for rank in sorted(waiting):
            try:
                word = reading.first_line(_word(run, place, rank))
            except OSError:
                break
            waiting.discard(rank)
            found = word if word.startswith("stopped") else found
        else:
            return found
        if (run.attempt(place.attempt) / blame.name_of(place.restart)).exists():
            return None
        time.sleep(POLL_SECONDS)
    return found


def _close(run: RunDir, plan: Plan, place: Place, headway: Headway, ended: str, attempts: int) -> None:
    """summary.json, the last event, and the word for the batch shell."""
    state, _, why = ended.partition(" ")
    summary = {
        "state": state,
        "stopped_by": why or None,
        "name": plan.name,
        "id": plan.id,
        **headway.figures,
        "attempt": place.attempt,
        "attempts": attempts,
        "world": str(plan.world),
        "finished": time.time(),
    }
    write_atomic(run.summary, json.dumps(summary, indent=2) + "\n")
    run.log_event(state, attempt=place.attempt, step=headway.step)
    write_atomic(run.outcome(place.attempt), f"{ended}\n")

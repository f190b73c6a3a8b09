"""What has become of a run: the scheduler's word for its job joined with what the run directory says."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from launcher.errors import RunError
from launcher.plan import SCRIPTED
from launcher.rundir import lock, origin
from launcher.rundir.rundir import RunDir
from launcher.trust import reading
from launcher.verdict.jobs import PLAIN, RUNNING, Job


class Standing(NamedTuple):
    """One run, now."""

    word: str
    """submitted, queued, starting, running, suspended, ending, done, stopped, interrupted (at once: not saved), failed, cancelled, stuck,
    dead (no process, no word: killed), or the scheduler's own word, in lower case, for how the job ended or for what is not known here."""
    job: Job | None = None
    """The newest job of the run that the scheduler still knows."""

    @property
    def alive(self) -> bool:
        """Something is still to come without anybody's help."""
        return self.word in ("submitted", "queued", "starting", "running", "ending") or self.waits

    @property
    def waits(self) -> bool:
        """The scheduler has it and does not run it, by whatever word."""
        return self.job is not None and self.job.active and self.word not in ("starting", "running", "ending")


class Queue(NamedTuple):
    """What the schedulers of some runs said, by run directory."""

    jobs: Mapping[Path, Job] = MappingProxyType({})
    """Of each run the newest job, where its scheduler still knows it."""
    silent: Mapping[Path, str] = MappingProxyType({})
    """Runs of which nothing was said, and the excuse."""

    def answers_for(self, run: RunDir) -> bool:
        return run.path not in self.silent

    @property
    def excuse(self) -> str:
        return "; ".join(dict.fromkeys(self.silent.values()))


NOBODY = Queue()
"""Of runs on this machine, which no scheduler knows."""


def may_change(run: RunDir) -> bool:
    """A batch job of which the scheduler may have something new to say."""
    if not job_ids(run):
        return False
    summary = run.read_summary()
    return summary is None or summary["state"] != "done"


def job_ids(run: RunDir) -> list[str]:
    """The jobs this run was given, oldest first; empty for a run on this machine, and for a copy that has not gone on yet."""
    return origin.own_jobs(run)


def standing(run: RunDir, queue: Queue = NOBODY) -> Standing:
    """`queue`: what the schedulers said (launcher/clusters/queues.py)."""
    ids = job_ids(run)
    if not ids:
        return Standing(_here(run))
    job = queue.jobs.get(run.path)
    if job is not None and job.active:
        return Standing(_active(run, job), job)
    newest = run.newest_attempt()
    if newest is not None and not queue.answers_for(run) and (not (word := _ended(run, newest)) or word.startswith("requeued")):
        return Standing("running" if lock.is_held(run.lock) else "unknown")
    return Standing(_over(run, job, ids[-1], newest), job)


def _active(run: RunDir, job: Job) -> str:
    if job.phase == RUNNING:
        newest = run.newest_attempt()
        return "starting" if newest is None or not run.rank_log(newest, 0).exists() else "running"
    return job.phase or job.state.lower() or "unknown"


def _over(run: RunDir, job: Job | None, number: str, newest: int | None) -> str:
    summary = run.read_summary()
    if summary is not None and summary["state"] == "done":
        return "done"
    if job is not None and job.state not in PLAIN:
        return job.state.lower()
    events = run.read_events()
    if any(event["event"] == "cancelled" and str(event.get("job")) == number.partition(";")[0] for event in events):
        return "cancelled"
    word = "" if newest is None else _ended(run, newest)
    if word and not word.startswith("requeued"):
        return word
    if newest is None and job is None:
        return "submitted"
    return "failed" if job is not None else "dead"


def _ended(run: RunDir, attempt: int) -> str:
    """The word that the batch shell left at the end of an attempt; empty where it was killed first."""
    try:
        return reading.first_line(run.attempt(attempt) / "ended")[:40]
    except OSError:
        return ""


def _here(run: RunDir) -> str:
    """Of a run on this machine."""
    if lock.is_held(run.lock):
        return "running"
    if lock.is_held(run.launcher):
        return "starting"
    summary: dict[str, Any] | None = run.read_summary()
    newest = run.newest_attempt()
    if summary is not None and (summary["state"] == "done" or summary.get("attempt") == newest):
        return str(summary["state"])  # what is done stays done, whoever tried to start it since
    if newest is None:
        return "interrupted" if _last_event(run) == "interrupted" else "submitted"
    word = run.how_it_ended(newest)
    if word.startswith("requeued") and _last_event(run) == "interrupted":
        return "interrupted"
    if word in ("stopped", "interrupted"):
        return word
    return "failed" if list(run.attempt(newest).glob("error*.json")) else "dead"


def check_saved(run: RunDir, now: Standing, how: str, is_asked: bool) -> None:
    """For a verb that takes what a run has learnt. `how`: what is typed to take of one that is not done what it has by now; `is_asked`:
    whether that was. Raises RunError for one that is not done, or has saved nothing yet."""
    goes_on = now.alive or now.word == "unknown"
    to_come = f"wait for it: python -m launcher status {_word(run)}" if goes_on else f"go on with: python -m launcher resume {_word(run)}"
    if _is_scripted(run):
        raise RunError(f"{run} ran a script of your own, and what that has learnt only it knows; name a run of the trainer")
    if now.word != "done" and not is_asked:
        raise RunError(f"{run} is not done ({now.word}); {to_come}; or type {how} to take what it has saved so far")
    if not run.newest_checkpoint():
        raise RunError(f"{run} ({now.word}) has no checkpoint; {'start a new run' if now.word == 'done' else to_come}")


def after(run: RunDir) -> str:
    """What to type next of one that is done; empty where there is nothing that a verb could do with it."""
    return "" if _is_scripted(run) else f"python -m launcher evaluate {_word(run)}; python -m launcher export {_word(run)}"


def _is_scripted(run: RunDir) -> bool:
    try:
        return run.read_plan().program == SCRIPTED
    except RunError:  # a damaged plan, of which others say so
        return False


def _word(run: RunDir) -> str:
    return shlex.quote(str(run))


def _last_event(run: RunDir) -> str:
    return next((str(event["event"]) for event in reversed(run.read_events())), "")

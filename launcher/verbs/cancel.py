"""`cancel RUN`: end it. A batch job is cancelled and never requeued; a run on this machine saves and stops."""

from __future__ import annotations

from collections.abc import Mapping

from launcher.clusters import kinds, queues
from launcher.clusters.protocol import Cluster
from launcher.errors import ClusterError, ConfigError, RunError
from launcher.rundir import lock, lookup, sweep
from launcher.rundir.rundir import RunDir
from launcher.trust import owner, writing
from launcher.verdict import standing
from launcher.verdict.jobs import Job


def cancel(words: list[str]) -> int:
    """Raises RunError where there is nothing to cancel, ClusterError where the scheduler does not do it."""
    words, everywhere = lookup.asked(words)
    if len(words) != 1:
        raise ConfigError("cancel takes one run or sweep: a path, an id or a name; for example: python -m launcher cancel cifar")
    found = sweep.find(words[0], everywhere=everywhere)
    runs = [entry.run for entry in found.entries()] if found else [_find(words[0], everywhere)]
    for run in runs:
        owner.refuse(run.path)  # its ledger may name any job
    if not runs:
        raise RunError(f"{words[0]}: a sweep without members; nothing to cancel")
    if not any(standing.job_ids(run) for run in runs):
        _stop_here(runs[0])
        return 0
    queue = queues.ask(runs)
    alive = {run: job for run in runs if (job := standing.standing(run, queue).job) is not None and job.active}
    unknown = [run for run in runs if not queue.answers_for(run)]
    if unknown and not alive:
        raise ClusterError(f"{queue.excuse}; nothing was cancelled")
    if not alive:
        raise RunError(f"{words[0]} has no job in the queue; nothing to cancel")
    for run, job in alive.items():
        run.log_event("cancelled", job=job.id)
    _cancel(alive)
    what = f"{len(alive)} jobs of sweep {found.id} are" if found else f"job {next(iter(alive.values())).id} of {runs[0]} is"
    if unknown:
        raise ClusterError(f"{queue.excuse}; {what} cancelled, {len(unknown)} may go on: type the same again")
    print(f"{what} cancelled; what has been saved stays: python -m launcher resume {words[0]}")
    return 0


def _cancel(alive: Mapping[RunDir, Job]) -> None:
    """Raises ClusterError; what one cluster does not do keeps no other from it."""
    theirs: dict[type[Cluster], list[Job]] = {}
    for run, job in alive.items():
        theirs.setdefault(kinds.of(run), []).append(job)
    problems: list[ClusterError] = []
    for kind, jobs in theirs.items():
        try:
            kind.cancel(jobs)
        except ClusterError as error:
            problems.append(error)
    if problems:
        raise ClusterError("; ".join(map(str, problems)))


def _find(word: str, everywhere: bool) -> RunDir:
    """Of several runs of a name the one that goes on, be it the newest or not. Raises ConfigError where two do."""
    newest = lookup.find(word, everywhere=everywhere, acts=True)
    named = lookup.namesakes(word, newest)
    queue = queues.ask(named)
    alive = [run for run in named if (now := standing.standing(run, queue)).alive and now.word != "submitted"]
    if len(alive) > 1:
        raise ConfigError(f"{word}: {len(alive)} runs of this name go on; give a path: {', '.join(map(str, alive))}")
    return alive[0] if alive else newest


def _stop_here(run: RunDir) -> None:
    if not (lock.is_held(run.lock) or lock.is_held(run.launcher)):
        raise RunError(f"{run} is not running; nothing to cancel")
    writing.over(run.stop, "")
    print(f"{run} saves at the next step boundary and stops")

"""Going back to a checkpoint within an attempt, and past the batches that spoiled what came after it."""

from __future__ import annotations

import contextlib

from launcher.node.pulse import SAVE
from launcher.rundir.rundir import RunDir
from launcher.train.checkpoint.history import go_to
from launcher.train.guard.guard import BadNumbers
from launcher.train.job import Job
from launcher.train.record.board import Board


def so_far(run: RunDir) -> int:
    """How often the run went back, by its ledger: a checkpoint knows nothing of what came after it, and a limit must outlive a kill."""
    count = 0
    for event in run.read_events():
        count = 0 if event["event"] == "began_anew" else count + (event["event"] == "rolled_back")
    return count


def roll_back(job: Job, bad: BadNumbers) -> None:
    """On every rank at the same step. Raises `bad` where the config does not want it, nothing good is left, or it was done too often."""
    job.watch.outside(SAVE)
    job.agreement.settle()
    with contextlib.suppress(BadNumbers):  # a save that was refused for the same reason
        job.saver.wait()
    left, done = job.state, job.state.rollbacks + 1
    since, until = (bad.since, bad.until) if bad.until else (left.step, left.step)
    say = print if job.ranks.is_first else lambda text: None
    checkpoint = job.store.load(say, newest=since)  # whoever resumes is not to find a later one either
    if checkpoint is None:
        raise BadNumbers(f"{bad}; no checkpoint is from before that, so the run would begin again at step 0") from bad
    if job.config.on_bad != "rollback":
        raise bad
    if done > job.config.max_rollbacks:
        raise BadNumbers(f"{bad}; the run went back {left.rollbacks} times already, which is train.max_rollbacks") from bad
    go_to(job, checkpoint)
    job.state.rollbacks = done
    if bad.blames_data:
        job.state.passed_over = until + left.passed_over - job.state.step
    if not job.ranks.is_first:
        return
    what = f"{until - job.state.step} batches are passed over" if bad.blames_data else "going on from there"
    print(f"{bad}\nback at {checkpoint.path.name}; {what}")
    job.metrics.rewind(job.state.step)
    job.run.log_event("rolled_back", step=until, to=job.state.step, why=str(bad))
    job.board.close()
    job.board = Board(job.run.tensorboard, first_step=job.state.step + 1)

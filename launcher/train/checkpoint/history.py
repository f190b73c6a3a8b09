"""What a run has learned about itself, kept with a checkpoint and brought back with it: an attempt that resumes judges as the one before
would have.

Kept: the losses that a jump is judged by, what each layer's gradients were, how often the run went back and left updates out. Not kept, for
it is of the machines and not of the run: what saves cost (launcher/train/checkpoint/saver.py), how slow each rank was (stragglers.py).
"""

from __future__ import annotations

from launcher.train.checkpoint.manifest import Checkpoint
from launcher.train.checkpoint.state import restore
from launcher.train.job import Job


def save(job: Job) -> None:
    """Begin a save of where the job is. Raises as Saver.begin."""
    state = job.state
    state.losses, state.layers = job.guard.losses(), job.parts.layers.history()
    state.slowest_evaluation = job.stopper.deadline.evaluations.seconds
    judged = state.step - state.step % job.config.log_every  # the last line, and a save waits for it
    job.saver.begin(job.parts, state, judged, state.best_step if job.config.keep_best else None)


def go_to(job: Job, checkpoint: Checkpoint) -> None:
    """Where the checkpoint was taken, whether by a new attempt or by this one going back. Raises CheckpointError as `restore`."""
    precision = job.state.precision
    job.state = restore(job.parts, checkpoint, job.ranks.rank)
    job.state.precision = precision  # the checkpoint's own, unless it is too old to say
    job.where["step"] = job.state.step
    job.saver.is_at(job.state.step)
    job.stopper.deadline.evaluations.expect(job.state.slowest_evaluation)
    job.guard.remember(job.state.losses)
    job.parts.layers.remember(job.state.layers)
    job.replicas.begin_at(job.state.step)

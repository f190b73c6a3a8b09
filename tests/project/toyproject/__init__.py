"""A user's own package beside the launcher: one data set, one model, one yaml each.

TOY_SABOTAGE takes a guard of the launcher out, so that the tests can show that they would notice; or, as slow_save, makes every
checkpoint take 40 s. TOY_FLIPS=[[step, rank], …] flips a bit of a weight, [step, rank, what] of the optimizer state or the averages.
TOY_ENDS_AFTER="n SIGKILL" or "n hang": each attempt ends so in its n-th step.
"""

import json
import os

if os.environ.get("TOY_SABOTAGE") == "generators":
    from launcher.train.checkpoint import generators

    generators.restore = lambda *args: None

if os.environ.get("TOY_SABOTAGE") == "slow_save":
    import time

    from launcher.train.checkpoint import checkpoint

    _commit = checkpoint.CheckpointStore._commit

    def _slow_commit(*args) -> None:
        time.sleep(40)
        _commit(*args)

    checkpoint.CheckpointStore._commit = _slow_commit

if "TOY_FLIPS" in os.environ:
    import random

    import torch

    from launcher.train.guard import replicas

    _flips = {(step, rank): (what or ["weights"])[0] for step, rank, *what in json.loads(os.environ["TOY_FLIPS"])}
    _follow = replicas.Replicas.follow

    def _flip_and_follow(self, step: int) -> None:
        if what := _flips.pop((step, int(os.environ["RANK"])), None):
            rng = random.Random(step)
            words = rng.choice([each for each in self._held()[what] if each.numel()]).detach().view(torch.int32)
            low = 0 if what == "weights" else 20  # a low bit of what decays is rounded away within steps, and then nothing is wrong
            words[tuple(rng.randrange(size) for size in words.shape)] ^= 1 << rng.randrange(low, 31)
        _follow(self, step)

    replicas.Replicas.follow = _flip_and_follow

if "TOY_ENDS_AFTER" in os.environ:
    import signal
    import time

    from launcher.train import step

    _steps = {"left": int(os.environ["TOY_ENDS_AFTER"].split()[0])}
    _call = step.Stepper.__call__

    def _step_or_end(self, *args):
        _steps["left"] -= 1
        if not _steps["left"]:
            time.sleep(0.5)  # what was saved has come to the disk
            os.kill(os.getpid(), signal.SIGKILL) if os.environ["TOY_ENDS_AFTER"].endswith("SIGKILL") else time.sleep(999)
        return _call(self, *args)

    step.Stepper.__call__ = _step_or_end

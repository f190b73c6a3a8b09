"""A task whose first step kills rank 1, in a run's first attempt."""

from __future__ import annotations

import os
import signal
import time

from launcher.train.tasks.classification import Batch, Classification
from launcher.train.tasks.task import Model, Step


class Killed(Classification):
    def step(self, model: Model, batch: Batch) -> Step:
        if int(os.environ["LAUNCHER_ATTEMPT"]) == 0 and os.environ.get("RANK") == "1":
            time.sleep(0.5)  # its peer waits for it by now
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(model, batch)

"""A process of a run comes in: by the config that was frozen, and as the only one that writes there."""

from __future__ import annotations

import os
from typing import Any

from omegaconf import OmegaConf

from launcher.config import dialect, home, references, targets
from launcher.config.config import OLDER
from launcher.node.place import Place
from launcher.rundir import lock
from launcher.rundir.claim import Claim
from launcher.rundir.rundir import RunDir, read_text

LOCK_PATIENCE_SECONDS = 10.0


def read_config(run: RunDir) -> dict[str, Any]:
    """The frozen config, with `${oc.env:…}` read here. Raises ConfigError for a target outside the allowlist."""
    values: Any = {**OLDER, **home.everywhere(references.resolved(OmegaConf.create(dialect.read(read_text(run.config)))))}
    targets.check_trust(values["trust"])
    targets.check(values, values["trust"])
    return values


def enter(run: RunDir, place: Place, where: dict[str, Any]) -> Claim:
    """Be the one that writes to the run. Raises RunError where another is."""
    claim = Claim(run, place.attempt)
    if place.rank == 0:
        job_id = os.environ.get("LAUNCHER_JOB")
        where["refused"] = True  # whoever is refused here has begun nothing, and its attempt leaves no trace (launcher/clusters/attend.py)
        lock.hold(run.lock, f"attempt {place.attempt}", LOCK_PATIENCE_SECONDS, job_id)
        if job_id is None:  # a batch job's shell has claimed the run already
            claim.take()
        claim.check()
        where["refused"] = False
    return claim

"""One process of an evaluation: `python -m launcher.evaluation JOB_DIR`, started by torchrun as a worker of a training is."""

from __future__ import annotations

import sys
from typing import Any

from launcher.node.place import Place
from launcher.plan import Plan
from launcher.rundir.rundir import RunDir
from launcher.train import worker


def _evaluate(run: RunDir, plan: Plan, place: Place, where: dict[str, Any]) -> None:
    from launcher.evaluation.work import work

    work(run, plan, place, where)


if __name__ == "__main__":
    sys.exit(worker.main(sys.argv, _evaluate))

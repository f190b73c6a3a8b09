"""The doctor's examination: `python -m launcher.doctor.examine RUN_DIR`, one process per device on every node, started by torchrun.

Nothing here may wait for ever, and whoever hangs must be named by those who do not: each process writes a file of its own before it
waits for anybody, and a thread ends it in time. Rank 0 makes the report of what it gathered; where the processes do not come to that,
the first one left makes it of the files. The exit status is 0 either way, lest torchrun ends the others before they have written.
"""

from __future__ import annotations

import os
import sys
import traceback

from launcher.doctor.examine.patient import Patient
from launcher.doctor.findings import rank_file
from launcher.errors import LaunchError
from launcher.node.place import Place, check_world
from launcher.rundir.rundir import RunDir, umask_of
from launcher.train.worker import die_with_agent
from launcher.trust import writing
from launcher.trust.sieve import masked


def main(argv: list[str]) -> int:
    die_with_agent()
    run = RunDir(argv[1])
    os.umask(umask_of(run))
    try:
        plan, place = run.read_plan(), Place.from_environment()
        _redirect(run, place)
        check_world(plan, place)
        patient = Patient(run, plan, place)
    except LaunchError as error:
        print(f"launcher: {error}", file=sys.stderr)
        return error.exit_code
    try:
        from launcher.doctor.examine.checks import examine

        patient.end(examine(patient))
    except Exception as error:
        traceback.print_exc()
        patient.give_up(f"{type(error).__name__}: {error}", raised=True)
    return 0


def _redirect(run: RunDir, place: Place) -> None:
    """stdout and stderr into a log beside the run's own."""
    path = rank_file(run, place.attempt, place.rank).with_suffix(".log")
    descriptor = writing.to_append(path)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout, sys.stderr = masked(sys.stdout), masked(sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv))

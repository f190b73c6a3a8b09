"""Members of a sweep as array jobs: a script that only picks one of theirs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.clusters.batch import note
from launcher.clusters.protocol import Part
from launcher.clusters.slurm import batch, scheduler, site
from launcher.clusters.slurm.script import array_script
from launcher.errors import ClusterError, NoAnswer, RunError
from launcher.rundir import rundir
from launcher.rundir.sweep import Sweep
from launcher.verdict.jobs import keyed

if TYPE_CHECKING:
    from launcher.clusters.slurm import Slurm

DEFAULT_MAX_ARRAY_SIZE = 1001
"""SLURM's own, for where scontrol does not say."""


def queue(here: Sweep, parts: Sequence[Part], cluster: Slurm) -> list[str]:
    """Submit these members, in as many arrays as it takes. Returns the arrays' job numbers. Raises ClusterError."""
    most = _most_members(batch.clusters_of(cluster))
    return [_submit(here, parts[begin : begin + most], cluster) for begin in range(0, len(parts), most)]


def _most_members(clusters: str) -> int:
    if shutil.which("scontrol") is None:
        return DEFAULT_MAX_ARRAY_SIZE
    try:
        word = scheduler.settings(clusters).get("MaxArraySize", "").strip()
        return max(1, int(word)) if re.fullmatch(r"[0-9]{1,9}", word) else DEFAULT_MAX_ARRAY_SIZE
    except NoAnswer:
        return DEFAULT_MAX_ARRAY_SIZE


def _submit(here: Sweep, parts: Sequence[Part], cluster: Slurm) -> str:
    place = _new_directory(here)
    name = f"{parts[0].plan.name}.{here.id}.{place.name}"
    for index, part in enumerate(parts):
        _lead(place / str(index), part.run.path)
    script = place / "array.sh"
    rundir.write_atomic(script, array_script(cluster, parts[0].plan, name, str(place), len(parts)))
    try:
        argv = batch.with_site(["sbatch", "--parsable", f"--chdir={place}", str(script)], cluster)
        given = scheduler.submit(argv, name, batch.clusters_of(cluster), site.environment(rundir.read_text(script)))
    except NoAnswer as error:
        raise ClusterError(f"{error}; the sweep is kept, submit what is missing of it with: python -m launcher resume {here.id}") from error
    for index, part in enumerate(parts):
        note(part.run, keyed(f"{given.number}_{index}", given.cluster))
    return given.number


def _lead(place: Path, run: Path) -> None:
    """A link to a member, or where there are none, its path as a text. Raises RunError."""
    try:
        place.symlink_to(run)
    except OSError:
        rundir.write_atomic(place, f"{run}\n", sync=False)


def _new_directory(here: Sweep) -> Path:
    for number in range(10_000):
        try:
            (here.arrays / str(number)).mkdir(parents=True)
            return here.arrays / str(number)
        except FileExistsError:
            continue
        except OSError as error:
            raise RunError(f"{here.arrays} cannot be written ({error.strerror}); make room and resume the sweep") from error
    raise RunError(f"{here.arrays} holds ten thousand arrays; start a new sweep")

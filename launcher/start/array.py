"""A sweep as array jobs: every member frozen first, one copy of the code, one array for all that ask for the same nodes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.clusters import queues, submit
from launcher.clusters.slurm import Slurm, batch, scheduler, site
from launcher.code import packages
from launcher.compose import trusted
from launcher.compose.freeze import Code, Frozen, freeze, resolve, runs_dir, stored_cluster, stored_config, time_id
from launcher.compose.members import Member
from launcher.errors import ClusterError, ConfigError, NoAnswer, RunError
from launcher.plan import Plan
from launcher.rundir import lookup, rundir, sweep
from launcher.rundir.rundir import RunDir
from launcher.rundir.sweep import Entry, Sweep
from launcher.start import rendered, torch_words
from launcher.start.launch import pin
from launcher.start.settle import settle
from launcher.trust import owner
from launcher.verdict import standing

DEFAULT_MAX_ARRAY_SIZE = 1001
"""SLURM's own, for where scontrol does not say."""


@dataclass(frozen=True)
class Part:
    """A member that waits to be submitted."""

    run: RunDir
    plan: Plan
    cluster: Slurm


def launch(members: Sequence[Member]) -> None:
    """Freeze all members, write them, submit them, say what to type next. Nothing is submitted unless every member can be.

    Raises ConfigError, ClusterError or RunError.
    """
    first = resolve(members[0].config)
    sweep_id = time_id() if first["id"] is None else str(first["id"]).rpartition("-")[0]
    here = sweep.where(runs_dir(first), sweep_id)
    packages.take_in(first["trust"])
    frozen = _freeze(members, sweep_id, Code.now(first["trust"], str(here.code)))
    parts = [Part(RunDir(each.plan.run_dir), each.plan, _slurm(each)) for each in frozen]
    start = max([batch.check(group[0].cluster, frozen[parts.index(group[0])]) for group in _alike(parts)])
    _write(here, members, frozen, first["objective"])
    lookup.remember(runs_dir(first))
    trusted.note(first["trust"])
    numbers = queue(here, parts)
    rows = [
        ("jobs", f"{', '.join(numbers)} ({len(parts)} members, estimated start {start})"),
        ("state", f"python -m launcher status {sweep_id}"),
        ("results", f"python -m launcher collect {sweep_id}"),
        ("cancel", f"python -m launcher cancel {sweep_id}"),
    ]
    print("\n".join(f"{name:<9}{value}" for name, value in rows))
    print(here.path, flush=True)


def _slurm(frozen: Frozen) -> Slurm:
    if not isinstance(frozen.cluster, Slurm):
        raise ConfigError("cluster: a sweep is all on SLURM or all on this machine; type one cluster=…")
    return frozen.cluster


def _freeze(members: Sequence[Member], sweep_id: str, code: Code) -> list[Frozen]:
    """Data is prepared once for all members that have the same."""
    pinned: dict[str, dict[str, Any]] = {}
    found: list[Frozen] = []
    for number, member in enumerate(members):
        config = member.config
        config.id = f"{sweep_id}-{number}"
        data = resolve(config)["data"]
        key = json.dumps(data, sort_keys=True, default=str)
        if key not in pinned:
            freeze(config, member.overrides, code)  # every mistake in the config surfaces before any data is touched
            torch_words.check()
            pinned[key] = submit.prepare_data(data)
        pin(config, data, pinned[key])
        found.append(freeze(config, member.overrides, code))
    return found


def _write(here: Sweep, members: Sequence[Member], frozen: Sequence[Frozen], objective: Any) -> None:
    """The ledger first: whatever fails behind it, it says what was meant. Raises RunError."""
    umask = frozen[0].plan.umask
    try:
        os.umask(rundir.umask_of(rundir.create(here.path, umask)))
        here.tensorboard.mkdir()
    except FileExistsError:
        raise RunError(f"{here.path} is a sweep already; go on with: python -m launcher resume {here.id}, or choose another id=…") from None
    except OSError as error:
        raise RunError(f"{here.path} cannot be made ({error.strerror}); choose another with runs_dir=…") from error
    words = sweep.differing([member.overrides for member in members])
    entries = [Entry(number, words[number], RunDir(each.plan.run_dir)) for number, each in enumerate(frozen)]
    here.write(entries, objective)
    code = frozen[0].code
    if code is not None:
        code.source.copy_to(here.code)
    for entry, each, member in zip(entries, frozen, members, strict=True):
        _write_member(here, entry, each, member.overrides)


def _write_member(here: Sweep, entry: Entry, frozen: Frozen, overrides: list[str]) -> None:
    try:
        run = rundir.create(entry.run.path, frozen.plan.umask)
        os.umask(rundir.umask_of(run))
    except FileExistsError:
        raise RunError(f"{entry.run} is there already; choose another id=…") from None
    batch.copy_code(frozen, _slurm(frozen), run)
    run.freeze(frozen.plan, frozen.config, frozen.script, sync=False)
    known = {"version": frozen.plan.version, "code_hash": frozen.plan.code_hash, "script": rendered.mark(frozen.script)}
    run.log_event("submitted", overrides=overrides, **known, sweep=here.id)
    with contextlib.suppress(OSError):  # for TensorBoard's table of settings; not every file system has links
        (here.tensorboard / str(entry.number)).symlink_to(
            os.path.relpath(run.tensorboard, here.tensorboard)
        )  # copied with it, it stays true


# ---------------------------------------------------------------- submitting


def resume(here: Sweep) -> None:
    """Submit the members that failed or are missing; leave alone what is done or still to come. Raises ClusterError."""
    for place in (here.path, *(entry.run.path for entry in here.entries())):
        owner.refuse(place)
    asked = queues.ask([entry.run for entry in here.entries()])
    known = [entry for entry in here.entries() if asked.answers_for(entry.run)]
    if asked.excuse and not known:
        raise ClusterError(f"{asked.excuse}; without the queue it is not known which members are still to come: try again")
    if asked.excuse:
        print(f"launcher: warning: {asked.excuse}; the members there are left alone", file=sys.stderr)
    words = {entry: standing.standing(entry.run, asked) for entry in known}
    left = [entry.run for entry, now in words.items() if now.word != "done" and not (now.alive and now.word != "submitted")]
    if not left:
        where = " whose cluster answers" if asked.excuse else ""
        print(f"every member of {here.id}{where} is done or on its way: python -m launcher status {here.id}")
        return
    for run in left:
        trusted.refuse_more(run, stored_config(run)["trust"])
    for run in left:
        settle(run)
        rendered.refuse_another(run, run.read_plan(), lambda run=run: stored_cluster(run))
    numbers = queue(here, [Part(run, run.read_plan(), _cluster_of(run)) for run in left])
    print(f"jobs     {', '.join(numbers)} ({len(left)} of {len(words)} members)")
    print(here.path, flush=True)


def _cluster_of(run: RunDir) -> Slurm:
    cluster = stored_cluster(run)
    if not isinstance(cluster, Slurm):
        raise RunError(f"{run.config}: this member is not one for SLURM; start a new sweep")
    return cluster


def queue(here: Sweep, parts: Sequence[Part]) -> list[str]:
    """Submit these members, in as many arrays as it takes. Returns the arrays' job numbers. Raises ClusterError."""
    numbers: list[str] = []
    for group in _alike(parts):
        most = _most_members(batch.clusters_of(group[0].cluster))
        for begin in range(0, len(group), most):
            numbers.append(_submit(here, group[begin : begin + most]))
    return numbers


def _alike(parts: Sequence[Part]) -> list[list[Part]]:
    """Members that ask for the same things go into one array."""
    groups: dict[tuple[str, ...], list[Part]] = {}
    for part in parts:
        groups.setdefault(tuple(part.cluster.directives(part.plan, name="")), []).append(part)
    return list(groups.values())


def _most_members(clusters: str) -> int:
    if shutil.which("scontrol") is None:
        return DEFAULT_MAX_ARRAY_SIZE
    try:
        word = scheduler.settings(clusters).get("MaxArraySize", "").strip()
        return max(1, int(word)) if re.fullmatch(r"[0-9]{1,9}", word) else DEFAULT_MAX_ARRAY_SIZE
    except NoAnswer:
        return DEFAULT_MAX_ARRAY_SIZE


def _submit(here: Sweep, parts: Sequence[Part]) -> str:
    place = _new_directory(here)
    name = f"{parts[0].plan.name}.{here.id}.{place.name}"
    for index, part in enumerate(parts):
        _lead(place / str(index), part.run.path)
    script = place / "array.sh"
    rundir.write_atomic(script, parts[0].cluster.render_array(parts[0].plan, name, str(place), len(parts)))
    try:
        cluster = parts[0].cluster
        argv = batch.with_site(["sbatch", "--parsable", f"--chdir={place}", str(script)], cluster)
        given = scheduler.submit(argv, name, batch.clusters_of(cluster), site.environment(rundir.read_text(script)))
    except NoAnswer as error:
        raise ClusterError(f"{error}; the sweep is kept, submit what is missing of it with: python -m launcher resume {here.id}") from error
    for index, part in enumerate(parts):
        part.run.log_event("queued", **batch.ledger(given, f"_{index}"))
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

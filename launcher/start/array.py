"""A sweep that is given to a scheduler: every member frozen first, one copy of the code, those that ask for the same together."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig

from launcher.clusters import kinds, queues, submit
from launcher.clusters.protocol import Cluster, Part
from launcher.code import packages
from launcher.compose import check, scripted, trusted
from launcher.compose.freeze import Code, Frozen, build_cluster, freeze, resolve, runs_dir, stored_cluster, stored_config, time_id
from launcher.compose.members import Member
from launcher.config import pretrained, targets
from launcher.errors import ClusterError, ConfigError, LaunchError, RunError
from launcher.rundir import lookup, rundir, sweep
from launcher.rundir.rundir import RunDir
from launcher.rundir.sweep import Entry, Sweep
from launcher.start import rendered, torch_words, unlocked
from launcher.start.launch import pin
from launcher.start.settle import settle
from launcher.trust import owner
from launcher.verdict import standing


def is_for_a_scheduler(config: DictConfig) -> bool:
    """By the class that its cluster's options mean. Where that cannot be told, its launch will say why."""
    with contextlib.suppress(LaunchError):
        values = resolve(config)
        targets.check_trust(values["trust"])
        target = values["cluster"]["_target_"]
        targets.check({"cluster": {"_target_": target}}, values["trust"])
        with contextlib.suppress(LaunchError):  # of an option that is refused the sweep will say so once
            targets.check({"cluster": values["cluster"]}, values["trust"])
            return not build_cluster(values["cluster"]).attached
        return not kinds.named(target, "cluster").attached
    return False


def launch(members: Sequence[Member]) -> None:
    """Freeze all members, write them, submit them, say what to type next. Nothing is submitted unless every member can be.

    Raises ConfigError, ClusterError or RunError.
    """
    first = resolve(members[0].config)
    sweep_id = time_id() if first["id"] is None else str(first["id"]).rpartition("-")[0]
    here = sweep.where(runs_dir(first), sweep_id)
    packages.take_in(first["trust"])
    frozen = _freeze(members, sweep_id, Code.now(first, str(here.code)))
    _refuse_a_mixture(frozen)
    parts = [Part(RunDir(each.plan.run_dir), each.plan, each.cluster) for each in frozen]
    start = max(group[0].cluster.check(frozen[parts.index(group[0])]) for group in _alike(parts))
    _write(here, members, frozen, first["objective"])
    lookup.remember(runs_dir(first))
    trusted.note(first["trust"])
    numbers = _queue(here, parts)
    rows = [
        ("jobs", f"{', '.join(numbers)} ({len(parts)} members, estimated start {start})"),
        ("state", f"python -m launcher status {sweep_id}"),
        ("results", f"python -m launcher collect {sweep_id}"),
        ("cancel", f"python -m launcher cancel {sweep_id}"),
    ]
    print("\n".join(f"{name:<9}{value}" for name, value in rows))
    print(here.path, flush=True)


def _refuse_a_mixture(frozen: Sequence[Frozen]) -> None:
    if len({type(each.cluster) for each in frozen}) > 1:
        raise ConfigError("cluster: a sweep is all on one kind of cluster; type one cluster=…")


def _freeze(members: Sequence[Member], sweep_id: str, code: Code) -> list[Frozen]:
    """Data is prepared once for all members that have the same."""
    prepared: dict[str, submit.Found] = {}
    tried: list[dict[str, Any]] = []
    found: list[Frozen] = []
    for number, member in enumerate(members):
        config = member.config
        config.id = f"{sweep_id}-{number}"
        if scripted.is_one(config):
            torch_words.check()
            found.append(freeze(config, member.overrides, code))
            continue
        data = resolve(config)["data"]
        key = json.dumps(data, sort_keys=True, default=str)
        if key not in prepared:
            unlocked.check(resolve(config))
            freeze(config, member.overrides, code)  # every mistake in the config surfaces before any data is touched
            torch_words.check()
            prepared[key] = submit.prepare_data(data)
        pin(config, data, prepared[key].pinned)
        found.append(freeze(config, member.overrides, code))
        model = resolve(config)["model"]
        check.check_held({"data": data, "model": model}, prepared[key].holds)
        if pretrained.is_named(model) and model not in tried:
            submit.try_model(model)
            tried.append(model)
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
    frozen.cluster.prepare(frozen, run)
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
        unlocked.check(stored_config(run), run)
    for run in left:
        settle(run)
        rendered.refuse_another(run, run.read_plan(), lambda run=run: stored_cluster(run))
    numbers = _queue(here, [Part(run, run.read_plan(), _cluster_of(run)) for run in left])
    print(f"jobs     {', '.join(numbers)} ({len(left)} of {len(words)} members)")
    print(here.path, flush=True)


def _cluster_of(run: RunDir) -> Cluster:
    cluster = stored_cluster(run)
    if cluster.attached:
        raise RunError(f"{run.config}: this member is not one for a scheduler; start a new sweep")
    return cluster


def _queue(here: Sweep, parts: Sequence[Part]) -> list[str]:
    """Submit these members. Returns the jobs' numbers. Raises ClusterError."""
    return [number for group in _alike(parts) for number in group[0].cluster.array(here, group)]


def _alike(parts: Sequence[Part]) -> list[list[Part]]:
    """Members that ask for the same things."""
    groups: dict[tuple[str, ...], list[Part]] = {}
    for part in parts:
        groups.setdefault(part.cluster.asks(part.plan), []).append(part)
    return list(groups.values())

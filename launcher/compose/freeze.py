"""Hop 2: a composed config becomes one frozen plan, or one line that says why not."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import yaml
from omegaconf import DictConfig, OmegaConf

import launcher
from launcher import PROJECT
from launcher.code import code_hash
from launcher.compose import adversarial, check, preflight, scripted, trusted
from launcher.compose.round_batch import round_batch
from launcher.compose.scale_lr import scale_lr
from launcher.config import dialect, home, layout, pretrained, references, targets, tree
from launcher.config.config import OLDER, TrainConfig
from launcher.devices import KINDS
from launcher.errors import ConfigError, RunError
from launcher.plan import SCRIPTED, TRAINER, Mesh, Plan, World, check_name
from launcher.rundir import rundir
from launcher.rundir.rundir import RunDir
from launcher.strategies.protocol import Strategy
from launcher.trust import owner
from launcher.trust.secret import mask

if TYPE_CHECKING:
    from launcher.clusters.protocol import Cluster
    from launcher.code.snapshot import Source

NOT_COMPARED = ("resume", "id", "runs_dir", "runs_mode", "objective")
"""Keys in which a run may differ from the command that continues it."""


class Code(NamedTuple):
    """What a batch job will run: the code as it was at submit. Members of a sweep share one copy."""

    source: Source
    digest: str
    place: str | None = None
    """Where the copy goes; null: into the run directory."""

    @classmethod
    def now(cls, values: Mapping[str, Any], place: str | None = None) -> Code:
        """Of a run with that config. Raises ConfigError where it is too large or cannot be read."""
        from launcher.code import snapshot  # a run on this machine copies nothing

        source = snapshot.find(PROJECT, values["trust"], scripted.root(values) if scripted.is_one(values) else None)
        return cls(source, source.digest(), place)


class Frozen(NamedTuple):
    """What a run directory is made from."""

    plan: Plan
    cluster: Cluster
    config: str
    """config.yaml: every value resolved but `${oc.env:…}`, which each process reads for itself: no secret is written."""
    script: str
    code: Code | None = None
    """None where the processes run what is here, as on this machine."""


def freeze(config: DictConfig, overrides: list[str], code: Code | None = None, *, goes_on: bool = False, chosen: str = "") -> Frozen:
    """Check everything, decide everything. Raises ConfigError; starts and writes nothing, imports no torch.

    `config` is changed only by `train.round_batch` and `train.scale_lr`, to what was decided, and where it has paths of initial weights, to
    whole ones. `goes_on`: it is of a run that is there, whose initial weights may be gone. `chosen`: why its device, where it was measured.
    """
    decided = (_of_script if scripted.is_one(config) else _of_trainer)(config)
    values, world, mesh = decided.values, decided.world, decided.mesh
    name = check_name("name", values["name"])
    run_id = check_name("id", time_id() if values["id"] is None else values["id"])
    written: Any = OmegaConf.to_container(config)
    known = {"id": run_id} if values["id"] is None else {}
    frozen = references.frozen({**written, **known}, {**values, **known})
    cluster = build_cluster(references.late(frozen["cluster"]))
    frozen["cluster"] = {**frozen["cluster"], "_target_": _class_of(cluster, frozen["cluster"])}  # who reads it later asks that class
    text = frozen_text(frozen)
    run_dir = str(runs_dir(values) / name / run_id)
    mask.show(run_dir)
    if not goes_on and not Path(run_dir).exists() and "model" in values:
        pretrained.check(values["model"])
    if not cluster.attached and code is None:
        code = Code.now(values)
    packages = code_hash.of_packages(PROJECT, values["trust"], Path.cwd()) if code is None else ()
    plan = Plan(
        name=name,
        id=run_id,
        run_dir=run_dir,
        world=world,
        threads=cluster.threads(world),
        max_restarts=cluster.max_restarts,
        python=sys.executable,
        directory=str(Path.cwd()),
        project=str(PROJECT) if code is None else code.place or f"{run_dir}/code",
        env=worker_env(values, world.device),
        program=decided.program,
        config_hash=hashlib.sha256(text.encode()).hexdigest(),
        code_hash=code_hash.of_all(packages) if code is None else code.digest,
        packages=packages,
        overrides=tuple(map(mask, overrides)),
        version=launcher.__version__,
        mesh=mesh,
        umask="027" if values["runs_mode"] == "group" else "077",
        told=tuple(cluster.told.items()),
        trusted_devices=tuple(cluster.trusted_devices),
        chosen=chosen or cluster.chose(),
    )
    try:
        return Frozen(plan, cluster, text, cluster.render(plan), code)
    except ValueError as error:  # a word no shell can carry, such as a path with a newline in it
        raise ConfigError(f"runs_dir or the working directory: {error}") from error


class _Decided(NamedTuple):
    values: dict[str, Any]
    world: World
    mesh: Mesh
    program: str


def _of_trainer(config: DictConfig) -> _Decided:
    """Raises ConfigError."""
    values = resolve(config)
    check.check_keys(values)
    targets.check_trust(values["trust"])
    targets.check(values, values["trust"])
    check.check_values(values)
    asked = build_cluster(values["cluster"])
    check.check_probe(values, asked.attached)
    world = asked.world()
    strategy: Strategy = targets.build(values["strategy"])
    mesh = strategy.mesh(world)
    if round_batch(config, values["train"], mesh) | pretrained.settle(config, values["model"]):
        values = resolve(config)  # others may be made of it
    if scale_lr(config, values):
        values = resolve(config)
    known = layout.of(values["model"])
    strategy.check(world, values, known)
    check.check_blocks(values, known)
    check.check_augment(values)
    check.check_boundaries(values)
    check.check_vocabulary(values)
    check.check_classes(values)
    check.check_world(values, world, mesh)
    check.check_fp8(values, world, mesh)
    adversarial.check(values, mesh)
    return _Decided(values, world, mesh, TRAINER)


def _of_script(config: DictConfig) -> _Decided:
    """Keys that are nobody's are the user's own, for his arguments to refer to. Raises ConfigError."""
    values = resolve(config)
    scripted.check(values)
    scripted.whole(config)
    values = resolve(config)
    targets.check_trust(values["trust"])
    targets.check({"cluster": values["cluster"]}, values["trust"])
    check.check_values(values)
    world = build_cluster(values["cluster"]).world()
    return _Decided(values, world, Mesh(dp_replicate=world.size), SCRIPTED)


def stored_config(run: RunDir) -> dict[str, Any]:
    """What a run was frozen with; what its launcher did not know yet is as if nothing had been said. Raises RunError."""
    try:
        config = dialect.read(rundir.read_text(run.config))
    except yaml.YAMLError as error:
        raise RunError(f"{run.config} is not readable as YAML ({str(error)[:200]}); start a new run") from error
    found: dict[str, Any] = {**OLDER, **cast("dict[str, Any]", config)} if isinstance(config, dict) else {}
    if scripted.is_one(found) and {"cluster", "trust"} <= found.keys():
        return {key: value for key, value in found.items() if key not in OLDER}
    train = found.get("train", {})
    if not {"cluster", "trust"} <= found.keys() or not tree.is_mapping(train):
        raise RunError(f"{run.config} is not the config of a run; start a new run")
    found["train"] = {**dataclasses.asdict(TrainConfig()), **train}
    return found


def stored_cluster(run: RunDir) -> Cluster:
    """Raises RunError, or ConfigError for a target outside the allowlist."""
    config = stored_config(run)
    preflight.created(config)
    targets.check({"cluster": config["cluster"]}, () if owner.run_fault(run.path) else trusted.mine(config["trust"]))
    return build_cluster(references.late(config["cluster"]))


def build_cluster(node: Mapping[str, Any]) -> Cluster:
    """What options that have been checked mean. Raises ConfigError where the class is none of a cluster."""
    cluster: Cluster = targets.build(node)
    if not hasattr(cluster, "attached"):
        raise ConfigError(f"cluster._target_={node['_target_']} is no cluster: it has to inherit launcher.clusters.protocol.Cluster")
    other = cluster.meant()
    return targets.build({**node, "_target_": other}) if other else cluster


def _class_of(cluster: Cluster, node: Mapping[str, Any]) -> str:
    """The target that makes it: the one in the config, unless its options lead to another class."""
    made, real = targets.imported(node), type(cluster)
    return str(node["_target_"]) if made is real or not isinstance(made, type) else f"{real.__module__}.{real.__qualname__}"


def resolve(config: DictConfig) -> dict[str, Any]:
    """Plain values, every interpolation resolved. Raises ConfigError."""
    preflight.install()
    return home.everywhere(references.resolved(config))


def runs_dir(values: Mapping[str, Any]) -> Path:
    given, text = values["runs_dir"], str(values["runs_dir"])
    if given in (None, "") or "\0" in text:
        raise ConfigError(f"runs_dir={'null' if given is None else repr(text)} is no path; type the directory that shall hold the runs")
    return Path(text).absolute()


def time_id() -> str:
    """Sortable, and another for a second command within the same second: 20261121-081500-123."""
    now = time.time()
    return time.strftime("%Y%m%d-%H%M%S", time.localtime(now)) + f"-{int(now * 1000) % 1000:03d}"


def frozen_text(frozen: Mapping[str, Any]) -> str:
    """config.yaml."""
    return "".join(_dumped(key, value) for key, value in frozen.items())


def _dumped(key: str, value: Any) -> str:
    """One key of the whole as yaml. Members of a sweep differ in few of them, and PyYAML takes 2 ms for all."""
    known = (key, repr(value))
    if known not in _DUMPED:
        if len(_DUMPED) > 1000:
            _DUMPED.clear()
        _DUMPED[known] = dialect.write({key: value})
    return _DUMPED[known]


_DUMPED: dict[tuple[str, str], str] = {}


def worker_env(values: Mapping[str, Any], device: str) -> tuple[tuple[str, str], ...]:
    return KINDS[device].deterministic if "train" in values and values["train"]["deterministic"] else ()

"""What values may be: the last place where a user's number is looked at before anything starts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

from launcher.compose.round_batch import nearest as nearest_batch
from launcher.compose.round_batch import shares
from launcher.compose.scale_lr import WANTED as SCALE
from launcher.compose.scale_lr import is_scale
from launcher.config import tree
from launcher.config.config import Config as Keys
from launcher.config.config import TrainConfig
from launcher.config.layout import names
from launcher.config.targets import fits, inputs, nearest, signature
from launcher.devices import CPU, CUDA, KINDS
from launcher.errors import ConfigError
from launcher.plan import Mesh, World
from launcher.rundir.objective import EARLY_STOP, WANTED, is_early_stop, is_objective
from launcher.strategies.protocol import Layout
from launcher.trust import search_path

Config = Mapping[str, Any]

COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
PRECISIONS = ("auto", "bf16", "fp16", "fp32")
RESUME = ("auto", "never")
RUNS_MODES = ("private", "group")


def _whole(low: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= low


def _number(low: float, high: float = math.inf) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _positive(value: Any) -> bool:
    return _number(0)(value) and value > 0


def _pair(value: Any) -> bool:
    return isinstance(value, list) and len(cast("list[Any]", value)) == 2


def _eps_of_two(value: Any) -> bool:
    return _pair(value) and (value[0] is None or _positive(value[0])) and _positive(value[1])


def _below_one(value: Any) -> bool:
    return _number(0)(value) and value < 1


RULES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("seed", lambda value: _whole(0)(value) and value < 2**63, "a whole number from 0 to 2**63 - 1"),
    ("runs_dir", lambda value: isinstance(value, str), "the directory that shall hold the runs"),
    ("runs_mode", lambda value: value in RUNS_MODES, "private, or group for a run that the group of runs_dir may read"),
    ("resume", lambda value: value in RESUME, "auto or never"),
    ("objective", is_objective, WANTED),
    ("train.epochs", _whole(1), "a whole number from 1"),
    ("train.steps", lambda value: value is None or _whole(1)(value), "a whole number from 1, or null for epochs"),
    ("train.seconds", lambda value: value is None or _positive(value), "seconds above 0, or null for as many as it takes"),
    ("train.early_stop", is_early_stop, EARLY_STOP),
    ("train.batch_size", _whole(1), "a whole number from 1: samples per update over all processes"),
    ("train.scale_lr", is_scale, SCALE),
    ("train.accumulate", _whole(1), "a whole number from 1"),
    ("train.precision", lambda value: value in PRECISIONS, "one of " + ", ".join(PRECISIONS)),
    ("train.compile", lambda value: value is True or value is False or value == "blocks", "true, false or blocks"),
    ("train.compile_mode", lambda value: value in COMPILE_MODES, "one of " + ", ".join(COMPILE_MODES)),
    ("train.channels_last", lambda value: value is True or value is False or value == "auto", "auto, true or false"),
    *((f"train.{key}", lambda value: isinstance(value, bool), "true or false") for key in ("device_probe", "encrypt")),
    ("train.clip_norm", _number(0), "a number from 0, where 0 is no clipping"),
    ("train.ema_decay", _below_one, "a number from 0 (off) to below 1"),
    ("train.log_every", _whole(1), "a whole number of steps from 1"),
    ("train.eval_every", lambda value: value == "auto" or _whole(0)(value), "auto (each epoch), or steps from 0 (0: at the end)"),
    ("train.save_every", lambda value: value == "auto" or _whole(1)(value), "auto, or steps from 1"),
    ("train.mtbf_hours", _positive, "hours above 0, for example 4"),
    ("train.hang_seconds", _number(0), "seconds, or 0 for no watch"),
    ("train.compare_every", _whole(0), "a whole number of steps, or 0 for never"),
    ("train.layers_every", _whole(0), "a whole number of steps, or 0 for never"),
    ("train.activation_checkpointing", lambda value: value in ("none", "selective", "full"), "one of none, selective, full"),
    ("train.on_bad", lambda value: value in ("stop", "rollback", "skip"), "one of stop, rollback, skip"),
    ("train.spike", lambda value: value == 0 or (_number(1)(value) and value > 1), "0 for none, or a number above 1, for example 5"),
    ("train.max_rollbacks", _whole(1), "a whole number from 1"),
    ("train.max_skips", _whole(1), "a whole number from 1"),
    ("train.keep", _whole(2), "a whole number from 2: the newest checkpoint may be the one a dying disk tore"),
    ("optim.lr", _positive, "a number above 0, for example 0.1"),
    ("optim.adamw_lr", _positive, "a number above 0, for example 3e-4"),
    ("optim.momentum", _below_one, "a number from 0 to below 1"),
    ("optim.weight_decay", _number(0), "a number from 0"),
    ("optim.eps", lambda value: _positive(value) or _eps_of_two(value), "a number above 0, for example 1e-8; for Adafactor [null,1e-3]"),
    ("optim.eta", _positive, "a number above 0, for example 1e-3"),
    ("optim.beta2_decay", _number(-math.inf, 0), "a number up to 0, for example -0.8"),
    ("optim.d", _number(1), "a number from 1"),
    ("optim.betas", lambda value: _pair(value) and all(map(_below_one, value)), "two numbers from 0 to below 1: [0.9,0.999]"),
    *((f"schedule.{key}", _number(0, 1), "a fraction from 0 to 1") for key in ("warmup", "peak", "start", "final")),
    ("task.label_smoothing", _below_one, "a number from 0 to below 1"),
    ("task.huber", _number(0), "a number above 0, in units of the target, or 0 for the squared error"),
)
"""Key, rule, what to type. A key that the config does not have is not judged here."""


def check_keys(config: Config) -> None:
    """Raises ConfigError for a key that `+` brought in or `~` took away; those of group nodes are the constructors' business."""
    for path, schema in (("", Keys), ("train", TrainConfig)):
        node = tree.look_up(config, path) if path else config
        known = [field.name for field in dataclasses.fields(schema) if field.name != "script"]  # of such a run scripted.py judges
        prefix = f"{path}." if path else ""
        for key in node:
            if key not in known:
                raise ConfigError(f"{prefix}{key}: no such key{nearest(key, known, prefix)}")
        for key in known:
            if key not in node:
                raise ConfigError(f"{prefix}{key} is needed; leave out ~{prefix}{key}")


def check_values(config: Config) -> None:
    """Raises ConfigError for the first value that cannot be meant: nan and infinity anywhere, then RULES."""
    for key, value in tree.leaves(config):
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{key}={value} is not a finite number; type one")
        if value == "???":
            raise ConfigError(f"{key} has no value and needs one; add {key}=…")
    for key, rule, wanted in RULES:
        value = tree.look_up(config, key)
        if value is not tree.ABSENT and not rule(value):
            raise ConfigError(f"{key}={tree.shown(value)} cannot be; type {wanted}")
    _check_optim_groups(config)
    if tree.look_up(config, "train.early_stop") and tree.look_up(config, "train.eval_every") == 0:
        raise ConfigError("train.eval_every=0 evaluates at the end alone, and train.early_stop asks before; type train.eval_every=auto")
    if tree.look_up(config, "train.on_bad") == "skip" and tree.look_up(config, "train.spike"):
        raise ConfigError("train.spike with train.on_bad=skip cannot be: a jump is seen after its update; type train.on_bad=rollback")


def check_blocks(config: Config, layout: Layout) -> None:
    """Raises ConfigError where the model's file names no blocks and the config needs them."""
    train, what = config["train"], config["model"]["_target_"]
    asked = {"activation_checkpointing": "none", "compile": False}
    for key, without in asked.items():
        how = train.get(key, without)
        if how not in (True, without) and not layout.blocks:
            raise ConfigError(
                f"train.{key}={how}: {what} names no blocks to do it by; write "
                f'BLOCKS = ("Block",) into its file, or type train.{key}={str(without).lower()}'
            )


def check_boundaries(config: Config) -> None:
    """Raises ConfigError where the data number documents and the model cannot be told."""
    target = config["model"]["_target_"]
    if config["data"].get("boundaries") is True and (known := inputs(target)) is not None and len(known) < 2:
        raise ConfigError(
            f"data.boundaries=true: {target} takes no second input, the document of each token; type data.boundaries=false, or "
            "model=transformer"
        )


def check_augment(config: Config) -> None:
    """Raises ConfigError where what is learnt is no class of an image, or what is asked for is no call. Another's task may know better."""
    asked, task = config["loader"].get("augment"), str(config["task"]["_target_"])
    if not asked:
        return
    if task.startswith("launcher.train.tasks.") and not task.endswith(".Classification"):
        raise ConfigError(
            f"loader.augment changes images and their classes, and what {task} is to find would be wrong; type loader.augment=null"
        )
    nodes = cast("list[Any]", asked) if isinstance(asked, list) else [asked]
    if not all(tree.is_mapping(node) and "_target_" in node for node in nodes):
        raise ConfigError(
            f"loader.augment={tree.shown(asked)} cannot be; type classes and what they are called with: "
            "'loader.augment=[{_target_:data.augment.mix.Mix,mixup:0.2}]', or null"
        )


def check_vocabulary(config: Config) -> None:
    """Raises ConfigError where the data have tokens that the model has no row for. They say so once they are prepared (data.kinds)."""
    kinds, rows = config["data"].get("kinds"), config["model"].get("vocab_size")
    if isinstance(kinds, int) and isinstance(rows, int) and rows < kinds:
        tokenizer = config["data"].get("tokenizer")
        whose = f"those of data.tokenizer={tokenizer}" if tokenizer else "bytes are 0 to 255, and those of this text"
        raise ConfigError(
            f"model.vocab_size={rows} is less than the {kinds} kinds of token that the data have ({whose} go up to {kinds - 1}); "
            f"type model.vocab_size={kinds if tokenizer else max(kinds, 256)}"
        )


def check_classes(config: Config) -> None:
    """Raises ConfigError where the task asks for other classes than the model has."""
    task, classes = config["task"], config["model"].get("num_classes")
    if task["_target_"] != "launcher.train.tasks.classification.Classification" or not isinstance(classes, int):
        return
    weights = task.get("class_weights")
    if isinstance(weights, list) and len(cast("list[Any]", weights)) != classes:
        count = len(cast("list[Any]", weights))
        raise ConfigError(f"task.class_weights: there are {count}, and model.num_classes={classes}; type one for each")
    for name in task.get("metrics") or ():
        if str(name).startswith("top") and str(name)[3:].isdecimal() and int(str(name)[3:]) >= classes:
            raise ConfigError(f"task.metrics: {name} of model.num_classes={classes} is always right; leave it out, or type a smaller one")


_HELD = {
    "num_classes": "the data have {} classes",
    "channels": "images of the data have {} channels",
    "in_features": "a sample of the data has {} numbers",
    "out_features": "the data have {} numbers to be found",
}


def check_held(config: Config, holds: Mapping[str, int]) -> None:
    """Raises ConfigError where the model is made for other samples than the data have. They say so once they are prepared
    (launcher/train/prepare.py)."""
    model, data = config["model"], config["data"]["_target_"]
    instead = "model=mlp task=classification" if "num_classes" in holds else "model=regressor task=regression"
    takes = names(str(model["_target_"]).rpartition(".")[0], "TAKES", "images")
    if "images" in takes and "in_features" in holds and "channels" not in holds:
        asked = " ".join(f"model.{key}={number}" for key, number in holds.items())
        raise ConfigError(f"model._target_={model['_target_']} takes images, and {data} has rows of numbers; type {instead} {asked}")
    for mine, theirs, kind in (("num_classes", "out_features", "numbers to be found"), ("out_features", "num_classes", "classes")):
        if mine in model and theirs in holds and mine not in holds:
            raise ConfigError(f"model.{mine}={model[mine]}: {data} has {kind}; type {instead} model.{theirs}={holds[theirs]}")
    for key, said in _HELD.items():
        asked, held = model.get(key), holds.get(key)
        if isinstance(asked, int) and held is not None and asked != held:
            raise ConfigError(f"model.{key}={asked}: {said.format(held)}; type model.{key}={held}")


def check_probe(config: Config, attached: bool) -> None:
    """Raises ConfigError where devices are to be timed that are not here."""
    if config["train"].get("device_probe") and not attached:
        raise ConfigError(
            "train.device_probe=true: the compute nodes cannot be looked at from here; type train.device_probe=false, or cluster=local"
        )


def check_fp8(config: Config, world: World, mesh: Mesh) -> None:
    """Raises ConfigError where nothing computes in 8 bits."""
    if not config["train"].get("fp8"):
        return
    if world.device != CUDA:
        kind = "a CPU" if world.device == CPU else f"an {KINDS[world.device].shown}"
        raise ConfigError(f"train.fp8=true: {kind} computes nothing in 8 bits; type train.fp8=false, or cluster.device={CUDA}")
    if mesh.tp > 1:
        raise ConfigError("train.fp8=true: what torchao puts in the place of a layer cannot be cut; type train.fp8=false, or strategy=fsdp")


def _check_optim_groups(config: Config) -> None:
    """Of our own optimizers: each pattern has settings that are keywords of the constructor, and values as the constructor's own."""
    target, groups = tree.look_up(config, "optim._target_"), tree.look_up(config, "optim.groups")
    known = signature(target) if str(target).startswith("launcher.train.optim.") else None
    if known is None or groups is tree.ABSENT:
        return
    if not tree.is_mapping(groups) or not all(map(tree.is_mapping, groups.values())):
        raise ConfigError(f"optim.groups={tree.shown(groups)} cannot be; type patterns and settings: '+optim.groups={{*.bias:{{lr:1}}}}'")
    kinds = {key: kind for key, kind in known.annotations.items() if key not in ("model", "groups")}
    rules = {key: (rule, wanted) for key, rule, wanted in RULES}
    for pattern, settings in groups.items():
        for key, value in settings.items():
            where = f"optim.groups.{pattern}.{key}"
            if key not in kinds:
                raise ConfigError(f"{where}: {target} takes no such setting{nearest(key, kinds)}")
            rule, wanted = rules.get(f"optim.{key}", (lambda _: True, f"a value of type {kinds[key]}"))
            if not (fits(value, kinds[key]) and rule(value)):
                raise ConfigError(f"{where}={tree.shown(value)} cannot be; type {wanted}")


class NotDivisible(ConfigError):
    """The batch over this world."""

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(f"{what}; type {instead}")
        self.what = what


def check_world(config: Config, world: World, mesh: Mesh) -> None:
    """Raises ConfigError where the numbers do not fit the world."""
    train = config["train"]
    batch, parts = train["batch_size"], mesh.dp_size * train["accumulate"]
    if batch % parts:
        what = f"train.batch_size={batch} is not divisible by {shares(mesh)} x train.accumulate={train['accumulate']}"
        raise NotDivisible(what, f"train.batch_size={nearest_batch(batch, parts)}")
    if world.uneven and mesh.dp_replicate != world.size:
        raise ConfigError(f"{world}: what is split takes as many processes on each node; type strategy=ddp, or slots that are the same")
    if train["precision"] == "fp16" and world.device == CPU:
        raise ConfigError("train.precision=fp16 is silently fp32 on a CPU; type train.precision=bf16 or fp32")


def differences(old: Config, new: Config) -> list[str]:
    """Keys whose values differ, as `key: old -> new`."""
    before, after = dict(tree.leaves(old)), dict(tree.leaves(new))
    keys = sorted(before.keys() | after.keys())
    return [
        f"{key}: {tree.shown(before.get(key, 'absent'))} -> {tree.shown(after.get(key, 'absent'))}"
        for key in keys
        if before.get(key, tree.ABSENT) != after.get(key, tree.ABSENT)
    ]


RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT")


def check_environment(environment: Mapping[str, str]) -> list[str]:
    """Rank variables that the shell carries, and parts of PYTHONPATH. Raises ConfigError for garbage; returns a warning for each that is
    ignored.
    """
    warnings: list[str] = []
    for name in RANK_VARIABLES:
        value = environment.get(name)
        if value is None:
            continue
        highest = 65_535 if name == "MASTER_PORT" else 10_000_000
        if not value.isdecimal() or int(value) > highest:
            raise ConfigError(f"{name}={value!r} in the environment is no whole number from 0 to {highest}; type: unset {name}")
        warnings.append(f"{name}={value} from the environment is ignored: the plan decides it (unset {name} to silence this)")
    warnings += (f"PYTHONPATH: {part} is another directory in each, and not searched; give its whole path" for part in search_path.left_out)
    return warnings

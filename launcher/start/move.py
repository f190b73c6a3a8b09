"""`resume RUN cluster.…=… strategy=…`: the same run in another world, or split in another way. The samples of each update stay the same,
who computes which, and how many at once, does not."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from launcher import CONF
from launcher.clusters.protocol import Cluster
from launcher.compose import preflight, typed
from launcher.compose.check import NotDivisible
from launcher.compose.compose import one_line, prepare
from launcher.compose.freeze import freeze, stored_config
from launcher.errors import ConfigError
from launcher.rundir.rundir import RunDir, write_atomic
from launcher.start.rendered import mark

_WORD = re.compile(r"\+{0,2}(cluster|strategy)\.(?!_target_)[^=]+=|strategy=|train\.accumulate=")


def check(words: list[str]) -> None:
    """Raises ConfigError for what a run that is there cannot change, whatever became of it."""
    if strange := [word for word in words if not _WORD.match(word)]:
        raise ConfigError(
            f"resume {strange[0]}: only where a run runs can change, with cluster.…=…, strategy=… and train.accumulate=…; for example "
            "cluster.processes_per_node=1; for anything else start a new run"
        )


def move(here: RunDir, cluster: Cluster, words: list[str]) -> Cluster:
    """Freeze the run again with other values under `cluster` or another strategy, in place of the old; nobody else is at it. Raises
    ConfigError."""
    if not cluster.attached and (nodes := [word for word in words if word.lstrip("+").startswith("cluster.")]):
        raise ConfigError(f"resume {nodes[0]}: a batch job keeps the nodes it was submitted for; leave {nodes[0]} out")
    config = preflight.created(stored_config(here))
    old = here.read_plan()
    try:
        frozen = freeze(changed(config, words), [*old.overrides, *words], goes_on=True)
    except NotDivisible as error:
        train = config["train"]
        counts = ", ".join(str(count) for count in range(1, 65) if train["batch_size"] % (count * train["accumulate"]) == 0)
        raise ConfigError(
            f"resume {' '.join(words)}: {error.what}, and a run keeps its batch; type cluster.processes_per_node= and one of {counts}"
        ) from error
    kept = ("run_dir", "directory", *(() if cluster.attached else ("project", "python", "code_hash", "packages")))
    kept += ("chosen",) if frozen.plan.world.device == old.world.device else ()  # what was measured then
    plan = dataclasses.replace(frozen.plan, **{key: getattr(old, key) for key in kept})
    script = frozen.cluster.render(plan)
    write_atomic(here.script, script)
    write_atomic(here.config, frozen.config)
    write_atomic(here.plan, plan.to_json())  # last: until it is there, the workers refuse the world that the script makes
    here.log_event("moved", world=str(plan.world), script=mark(script))
    return frozen.cluster


def changed(config: DictConfig, words: list[str]) -> DictConfig:
    """What `words` make of it, read as at a start. Raises ConfigError."""
    for word in words:
        if word.startswith("strategy="):
            config["strategy"] = _strategy(word)
    words = [word for word in words if not word.startswith("strategy=")]
    OmegaConf.set_struct(config, True)
    words = prepare(words)
    with one_line(words):
        overrides = OverridesParser.create().parse_overrides(words)
        for override in overrides:
            if override.is_sweep_override():
                raise ConfigError(f"{override.input_line}: several values for one run; it is in one world, type one of them")
        ConfigLoaderImpl._apply_overrides_to_config(overrides, config)  # pyright: ignore[reportPrivateUsage]
    typed.restore(config, words)
    return config


def _strategy(word: str) -> Any:
    """What the yaml of that name says. Raises ConfigError."""
    name, known = word.partition("=")[2], {path.stem: path for path in sorted((CONF / "strategy").glob("*.yaml"))}
    if name not in known:
        raise ConfigError(f"resume {word}: there is no such strategy; type strategy= and one of {', '.join(known)}")
    return OmegaConf.load(known[name])

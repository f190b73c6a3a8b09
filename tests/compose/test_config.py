"""conf/ as it is shipped, and the config as it is frozen: every piece composes, nothing is misspelt, no secret is written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import PROJECT, REPO, TOY, Answer, refused

from launcher.compose.compose import compose
from launcher.compose.freeze import Frozen, freeze, stored_config
from launcher.config.config import GROUPS, OLDER
from launcher.config.targets import signature
from launcher.errors import ConfigError
from launcher.node.entry import read_config
from launcher.rundir.rundir import create

Command = Callable[..., Answer]

CONF = REPO / "conf"
CHOICES = [path for group in GROUPS for path in sorted((CONF / group).glob("*.yaml")) if group != "exp"]
EXPS = [(path, ()) for path in sorted((CONF / "exp").glob("*.yaml"))]
EXPS += [(path, TOY[:2]) for path in sorted((PROJECT / "conf" / "exp").glob("*.yaml"))]
GIVEN = {"data": {"split"}, "optim": {"model"}, "loader": {"data", "batch_size", "accumulate", "seed"}}
"""Keywords that the worker gives, which no yaml may set."""


def _frozen(*words: str) -> Frozen:
    made: list[Frozen] = []
    compose(list(words), lambda config, overrides: made.append(freeze(config, overrides)))
    return made[0]


# ---------------------------------------------------------------- conf/


@pytest.mark.parametrize("path", CHOICES, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_a_choice_is_a_constructor_call_spelt_out_and_composes(path: Path, command: Command) -> None:
    node = yaml.safe_load(path.read_text())
    known = signature(node["_target_"])
    assert known is not None
    assert set(node) - {"defaults"} == {"_target_", *known.annotations} - GIVEN.get(path.parent.name, set())
    needed = {"cp": ["strategy.on_cpu=true"], "ssh": ["cluster.hosts=[gpu1,gpu2]", "cluster.processes_per_node=1"]}.get(path.stem, [])
    answer = command("plan", f"{path.parent.name}={path.stem}", *needed)
    assert (answer.code, answer.err) == (0, "")


def test_no_word_at_all_is_a_run_too(command: Command) -> None:
    assert json.loads(command("plan").out)["name"] == "run"


def test_every_group_has_a_choice_and_every_folder_is_a_group() -> None:
    assert {path.parent.name for path in CHOICES} == set(GROUPS) - {"exp"}
    assert {place.name for place in CONF.iterdir() if place.is_dir()} <= {*GROUPS, "local"}


def test_a_run_without_a_loader_has_the_one_there_was(command: Command, tmp_path: Path) -> None:
    assert {"loader": yaml.safe_load((CONF / "loader" / "resident.yaml").read_text())} == OLDER
    frozen = _frozen("id=a", f"runs_dir={tmp_path / 'runs'}")
    here, now = create(Path(frozen.plan.run_dir)), yaml.safe_load(frozen.config)
    here.config.write_text(yaml.safe_dump({key: value for key, value in now.items() if key != "loader"}))
    assert stored_config(here) == now
    assert read_config(here) == now


def test_patterns_of_parameters_are_the_same_from_a_yaml_and_from_a_command(tmp_path: Path) -> None:
    """Dots and stars in a key, as it is frozen; a yaml's patterns come first."""
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "named.yaml").write_text(
        '# @package _global_\noptim:\n  groups: {"*.bias": {lr: 0.2}, "head.*": {lr: 0.01, weight_decay: 0}}\n'
    )
    typed = _frozen("+optim.groups={*.bias:{lr:0.2},head.*:{lr:0.01,weight_decay:0}}")
    written = _frozen("--config-dir", str(tmp_path), "+exp=named")
    both = _frozen("--config-dir", str(tmp_path), "+exp=named", "+optim.groups={*:{momentum:0.5},*.bias:{weight_decay:1}}")
    groups = {"*.bias": {"lr": 0.2}, "head.*": {"lr": 0.01, "weight_decay": 0}}
    assert yaml.safe_load(typed.config)["optim"]["groups"] == yaml.safe_load(written.config)["optim"]["groups"] == groups
    merged = {"*.bias": {"lr": 0.2, "weight_decay": 1}, "head.*": groups["head.*"], "*": {"momentum": 0.5}}
    assert list(yaml.safe_load(both.config)["optim"]["groups"].items()) == list(merged.items())


@pytest.mark.parametrize(("path", "flags"), EXPS, ids=[path.stem for path, _ in EXPS])
def test_an_exp_opens_with_its_command_and_composes(path: Path, flags: tuple[str, ...], command: Command) -> None:
    first, second = path.read_text().splitlines()[:2]
    assert first == "# @package _global_"
    assert re.match(rf"# python -m launcher .*\+exp={path.stem}\b", second)
    answer = command("plan", *flags, f"+exp={path.stem}")
    assert (answer.code, answer.err) == (0, "")


def test_an_exp_names_its_run_and_departs_from_groups_by_override() -> None:
    for path, _ in EXPS:
        exp = yaml.safe_load(path.read_text())
        assert exp["name"] == path.stem
        assert all(next(iter(line)).startswith("override /") for line in exp["defaults"])


def test_the_fixed_keys_are_all_there(command: Command) -> None:
    config = yaml.safe_load(command("--cfg", "job").out)
    assert {"name", "id", "seed", "runs_dir", "model", "data", "optim", "schedule", "strategy", "cluster", "train"} <= set(config)
    assert set(config["train"]) >= {
        *("epochs", "steps", "batch_size", "accumulate", "precision", "compile", "clip_norm"),
        *(
            "log_every",
            "eval_every",
            "save_every",
            "mtbf_hours",
            "keep",
            "hang_seconds",
            "on_bad",
            "compare_every",
            "layers_every",
            "spike",
            "max_rollbacks",
            "deterministic",
        ),
    }
    assert {"nodes", "processes_per_node", "device", "max_restarts"} <= set(config["cluster"])
    assert "root" in config["data"]
    assert config["id"] is None


YAMLS = (
    ("# @package _global_\ntrain: {epoch: 3}\n", "train.epoch: no such key; did you mean train.epochs?"),
    ("# @package _global_\ntrain: {epochs: three}\n", "epochs: In 'exp/mine'", "'three'"),
    ("# @package _global_\nmodel: {widthh: 3}\n", "model.widthh: models.resnet.resnet20 takes no such keyword; did you mean width?"),
    ("# @package _global_\ndefaults: [override /model: resnet88]\n", "model=resnet88: no such choice; did you mean resnet"),
    ("# @package _global_\ndefaults: [override /modl: resnet8]\n", "modl: no such key; did you mean model?"),
    ("# @package _global_\ndefaults: 5\n", "Invalid defaults list in 'exp/mine'"),
    ("# @package _global_\nseed: ${nope}\n", "seed: Interpolation key 'nope' not found"),
    ("# @package _global_\nseed: 1\nseed: 2\n", "found duplicate key seed", "mine.yaml"),
    ("# @package _global_\na: [\n", "mine.yaml"),
    ("# @package _global_\nx: !!python/object/apply:os.system [touch x]\n", "could not determine a constructor", "mine.yaml"),
    ("# @package _global_\nmodel: {_target_: os.system}\n", "model._target_='os.system' is refused"),
    ("seed: 1\n", "exp: ", "# @package _global_"),
    ("- a\n", "exp: ", "# @package _global_"),
)


@pytest.mark.parametrize("row", YAMLS, ids=[row[0].removeprefix("# @package _global_\n").strip()[:30] for row in YAMLS])
def test_a_mistake_in_an_exp_is_one_line(row: tuple[str, ...], command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "exp").mkdir(parents=True)
    (tmp_path / "mine" / "exp" / "mine.yaml").write_text(row[0])
    refused(command("plan", "--config-dir", "mine", "+exp=mine"), 2, *row[1:])
    assert not (tmp_path / "x").exists()


# ---------------------------------------------------------------- frozen


def test_what_is_frozen_is_every_value_resolved_once(command: Command) -> None:
    command("--version")  # sets the environment up
    frozen = _frozen(*TOY, "name=a-${seed}", "seed=7", "id=one", "train.steps=5")
    config = yaml.safe_load(frozen.config)
    assert (config["name"], config["id"], config["seed"], config["train"]["steps"]) == ("a-7", "one", 7, 5)
    assert "${" not in frozen.config
    assert "hydra" not in config
    assert frozen.plan.run_dir.endswith("/runs/a-7/one")
    assert frozen.plan.overrides[1:] == ("name=a-${seed}", "seed=7", "id=one", "train.steps=5")


SECRET = "hunter2-correct-horse"


@pytest.mark.parametrize("spelling", ["${oc.env:TEST_SECRET}", "'x-${oc.env:TEST_SECRET}'", "'${oc.env:TEST_SECRET,other}'"])
def test_a_secret_is_written_nowhere_and_read_by_the_worker(
    spelling: str, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from launcher.node.entry import read_config

    command("--version")
    monkeypatch.setenv("TEST_SECRET", SECRET)
    frozen = _frozen("+exp=cifar", f"data.root={spelling}", "runs_dir=runs")
    here = create(Path(frozen.plan.run_dir))
    here.freeze(frozen.plan, frozen.config, frozen.script)
    here.log_event("submitted", overrides=frozen.plan.overrides)
    for path in here.path.rglob("*"):
        assert path.is_dir() or SECRET not in path.read_text(), path
    assert "${oc.env:TEST_SECRET" in here.config.read_text()
    assert read_config(here)["data"]["root"] == spelling.strip("'").replace("${oc.env:TEST_SECRET,other}", SECRET).replace(
        "${oc.env:TEST_SECRET}", SECRET
    )
    assert SECRET not in command("plan", "+exp=cifar", f"data.root={spelling}").out


def test_a_number_from_the_environment_stays_a_number(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    command("--version")
    monkeypatch.setenv("TEST_STEPS", "5")
    frozen = _frozen(
        *TOY, "train.steps=${oc.env:TEST_STEPS}", "optim.lr='${oc.decode:${oc.env:TEST_LR,0.25}}'", "train.eval_every=${train.steps}"
    )
    config = yaml.safe_load(frozen.config)
    assert (config["train"]["steps"], config["optim"]["lr"], config["train"]["eval_every"]) == (5, 0.25, 5)


def test_a_config_that_was_changed_by_hand_to_name_other_code_is_refused(command: Command, tmp_path: Path) -> None:
    from launcher.node.entry import read_config

    command("--version")
    frozen = _frozen(*TOY, "runs_dir=runs")
    here = create(Path(frozen.plan.run_dir))
    config: dict[str, Any] = yaml.safe_load(frozen.config)
    config["model"] = {"_target_": "os.system", "command": f"touch {tmp_path / 'x'}"}
    here.freeze(frozen.plan, yaml.safe_dump(config), frozen.script)
    with pytest.raises(ConfigError, match="is refused"):
        read_config(here)
    assert not (tmp_path / "x").exists()


def test_the_same_command_twice_is_two_runs_that_sort_by_time(command: Command) -> None:
    ids = [json.loads(command("plan", *TOY).out)["id"] for _ in range(4)]
    assert ids == sorted(set(ids))
    assert all(re.fullmatch(r"\d{8}-\d{6}-\d{3}", id) for id in ids)


def test_the_same_config_has_the_same_hash_and_another_has_another(command: Command) -> None:
    command("--version")
    one, same, other = (_frozen(*TOY, "id=x", f"seed={seed}").plan.config_hash for seed in (0, 0, 1))
    assert one == same != other


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["loader.augment={mixup:1}"], "loader.augment={'mixup': 1} cannot be; type classes and what they are called with"),
        (["loader.augment=[{_target_:data.augment.mix.Mix,mixp:1}]"], "data.augment.mix.Mix takes no such keyword; did you mean mixup?"),
        (["task=detection", "loader.augment={_target_:data.augment.shape.Flip}"], "is to find would be wrong; type loader.augment=null"),
        (["task=regression", "loader=workers", "loader.augment=[{_target_:data.augment.mix.Mix}]"], "type loader.augment=null"),
    ],
)
def test_augmentations_that_cannot_be_are_refused_when_a_run_is_planned(words: list[str], says: str, command: Command) -> None:
    refused(command("plan", *words), 2, "loader.augment", says)
    asked = "loader.augment=[{_target_:data.augment.mix.Mix,mixup:0.2},{_target_:data.augment.shape.Flip}]"
    assert command("plan", asked).code == 0

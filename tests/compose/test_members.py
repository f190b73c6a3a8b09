"""A sweep's members are what Hydra's BasicSweeper composes, one by one; only sooner."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import TOY, Answer
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import Container, DictConfig, OmegaConf

from launcher.compose.compose import compose
from launcher.compose.freeze import freeze, resolve
from launcher.compose.members import MOST, Member, OtherSweeper, compose_members, plugin_of
from launcher.errors import ConfigError

Command = Callable[..., Answer]

EXPS = {
    "one": "name: one\noptim: {lr: 0.3}\nschedule: {warmup: '${seed}'}",
    "two": "defaults: [override /model: resnet8, override /optim: adamw]\nname: two-${optim.lr}\ntrain: {steps: 7}",
    "asks": "name: asks-${hydra:runtime.choices.model}-${hydra:job.num}\nseed: ${hydra:job.num}",
    "params": "hydra: {sweeper: {params: {seed: '1,2', +model.extra: 'choice(a,b)', optim.lr: '${resume}'}}}\nresume: 0.1,0.2",
    "secrets": "hydra: {sweeper: {params: {name: '${oc.env:TEST_SECRET}'}}}",
    "mean": "defaults: [override /hydra/sweeper: installed]",
    "now": "name: a-${now:%Y%m%d-%H%M%S}",
    "secret": "data: {root: '${oc.env:TEST_SECRET}/x'}",
}


@pytest.fixture(autouse=True)
def mine(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory `mine` with the exps above; the environment is that of `command`; Hydra composes each member once, not twice."""
    (tmp_path / "mine" / "exp").mkdir(parents=True)
    for name, text in EXPS.items():
        (tmp_path / "mine" / "exp" / f"{name}.yaml").write_text(f"# @package _global_\n{text}\n")
    ConfigStore.instance().store(group="hydra/sweeper", name="installed", node={"_target_": "plugin.Sweeper"})  # as a plug-in does
    monkeypatch.setenv("TEST_SECRET", "hunter2")
    monkeypatch.setattr(BasicSweeper, "validate_batch_is_legal", lambda self, batch: None)


def _by_hydra(words: list[str]) -> list[Member]:
    found: list[Member] = []
    compose(words, lambda config, overrides: found.append(Member(overrides, config)))
    return found


def _shape(node: Any, key: Any = None) -> Any:
    """All there is to a config: of every node its kind, its declared type, its flags, and the value as typed."""
    flags = [node._get_flag(flag) for flag in ("struct", "readonly", "allow_objects")]
    kind = (key, type(node).__name__, node._metadata.ref_type, node._metadata.object_type, node._metadata.optional, flags)
    if not isinstance(node, Container) or node._is_interpolation() or node._is_missing() or node._is_none():
        return (*kind, repr(node._value()))
    keys = list(node.keys()) if isinstance(node, DictConfig) else range(len(node))
    return (*kind, [_shape(node._get_node(child), child) for child in keys])


def _resolved(config: DictConfig) -> str:
    try:
        return repr(resolve(config))
    except ConfigError as error:
        return str(error)


SWEEPS = (
    "optim.lr=0.1,0.2,1e-3",
    "train.epochs=1,2  optim.lr=0.1,0.2  seed=3",
    "seed=1,2  optim.lr=0.1,0.2  seed=5,6",
    "train.epochs=range(1,4)",
    "optim.lr=range(0.1,0.4,step=0.1)",
    "optim.lr=choice(0.1,0.2)",
    "optim.lr=sort(0.2,0.1,reverse=true)",
    "optim.lr=tag(a,choice(0.1,0.2))",
    "seed=int(choice(1.0,2.0))",
    "name='a b','c,d'  runs_dir='x=1'",
    "name=a\\,b,'it\\'s',\"q\\\"\"",
    "name=a\\ b,null-x,true-x",
    "train.steps=null,5  train.compile=true,false",
    "train.clip_norm=1,2.5",
    "train.eval_every=auto,5",
    "train={epochs:3},{epochs:4,keep:5}",
    "train.epochs=9  train={keep:3},{epochs:4}",
    "model.width=8,16  +model.extra={a:{b:1}}",
    "+model.extra=[1,2],{a:1,b:[c,d]},text,null",
    "+model.extra={a:1}  model.extra.a=2,3",
    "++model.width=4,8  ++model.other=1,2",
    "model.width=4  ++model.width=5,6",
    "++model.width=5,6  model.width=4",
    "~model.width  optim.lr=0.1,0.2",
    "model=resnet8,resnet20",
    "model=resnet8,resnet20  model.width=8,16",
    "model.width=8,16  model=resnet8,resnet20  optim=adamw",
    "model=glob(resnet*,exclude=[resnet1*,resnet5*,resnet9])",
    "optim=sgd,adamw  optim.lr=1e-3,1e-2  ++optim.betas=[0.9,0.99]",
    "optim=adamw,{lr:0.7}",
    "optim={lr:0.1},{lr:0.2}  optim.lr=0.3",
    "optim.lr=0.3  optim={lr:0.1},{lr:0.2}",
    "+exp=one,two",
    "+exp=one,two  optim.lr=0.1,0.2",
    "exp=two  model=resnet20  seed=1,2",
    "+exp=cifar  cluster=local  seed=range(0,3)",
    "name=a-${seed},b-${optim.lr}  seed=1,2",
    "name='${seed}'  seed=1,2",
    "train.steps=${train.epochs},3  train.epochs=4,5",
    "optim.lr='${schedule.warmup}',0.3  schedule.warmup=0.1,0.2",
    "data.root='${oc.env:TEST_SECRET}',b  seed=1,2",
    "runs_dir='~/x',${name}/y  seed=1",
    "id=mine  seed=1,2",
    "id=a,b  seed=1,2",
    "id='${name}'  name=a,b",
    "id=null,x",
    "seed=7",
    "name=???,b",
    "cluster.device=cpu,cuda  hydra.sweep.dir=elsewhere",
    "+exp=params  train.steps=1",
    "+exp=secret  name=x-${data.root},y",
)
"""Words are two spaces apart."""

BAD = (
    "~id  seed=1,2",
    "+data@other=cifar10  seed=1,2",
    "~train.epochs=10  optim.lr=0.1,0.2",
    "trust=[a],[a,b],[]",
    "train.epochs=1,abc",
    "train.epochs=abc,1",
    "optim.lr=0.1,0.2  train.epochs=1,abc",
    "train.steps=1,[2]",
    "optim.lrr=0.1,0.2",
    "seed=1,2  train.epoch=3",
    "model=resnet8,resnet88",
    "+exp=one,three",
    "+seed=1,2",
    "~train.epochs=11  seed=1,2",
    "~nope  seed=1,2",
    "++model=resnet8,resnet9",
    "hydra.sweep.dir=a,b",
    "optim.lr=range(1,2,0)",
    "optim.lr=0.1,[0.2",
    "data@other=cifar10  seed=1,2",
    "trust=[a],[b]",
    "hydra.job.name=a,b",
    "+model=pkg://a,b",
    "--config-name=nope  seed=1,2",
    "--config-path=/nonexistent  seed=1,2",
    "--bogus  seed=1,2",
)


def _words(text: str) -> list[str]:
    return ["--config-dir", "mine", *text.split("  "), "-m"]


def _values(words: list[str]) -> list[tuple[str, object]]:
    """Ours are as typed, `1e-3`, theirs as Python writes the number."""
    found: list[tuple[str, object]] = []
    for key, _, value in (word.partition("=") for word in words):
        try:
            found.append((key, float(value)))
        except ValueError:
            found.append((key, value.lower() if value in ("True", "False") else value))
    return found


@pytest.mark.parametrize("sweep", SWEEPS)
def test_members_are_those_of_hydras_own_sweeper(sweep: str) -> None:
    members, theirs = compose_members(_words(sweep)), _by_hydra(_words(sweep))
    assert [_values(member.overrides) for member in members] == [_values(member.overrides) for member in theirs]
    for member, other in zip(members, theirs, strict=True):
        assert _shape(member.config) == _shape(other.config)
        assert _resolved(member.config) == _resolved(other.config)


@pytest.mark.parametrize("sweep", BAD)
def test_what_hydra_refuses_is_refused_in_the_same_words(sweep: str) -> None:
    with pytest.raises(ConfigError) as theirs:
        _by_hydra(_words(sweep))
    with pytest.raises(ConfigError) as ours:
        compose_members(_words(sweep))
    assert str(ours.value).endswith(str(theirs.value))
    assert "\n" not in str(ours.value)


def test_an_error_names_its_member() -> None:
    with pytest.raises(ConfigError, match=r"^optim.lr=0.1 train.epochs=abc: train.epochs=abc: Value 'abc' of type 'str' could not be"):
        compose_members(["-m", "name=x", "optim.lr=0.1,0.2", "train.epochs=1,abc"])
    with pytest.raises(ConfigError, match=r"^train.epochs=abc: Value 'abc'"):
        compose_members(["-m", "name=x", "train.epochs=1,abc"])


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ("optim.lr=interval(0,1)", "optim.lr=interval(0,1): an interval has no end of values; type optim.lr=0.1,0.2 or"),
        ("model=glob(nope*)", "model=glob(nope*): no value comes of this"),
        ("seed=range(0,100001)", "this sweep has more than 100,000 members"),
        ("seed=range(0,1000)  train.epochs=range(1,102)", "this sweep has more than 100,000 members"),
        ("seed=range(0,1000000000000)", "this sweep has more than 100,000 members"),
        ("--cfg=job  seed=1,2", "--cfg is not for a sweep; leave out --cfg or --multirun"),
        ("--config-dir=nope  seed=1,2", "nope: no such directory"),
        ("model=resnet8,5", "model=5: a choice is the name of a yaml; type model= and one of cnn,"),
        ("name='${hydra:nope.nope}',b", "${hydra:nope.nope} is not known before the run starts"),
        ("+exp=mean  seed=1,2", "hydra: plugin.Sweeper decides for itself"),
        ("name='${hydra:runtime.output_dir}',b", "${hydra:runtime.output_dir} is not known before the run starts"),
    ],
)
def test_what_cannot_be_a_sweep_is_one_line(sweep: str, said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        compose_members(_words(sweep))
    assert said in str(refusal.value)


def test_another_sweeper_or_launcher_is_not_ours_to_run() -> None:
    with pytest.raises(OtherSweeper, match=r"plugin\.Sweeper"):
        compose_members(["-m", "--config-dir", "mine", "+exp=mean", "seed=1,2"])
    hydra = {"sweeper": {"_target_": "a.B"}, "launcher": {"_target_": "c.D"}}
    assert plugin_of(OmegaConf.create({"hydra": hydra})) == "a.B"


def test_what_a_config_asks_of_hydra_is_answered_for_each_member() -> None:
    words = ["-m", "--config-dir", "mine", "+exp=asks", "model=resnet8,resnet20"]
    theirs: list[Any] = []
    compose(words, lambda config, overrides: theirs.append(resolve(config)))
    HydraConfig.instance().cfg = None
    members = compose_members(words)
    assert [resolve(member.config) for member in members] == theirs
    assert [member.config.name for member in members] == ["asks-resnet8-0", "asks-resnet20-1"]
    runs_dirs = [member.config.runs_dir for member in compose_members(["-m", "seed=1,2", "runs_dir=x/${hydra:job.id}"])]
    assert runs_dirs == ["x/0", "x/1"]


def test_no_secret_is_in_a_member() -> None:
    for words in (["+exp=secrets"], ["name='${oc.env:TEST_SECRET}',b"], ["data.root='${oc.env:TEST_SECRET}'"]):
        for member in compose_members(["-m", "--config-dir", "mine", *words]):
            assert "hunter2" not in f"{member.overrides} {OmegaConf.to_container(member.config)}"


def test_shuffled_values_come_each_once_in_any_order() -> None:
    for sweep in ("seed=shuffle(1,2,3,4)", "seed=shuffle(range(1,5))"):
        assert sorted(member.config.seed for member in compose_members(["-m", sweep])) == [1, 2, 3, 4]


def test_members_share_the_time_stamp_of_the_sweep() -> None:
    members = compose_members(["-m", "--config-dir", "mine", "+exp=now", "seed=1,2"])
    stamps = [OmegaConf.get_cache(member.config)["now"]["%Y%m%d-%H%M%S",] for member in members]
    assert stamps[0] == stamps[1]
    assert members[0].config.name == f"a-{stamps[0]}"


def test_members_are_independent_of_each_other_and_of_the_next_sweep() -> None:
    members = compose_members(["-m", "+model.extra=[1]", "seed=1,2"])
    members[0].config.model.extra.append(5)
    members[0].config.train.epochs = 77
    again = compose_members(["-m", "+model.extra=[1]", "seed=1,2"])
    assert _shape(members[1].config) == _shape(again[1].config)


def test_files_are_composed_once_per_choice_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    composed: list[list[str]] = []
    load = ConfigLoaderImpl.load_configuration

    def count(self: ConfigLoaderImpl, config_name: str | None, overrides: list[str], *rest: Any, **more: Any) -> DictConfig:
        composed.append(overrides)
        return load(self, config_name, overrides, *rest, **more)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", count)
    members = compose_members(["-m", "model=resnet8,resnet20", "optim.lr=range(1,11)", "+model.extra=range(0,5)", "~schedule.final"])
    assert len(members) == 100
    assert len(composed) == 3  # what all share, and the two models


def test_a_sweep_of_one_is_a_sweep() -> None:
    (member,) = compose_members(["-m", *TOY, "id=x"])
    assert (member.config.id, member.overrides) == ("x-0", ["+exp=toy", "id=x"])
    assert "hydra" not in member.config
    assert MOST == 100_000


def test_members_freeze_to_what_a_run_of_its_own_would() -> None:
    words = ["+exp=cifar", "cluster=local", "optim.lr=0.1,0.2", "id=x"]
    for number, member in enumerate(compose_members(["-m", *words])):
        ours = freeze(member.config, member.overrides)
        (alone,) = _by_hydra([*words[:2], f"optim.lr={member.config.optim.lr}", f"id=x-{number}"])
        theirs = freeze(alone.config, alone.overrides)
        assert (ours.config, ours.script) == (theirs.config, theirs.script)
        assert ours.plan == dataclasses.replace(theirs.plan, overrides=tuple(member.overrides))

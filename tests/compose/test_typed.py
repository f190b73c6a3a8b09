"""Words for text fields are the words that were typed, and what is written is read back equal."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import Answer
from omegaconf import DictConfig, OmegaConf

from launcher.config import dialect

Command = Callable[..., Answer]

LOOKS = ("2024_11_21", "52e4381", "1e5", "0x10", "0o17", "1_000", "true", "on", "off", "yes", "no", "1.10", "007", "1.0", "inf", "nan")
SLURM = ("+exp=cifar", "cluster=slurm")


@pytest.mark.parametrize("word", LOOKS)
def test_a_name_is_the_word_that_was_typed(command: Command, word: str) -> None:
    plan = json.loads(command("plan", "+exp=cifar", f"id={word}", f"name={word}").out)
    assert (plan["id"], plan["name"]) == (word, word)


def test_texts_of_the_cluster_are_the_words_that_were_typed(command: Command) -> None:
    words = ["account=12_34", "partition=1e3", "qos=010", "exclude=node1,node2", "time=30", "memory=0"]
    more = ["env.A=true", "env.B=1e3", "env.C=010", "env.D=null", "sbatch.mail-type=END,FAIL", "sbatch.exclusive=true"]
    more.append("sbatch.comment=1.10")
    done = command("render", *SLURM, *(f"cluster.{word}" for word in words), *(f"+cluster.{word}" for word in more))
    assert done.code == 0, done.err
    for line in ("--account=12_34", "--partition=1e3", "--qos=010", "--exclude=node1,node2", "--time=0-00:30:00", "--mem=0"):
        assert f"#SBATCH {line}\n" in done.out
    exported = "export A=true", "export B=1e3", "export C=010"
    for line in ("#SBATCH --mail-type=END,FAIL", "#SBATCH --exclusive", "#SBATCH --comment=1.10", *exported):
        assert f"{line}\n" in done.out
    assert "export D" not in done.out


def test_the_entries_of_a_dict_and_a_list_are_texts_too(command: Command) -> None:
    done = command("render", *SLURM, "+cluster.env={A:true,B:1e3}", "cluster.site_options=[my-opt]", "+cluster.sbatch.comment=1_0")
    assert done.code == 0, done.err
    assert "export A=true\n" in done.out
    assert "export B=1e3\n" in done.out
    assert "#SBATCH --comment=1_0\n" in done.out


def test_a_comma_elsewhere_still_asks_whether_a_sweep_is_meant(command: Command) -> None:
    assert "add -m to train each" in command("plan", "+exp=cifar", "optim.lr=0.1,0.2").err
    assert "add -m to train each" in command("plan", "+exp=cifar", "model=resnet8,resnet9").err


@pytest.mark.parametrize("word", ["cluster.exclude=a,b", "+cluster.sbatch.mail-type=END,FAIL"])
def test_a_comma_in_a_list_of_slurm_is_no_sweep(command: Command, word: str) -> None:
    done = command("-m", *SLURM, word)
    assert done.code == 2
    key, _, text = word.partition("=")
    assert f"""'{key}="{text}"' for one list, '{key}=choice({text})' for a run each""" in done.err


def test_members_of_a_sweep_are_named_as_typed(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from launcher.compose.members import compose_members

    command("plan", "+exp=cifar")  # the environment of a command
    found = compose_members(["-m", "+exp=cifar", "name=1e5,2024_11_21,true,'0x1'", "id=52e4381"])
    assert [member.config.name for member in found] == ["1e5", "2024_11_21", "true", "0x1"]
    assert [member.config.id for member in found] == [f"52e4381-{number}" for number in range(4)]
    assert [member.overrides[1] for member in found][:2] == ["name=1e5", "name=2024_11_21"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("id: 2024_11_21", "2024_11_21"),
        ("id: 0123", "0123"),
        ("id: 20241121", "20241121"),
        ("id: 52e4381", None),
        ("id: 1.10", None),
        ("id: on", None),
    ],
)
def test_a_text_in_a_yaml_is_what_stands_there_or_is_refused(command: Command, tmp_path: Path, line: str, expected: str | None) -> None:
    (tmp_path / "mine" / "exp").mkdir(parents=True)
    (tmp_path / "mine" / "exp" / "mine.yaml").write_text(f"# @package _global_\n{line}\ntrain:\n  batch_size: 1_000\n  epochs: 2\n")
    done = command("plan", "--config-dir", str(tmp_path / "mine"), "+exp=mine", "cluster.processes_per_node=1")
    if expected is None:
        assert done.code == 2
        assert "quote it there" in done.err
    else:
        assert json.loads(done.out)["id"] == expected


@pytest.mark.parametrize(
    ("yaml", "told"),
    [
        ("site_options: [010, 1_0], sbatch: {'010': x}", "#SBATCH --010=x\n"),
        ("mounts: [1e5]", "cluster.mounts[0]: a yaml has 100000.0 there without quotes, which is no text; quote it there: ['…']"),
        ("site_options: [ok, on]", "cluster.site_options[1]: a yaml has true there"),
    ],
)
def test_a_text_in_a_list_of_a_yaml_is_one_too(command: Command, tmp_path: Path, yaml: str, told: str) -> None:
    (tmp_path / "mine" / "exp").mkdir(parents=True)
    exp = f"# @package _global_\ndefaults:\n  - cifar\n  - override /cluster: slurm\ncluster: {{{yaml}}}\n"
    (tmp_path / "mine" / "exp" / "mine.yaml").write_text(exp)
    done = command("render", "--config-dir", str(tmp_path / "mine"), "+exp=mine")
    assert told in (done.err if done.code else done.out), done.err


@pytest.mark.parametrize(("word", "told"), [("name=null", "name=null cannot name"), ("runs_dir=null", "runs_dir=null cannot be")])
def test_null_is_no_name_and_no_place(command: Command, word: str, told: str) -> None:
    done = command("plan", "+exp=cifar", word)
    assert (done.code, told in done.err) == (2, True), done.err


def test_a_sweeper_of_another_makes_words_of_its_own_and_the_typed_ones_count(command: Command) -> None:
    """Hydra's own, which our members are made without, stands for them: it gives name=100000.0."""
    from launcher.compose.compose import compose

    command("plan", "+exp=cifar")
    found: list[tuple[str, str, int, list[str]]] = []
    words = ["-m", "+exp=cifar", "name=1e5,2024_11_21,'0x1'", "id=choice(007)", "seed=2", "hydra.sweep.dir=sweep"]
    compose(words, lambda config, words: found.append((config.name, config.id, config.seed, words)))
    assert [each[:3] for each in found] == [("1e5", "007-0", 2), ("2024_11_21", "007-1", 2), ("0x1", "007-2", 2)]
    assert found[0][3] == ["+exp=cifar", "name=1e5", "id=007", "seed=2"]


HOSTILE = (
    *LOOKS,
    *("~", "null", "", " ", "=", "<<", "- a", "a: b", "#x", "'", '"', "!x", "&a", "*a", "@", "%", "`", "{", "["),
    *["1:30", "10:00:00", "1-12", "2001-01-01", ".inf", ".nan", "+1e5", "-1_0e5", "1.e5", ".5", "1e", "0b1", "y", "n", "Y", "1__0"],
    *("\u00e4\u20ac", "a\nb", "a\tb", "\x85", "\u2028"),
)
SHAPES = itertools.product(("", "-", "+", "."), ("0", "1", "12", "1_0"), ("", ".", "e", "E", "_", ":", "e-", "x"), ("", "5", "30", "_1"))


def test_what_is_written_is_read_back_equal_by_both_who_read_it() -> None:
    texts = [*HOSTILE, *map("".join, SHAPES)]
    assert len(texts) > 500
    value = {"list": texts, "nested": [[{"key": texts}]], "keys": {text: 1 for text in texts if text.strip()}}
    written = dialect.write(value)
    assert dialect.read(written) == value
    assert OmegaConf.to_container(OmegaConf.create(written)) == value
    for number in (1e5, 1e-5, 1e16, 1e22, 0.1, 5e-324, 3, -1, True, None):
        assert dialect.read(dialect.write({"a": number}))["a"] == number


@pytest.mark.parametrize(
    "words",
    [
        ("name='t-${now:%f}'",),
        ("name='${now:%f}-x'", "runs_dir='r-${name}'"),
        ("id='${now:%H%M%S-%f}'",),
        ("name='${random_word:}'", "+data.cache='${random_word:}'"),
        ("train.steps='${random_number:}'", "seed='${random_number:}'"),
    ],
)
def test_what_gives_another_answer_each_time_is_asked_once(command: Command, words: tuple[str, ...]) -> None:
    from launcher.compose.compose import compose
    from launcher.compose.freeze import freeze

    command("plan", "+exp=cifar")
    count = itertools.count(7)
    OmegaConf.register_new_resolver("random_number", lambda: next(count), replace=True)
    OmegaConf.register_new_resolver("random_word", lambda: f"w{next(count)}", replace=True)
    texts = set[tuple[str, str]]()

    def look(config: DictConfig, overrides: list[str]) -> None:
        for _ in range(3):
            frozen = freeze(config, overrides)
            written = dialect.read(frozen.config)
            assert written["name"] == frozen.plan.name
            assert frozen.plan.run_dir.endswith(f"{written['runs_dir']}/{written['name']}/{frozen.plan.id}")
            texts.add((frozen.config.replace(frozen.plan.id, ""), frozen.plan.name))

    try:
        compose(["+exp=cifar", *words], look)
    finally:
        OmegaConf.clear_resolver("random_number")
        OmegaConf.clear_resolver("random_word")
    assert len(texts) == 1


def test_a_sweep_goes_to_one_place(command: Command) -> None:
    from launcher.compose.members import compose_members

    command("plan", "+exp=cifar")
    found = compose_members(["-m", "+exp=cifar", "seed=1,2,3", "runs_dir='r-${now:%f}'"])
    assert len({member.config.runs_dir for member in found}) == 1
    assert "$" not in found[0].config.runs_dir

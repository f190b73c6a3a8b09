"""What ships trains on any number of processes; what a user wrote is refused there or, if asked for, rounded once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import REPO, TOY, Answer

from launcher.compose import round_batch, trusted
from launcher.compose.compose import compose
from launcher.compose.freeze import Frozen, freeze, stored_cluster
from launcher.config import dialect
from launcher.errors import ConfigError
from launcher.rundir import rundir
from launcher.rundir.rundir import RunDir
from launcher.start.move import move

Command = Callable[..., Answer]
SHIPPED = sorted(path.stem for path in (REPO / "conf" / "exp").glob("*.yaml"))


def frozen_run(*words: str) -> Frozen:
    found: list[Frozen] = []
    compose(list(words), lambda config, overrides: found.append(freeze(config, overrides)))
    return found[0]


@pytest.mark.parametrize("exp", SHIPPED)
def test_an_experiment_that_ships_runs_on_any_number_of_processes(command: Command, exp: str) -> None:
    written = re.search(r"\s batch_size: (\d+)", (REPO / "conf" / "exp" / f"{exp}.yaml").read_text())
    assert written is not None
    for size in (*range(1, 17), 24):
        round_batch._say.cache_clear()
        done = command("plan", f"+exp={exp}", "cluster=slurm", f"cluster.processes_per_node={size}")
        assert (done.code, json.loads(done.out)["world"]["processes_per_node"]) == (0, size), done.err
        assert done.err.count("\n") <= 1
        assert ("train.batch_size=" in done.err) == (int(written[1]) % size != 0)


@pytest.mark.parametrize(
    ("words", "batch"),
    [
        (("cluster.processes_per_node=3",), 255),
        (("cluster.processes_per_node=5", "cluster.nodes=2"), 260),
        (("cluster.processes_per_node=3", "train.accumulate=4"), 252),
        (("cluster.processes_per_node=2",), 256),
        (("cluster.processes_per_node=1000",), 1000),
    ],
)
def test_the_number_is_frozen_and_not_to_be_rounded_again(command: Command, words: tuple[str, ...], batch: int) -> None:
    train = dialect.read(frozen_run("+exp=cifar", "cluster=slurm", *words).config)["train"]
    assert (train["batch_size"], train["round_batch"]) == (batch, False)


def test_a_sweep_says_it_once_and_without_the_key_it_is_refused(command: Command) -> None:
    round_batch._say.cache_clear()
    words = ("plan", *TOY, "cluster=slurm", "cluster.processes_per_node=3")
    assert command(*words).code == 2
    assert command(*words, "train.round_batch=true").err.count("train.batch_size=63, not 64") == 1
    assert command(*words, "train.round_batch=true", "seed=1").err == ""


def made(*words: str) -> RunDir:
    frozen = frozen_run(*words)
    here = rundir.create(Path(frozen.plan.run_dir))
    here.freeze(frozen.plan, frozen.config, frozen.script)
    trusted.note(["toyproject"])
    return here


def test_a_move_does_not_round_again(command: Command, tmp_path: Path) -> None:
    words = (*TOY, f"runs_dir={tmp_path}", "id=a", "train.round_batch=true", "cluster.processes_per_node=3", "cluster.device=cpu")
    here = made(*words)
    done = command("resume", str(here), "cluster.processes_per_node=2")
    assert done.code == 2
    assert "train.batch_size=63 is not divisible by 2 processes" in done.err
    assert "type cluster.processes_per_node= and one of 1, 3, 7, 9, 21, 63" in done.err
    assert dialect.read(here.config.read_text())["train"]["batch_size"] == 63


COUNTS = ("auto", "0x2", "1_6", "'2'", "1,2")


@pytest.mark.parametrize(
    "word",
    [
        *(f"cluster.processes_per_node={count}" for count in COUNTS),
        *("cluster.device=1e3", "cluster.device=null", "cluster.requeue=off", "cluster.requeue=False", "cluster.max_restarts=1.0"),
        *("+cluster.max_restarts=1", "cluster.procesess=2", "++cluster.max_restarts=2"),
    ],
)
def test_the_words_of_a_resume_mean_what_they_mean_at_a_start(command: Command, tmp_path: Path, word: str) -> None:
    words = (*TOY, f"runs_dir={tmp_path}", "id=a", "cluster.device=cpu", "cluster.processes_per_node=2")
    here = made(*words)
    start = command("plan", *words, word)
    if start.code:
        with pytest.raises(ConfigError) as caught:
            move(here, stored_cluster(here), [word])
        assert str(caught.value).partition(";")[0] in start.err
        return
    moved = move(here, stored_cluster(here), [word])
    assert json.loads(here.plan.read_text())["world"] == json.loads(start.out)["world"]
    assert moved == stored_cluster(here) == frozen_run(*words, word).cluster


def test_a_run_from_before_the_key_is_the_same_run(command: Command, tmp_path: Path) -> None:
    words = (*TOY, f"runs_dir={tmp_path}", "id=a", "cluster.device=cpu", "cluster.processes_per_node=2")
    here = made(*words)
    here.config.write_text(here.config.read_text().replace("  round_batch: false\n", ""))
    done = command("resume", str(here), "cluster.processes_per_node=3")
    assert (done.code, "one of 1, 2, 4, 8, 16, 32, 64" in done.err) == (2, True), done.err
    done = command(*words, "objective=val_loss", "train.on_bad=skip")
    assert "is a run with another config (train.on_bad: stop -> skip); choose" in done.err

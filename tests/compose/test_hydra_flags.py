"""Hydra's own flags keep working: --cfg, --info, --hydra-help, --config-dir, --multirun, tab completion."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from helpers import TOY, Answer, Launch, Sweep, records

Command = Callable[..., Answer]


def test_cfg_job_shows_the_config_and_starts_nothing(command: Command, toy_words: tuple[str, ...], tmp_path: Path) -> None:
    for verb in ((), ("run",), ("plan",), ("render",)):
        answer = command(*verb, *toy_words, "optim.lr=0.25", "--cfg", "job")
        assert (answer.code, answer.err) == (0, "")
        config = yaml.safe_load(answer.out)
        assert (config["name"], config["optim"]["lr"], config["train"]["epochs"]) == ("toy", 0.25, 4)
        assert "hydra" not in config
    assert list(tmp_path.iterdir()) == []


def test_resolve_is_what_shows_interpolations_resolved(command: Command, toy_words: tuple[str, ...]) -> None:
    words = (*toy_words, "name=a-${seed}", "seed=7", "--cfg", "job")
    assert yaml.safe_load(command(*words).out)["name"] == "a-${seed}"
    assert yaml.safe_load(command(*words, "--resolve").out)["name"] == "a-7"
    assert yaml.safe_load(command(*words, "--package", "optim").out) == yaml.safe_load(command(*words).out)["optim"]


def test_info_hydra_help_and_version_answer(launch: Launch) -> None:
    for words, said in (
        (("--hydra-help",), "--multirun"),
        (("--info", "config", *TOY), "Config search path"),
        (("--version",), "Hydra 1."),
    ):
        done = launch(*words)
        assert (done.returncode, done.stderr) == (0, ""), words
        assert said in done.stdout


def test_a_config_dir_of_ones_own_adds_an_exp(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "exp").mkdir(parents=True)
    (tmp_path / "mine" / "exp" / "small.yaml").write_text(
        "# @package _global_\n# python -m launcher --config-dir mine +exp=small\n"
        "defaults: [override /model: resnet8]\nname: small\nmodel: {width: 4}\n"
    )
    for spelling in ("+exp=small", "exp=small"):
        answer = command("--config-dir", "mine", spelling, "--cfg", "job")
        config = yaml.safe_load(answer.out)
        assert (config["name"], config["model"]["_target_"], config["model"]["width"]) == ("small", "models.resnet.resnet8", 4)


def test_a_flag_may_stand_anywhere(command: Command, toy_words: tuple[str, ...]) -> None:
    for words in (
        ("--multirun", *toy_words, "optim.lr=-1,-2"),
        (*toy_words, "optim.lr=-1,-2", "-m"),
        ("run", *toy_words, "-m", "optim.lr=-1,-2"),
    ):
        answer = command(*words)
        assert answer.code == 2
        assert [line.split(" cannot")[0].split()[-1] for line in answer.lines] == ["optim.lr=-1", "optim.lr=-2", "optim.lr=-1"]
    for words in (("--cfg", "job", *toy_words, "seed=3"), (*toy_words, "--cfg", "job", "seed=3"), (*toy_words, "--cfg=job", "seed=3")):
        assert yaml.safe_load(command(*words).out)["seed"] == 3


# ---------------------------------------------------------------- a sweep that trains


def test_a_failing_member_does_not_stop_the_next(sweep: Sweep) -> None:
    assert [json.loads(run.summary.read_text())["state"] for run in sweep.runs] == ["failed", "done"]
    assert sweep.done.returncode == 1  # the first failure's
    said = sweep.done.stderr.splitlines()
    assert len(said) == 3, said
    assert "loader.fail_at=0: rank 0 on " in said[0]
    assert "the toy broke on purpose" in said[0]
    assert "loader.fail_at='never' is not of type int | None" in said[1]
    assert "2 of the sweep's runs failed" in said[2]
    assert "Traceback" not in sweep.done.stdout + sweep.done.stderr
    assert sweep.done.stdout.splitlines()[-1] == str(sweep.runs[1])


def test_members_run_one_after_the_other(sweep: Sweep) -> None:
    first, second = sweep.runs
    assert max(event["time"] for event in records(first.events)) < min(event["time"] for event in records(second.events))
    assert first.summary.stat().st_mtime <= records(second.events)[0]["time"]
    assert [run.read_plan().overrides[-1] for run in sweep.runs] == ["loader.fail_at=0", "loader.fail_at=null"]


def test_everything_a_run_leaves_is_private(sweep: Sweep) -> None:
    for run in sweep.runs:
        for path in [run.path, *run.path.rglob("*")]:
            if not path.is_symlink():
                assert stat.S_IMODE(path.stat().st_mode) in ((0o700,) if path.is_dir() else (0o600,)), path


def test_what_ran_is_what_render_shows(sweep: Sweep, cache: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    done = sweep.runs[1]
    monkeypatch.chdir(sweep.home)
    answer = command("render", *sweep.words, "loader.fail_at=null", f"id={done.path.name}")
    assert answer.out == done.script.read_text()


def test_resume_of_a_run_that_is_done_says_so_and_trains_nothing(sweep: Sweep, launch: Launch) -> None:
    done = launch("resume", str(sweep.runs[1]))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("this run is done already\n")
    assert done.stdout.splitlines()[-1] == str(sweep.runs[1])
    assert sweep.runs[1].newest_attempt() == 0


# ---------------------------------------------------------------- tab completion


@pytest.fixture
def complete(tmp_path: Path, environment: dict[str, str]) -> Callable[[str], list[str]]:
    """What Tab offers behind a line, asked of a real bash with the console script on its PATH."""
    script = tmp_path / "bin" / "launcher"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom launcher.cli import main\nsys.exit(main())\n")
    script.chmod(0o700)
    env = {**environment, "PATH": f"{script.parent}{os.pathsep}{environment['PATH']}"}

    def call(line: str) -> list[str]:
        ask = 'eval "$(launcher -sc install=bash)"; COMP_POINT=${#COMP_LINE}; hydra_bash_completion; printf "%s\\n" "${COMPREPLY[@]}"'
        done = subprocess.run(
            ["bash", "-c", ask],
            env={**env, "COMP_LINE": line, "COMP_CWORD": str(line.count(" "))},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.split()

    return call


def test_tab_completes_exps_choices_and_keys(complete: Callable[[str], list[str]]) -> None:
    assert complete("launcher +exp=di") == ["+exp=digits"]
    assert {"model=resnet8", "model=resnet18", "model=resnet20", "model=resnet50"} <= set(complete("launcher model=res"))
    assert complete("launcher train.batch") == ["train.batch_size="]

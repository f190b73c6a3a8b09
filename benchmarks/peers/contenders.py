"""Who takes part: each with the command its own documentation opens with, adapted to 2 nodes of 2 processes on CPU."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from peers import scripts

REPO = Path(__file__).resolve().parents[2]
PROJECT = Path(__file__).with_name("project")

STEPS, WORLD = 40, 4


@dataclass(frozen=True)
class Wish:
    """What one run is to be like, whoever starts it."""

    members: int = 1
    minutes: int = 10
    warning: int | None = None
    """Seconds before the limit; who has such an option gets it, together with that for requeueing."""
    memory_gb: int | None = None
    script: str = ""
    """One of benchmarks/families in the place of the contender's own."""


@dataclass(frozen=True)
class Contender:
    name: str
    prepare: Callable[[Path, Path], None]
    """(working directory, virtual environment of the peers)"""
    command: Callable[[Wish], list[str]]
    results: Callable[[Path], list[bool]]
    """Of a working directory: for each result that is there, whether it is right."""
    packages: tuple[str, ...] = ()
    logs: tuple[str, ...] = ()
    """Globs in the working directory, what says most about a failure first."""

    def environment(self, directory: Path, venv: Path) -> dict[str, str]:
        keep = {key: os.environ[key] for key in ("HOME", "USER", "LANG", "TMPDIR") if key in os.environ}
        path = os.environ.get("PATH", "")
        if not self.packages:
            mine = {"PATH": f"{Path(sys.executable).parent}:{path}", "PYTHONPATH": f"{directory / 'project'}:{REPO}"}
        else:
            mine = {"PATH": f"{venv / 'bin'}:{path}", "VIRTUAL_ENV": str(venv), "ACCELERATE_DIR": str(directory)}
        return {**keep, "SLURM_CONF": os.environ["SLURM_CONF"], "XDG_STATE_HOME": str(directory / ".state"), **mine}


def _own_files(directory: Path, venv: Path) -> None:
    shutil.copytree(REPO / "tests/project", directory / "project", ignore=shutil.ignore_patterns("__pycache__"))


def _own_command(wish: Wish) -> list[str]:
    if wish.script:
        return scripts.own(wish.script, wish.minutes)
    return [
        *("python", "-m", "launcher", "--config-dir", "project/conf", "+exp=toy", "cluster=slurm", "cluster.nodes=2"),
        *("cluster.processes_per_node=2", "cluster.device=cpu", "cluster.cpus_per_process=1", f"cluster.time={wish.minutes}:00"),
        *([f"cluster.warning={wish.warning}"] if wish.warning else []),
        *([f"cluster.memory={wish.memory_gb}G"] if wish.memory_gb else []),
        *(["-m", f"seed=range({wish.members})"] if wish.members > 1 else []),
    ]


def _own_results(directory: Path) -> list[bool]:
    found = [json.loads(path.read_text()) for path in directory.glob("runs/**/summary.json")]
    world = "2 nodes x 2 processes on cpu"
    return [run["steps"] == STEPS and run["world"] == world for run in found if run["state"] == "done"]


def _peer_files(directory: Path, venv: Path) -> None:
    for path in PROJECT.iterdir():
        if path.is_file():
            shutil.copy(path, directory)


def _peer_results(directory: Path) -> list[bool]:
    wanted = {"world": WORLD, "steps": STEPS, "sum": float(STEPS * sum(range(1, WORLD + 1)))}
    return [json.loads(path.read_text()) == wanted for path in directory.glob("out/member-*/result.json")]


def _torchx(wish: Wish) -> list[str]:
    """No sweeps there: one command per member."""
    if wish.script:
        return scripts.torchx(wish.script, wish.minutes)
    words = [
        *("torchx", "run", "-s", "slurm", "-cfg", f"partition=batch,time={wish.minutes}", "dist.ddp", "-j", "2x2", "--script", "train.py"),
        *(["--max_retries", "3"] if wish.warning else []),
        *(["--memMB", str(wish.memory_gb * 1000)] if wish.memory_gb else []),
        "--",
    ]
    if wish.members == 1:
        return [*words, "out/member-0"]
    return ["bash", "-c", f"for n in $(seq {wish.members}); do {shlex.join(words)} out/member-$n; done"]


def _hydra(wish: Wish) -> list[str]:
    if wish.script:
        return scripts.submitit(wish.script, wish.minutes)
    launcher = {
        "partition": "batch",
        "nodes": 2,
        "tasks_per_node": 2,
        "cpus_per_task": 1,
        "timeout_min": wish.minutes,
        **({"signal_delay_s": wish.warning, "max_num_timeout": 10} if wish.warning else {}),
        **({"mem_gb": wish.memory_gb} if wish.memory_gb else {}),
    }
    member = f"+member=range({wish.members})" if wish.members > 1 else "+member=0"
    options = [f"hydra.launcher.{key}={value}" for key, value in launcher.items()]
    return ["python", "train_hydra.py", "-m", "hydra/launcher=submitit_slurm", *options, member]


def _accelerate_files(directory: Path, venv: Path) -> None:
    _peer_files(directory, venv)
    (directory / "activateEnvironment.sh").write_text(f"source {shlex.quote(str(venv / 'bin/activate'))}\n")


def _repaired_files(directory: Path, venv: Path) -> None:
    """https://github.com/huggingface/accelerate/issues/3206"""
    _accelerate_files(directory, venv)
    script = directory / "submit_multinode.sh"
    script.write_text(script.read_text().replace("    --multi_gpu \\\n", "    --multi_gpu \\\n    --machine_rank 0 \\\n"))


def _accelerate(wish: Wish) -> list[str]:
    if wish.script:
        return scripts.accelerate(wish.script, wish.minutes)
    options = [f"--time={wish.minutes}", *([f"--mem={wish.memory_gb}G"] if wish.memory_gb else [])]
    return ["sbatch", *options, *([f"--array=0-{wish.members - 1}"] if wish.members > 1 else []), "submit_multinode.sh"]


_SLURM_FILES = ("E-*", "slurm-*.err", "slurm-*.out", "O-*")
_ACCELERATE = ("accelerate", "torch")

CONTENDERS = {
    each.name: each
    for each in (
        Contender("launcher", _own_files, _own_command, _own_results, (), ("runs/**/*.log", "runs/**/job.*")),
        Contender("torchx", _peer_files, _torchx, _peer_results, ("torchx", "torch"), _SLURM_FILES),
        Contender(
            "hydra-submitit",
            _peer_files,
            _hydra,
            _peer_results,
            ("hydra-core", "hydra-submitit-launcher", "submitit", "torch"),
            ("multirun/**/*_log.err", "multirun/**/*_log.out", "logs/*_log.err", "logs/*_log.out"),
        ),
        Contender("accelerate", _accelerate_files, _accelerate, _peer_results, _ACCELERATE, _SLURM_FILES),
        Contender("accelerate-repaired", _repaired_files, _accelerate, _peer_results, _ACCELERATE, _SLURM_FILES),
    )
}

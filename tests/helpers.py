"""What the tests share that is no fixture; the fixtures are in conftest.py."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from launcher.rundir.claim import Claim
from launcher.rundir.rundir import RunDir

REPO = Path(__file__).resolve().parent.parent
PROJECT = REPO / "tests" / "project"
TOY = ("--config-dir", str(PROJECT / "conf"), "+exp=toy")
VERBS = ("run", "render", "plan")

_FOREIGN = ("ACCELERATE_", "FSDP_", "PARALLELISM_CONFIG_", "TORCHELASTIC_", "PET_", "LAUNCHER_", "HYDRA_", "SLURM_")
_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK")


def environment_in(home: Path, cache: Path) -> dict[str, str]:
    """The environment of a process that a test starts: this checkout, the toy project, and nothing of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if name not in _RANKS and not name.startswith(_FOREIGN)}
    paths = [str(REPO), str(PROJECT), *filter(None, [kept.get("PYTHONPATH")])]
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(paths),
        "XDG_STATE_HOME": str(home / "state"),
        "LAUNCHER_CACHE": str(cache),
        "HF_HUB_OFFLINE": "1",
    }


class Started(subprocess.Popen[bytes]):
    """A launcher that runs beside the test. `out` and `err` are the files its streams go to."""

    out: Path
    err: Path


ON_SLURM = ("cluster=slurm", "cluster.device=cpu")
Launch = Callable[..., "subprocess.CompletedProcess[str]"]


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """What stderr says beside warnings."""
        return [line for line in self.err.splitlines() if not line.startswith("launcher: warning:")]


Command = Callable[..., Answer]
"""`python -m launcher *words` inside this process."""


class Sweep(NamedTuple):
    done: subprocess.CompletedProcess[str]
    heavy: str
    """Which of torch, accelerate, numpy and safetensors the launcher's own process had imported at its end."""
    runs: list[RunDir]
    words: tuple[str, ...]
    home: Path


def claimed(path: Path, attempt: int = 0) -> Claim:
    """The claim of a run directory, taken."""
    claim = Claim(RunDir(path), attempt)
    claim.take()
    return claim


HEADWAY = ("export: ", "evaluate: ")


def refused(answer: Answer, code: int, *parts: str) -> None:
    """Assert the shape of every refusal: the exit code, one line on stderr that has `parts` in it, nothing on stdout. What a verb says of
    how far it is comes before it, and is none."""
    assert answer.code == code, answer
    assert answer.out == ""
    assert "Traceback" not in answer.err
    lines = [line for line in answer.lines if not line.startswith(HEADWAY)]
    assert len(lines) == 1, answer.err
    assert lines[0].startswith("launcher: ")
    for part in parts:
        assert part in lines[0], answer.err


def refused_process(done: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    """The same of a process."""
    refused(Answer(done.returncode, done.stdout, done.stderr), code, *parts)


def run_dir(done: subprocess.CompletedProcess[str] | Answer) -> Path:
    """The run directory, which `run` prints as its last line."""
    out = done.out if isinstance(done, Answer) else done.stdout
    return Path(out.splitlines()[-1])


def records(path: Path) -> list[dict[str, Any]]:
    """The objects of a .jsonl file, every line of which must be whole."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

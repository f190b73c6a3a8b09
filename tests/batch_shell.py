"""The batch shell alone, in bash, with a scheduler and a step that do as they are told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from helpers import REPO

from launcher.clusters.slurm import Slurm
from launcher.plan import Plan, World

STEP = """printf 'done\\n' >"$run/attempts/$LAUNCHER_ATTEMPT/outcome"; env >"$run/seen\""""
STUBS = f"""
export SLURM_JOB_ID=7 SLURM_JOB_NUM_NODES=1 SLURM_JOB_NODELIST=node1
hostname() {{ echo 10.0.0.1; }}
scontrol() {{ case "$1" in show) echo "JobState=RUNNING" ;; esac; }}
timeout() {{ if [ "$3" = scontrol ]; then "${{@:3}}"; else command timeout "$@"; fi; }}
srun() {{ case "$*" in *launcher.node*) {STEP} ;; esac; }}
"""


class Shell:
    """A run directory, and its job script with stubs in front."""

    def __init__(self, place: Path) -> None:
        self.stubs = STUBS
        self.run = place / "runs" / "toy" / "a"
        for name in ("attempts", "checkpoints"):
            (self.run / name).mkdir(parents=True, exist_ok=True)
        self.plan = Plan(
            name="toy", id="a", run_dir=str(self.run), world=World(1, 1, "cpu"), threads=1, max_restarts=0, python=sys.executable,
            directory=str(place), project=str(REPO), env=(), config_hash="", code_hash="", overrides=(), version="0",
            told=tuple(Slurm.told.items()),
        )  # fmt: skip
        (self.run / "plan.json").write_text(self.plan.to_json())

    def attempt(self, number: int, **files: str) -> None:
        place = self.run / "attempts" / f"{number:03d}"
        place.mkdir()
        for name, text in {"job": "7", "checkpoint": f"step_{number:09d}", **files}.items():
            (place / name).write_text(f"{text}\n")

    def start(self, text: str | None = None, **options: object) -> tuple[int, str]:
        if text is not None:
            (self.run / "prelude").mkdir()
            (self.run / "prelude" / "site.sh").write_text(text)
            options["prelude"] = "site.sh"
        script = Slurm(device="cpu", time="10:00", **options).render(self.plan)  # type: ignore[arg-type]
        first, rest = script.split("\n", 1)
        (self.run / "job.sh").write_text(f"{first}\n{self.stubs}\n{rest}")
        done = subprocess.run(["bash", self.run / "job.sh"], capture_output=True, text=True, check=False, timeout=60)
        return done.returncode, done.stdout + done.stderr

    def events(self, name: str) -> list[dict[str, object]]:
        found = [json.loads(line) for line in (self.run / "events.jsonl").read_text().splitlines()]
        return [event for event in found if event["event"] == name]

"""The oldest SLURM that works: everything that is asked of its programs, by a verb or a job, is an option that version knew."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from helpers import Command, refused, run_dir
from old_slurm import OldSlurm

OLDEST = "17.11"
SCANCEL = """\
# The job leaves the queue.
for last; do :; done
while IFS= read -r line; do [[ "$line" == "$last|"* ]] || printf '%s\\n' "$line"; done <"$home/queue" >"$home/queue.new"
mapfile -t left <"$home/queue.new"; : >"$home/queue"; [ "${#left[@]}" = 0 ] || printf '%s\\n' "${left[@]}" >"$home/queue"
"""


@pytest.fixture
def old(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> OldSlurm:  # command: it sets PATH up first
    slurm = OldSlurm(tmp_path / "slurm", OLDEST)
    slurm.answers("scancel", SCANCEL)
    slurm.answers("sacct", "echo 'FAILED|1:0|node1'")
    slurm.instead(monkeypatch)
    return slurm


def _job(old: OldSlurm, run: Path, number: str) -> tuple[int, str]:
    """The run's script, as a job on one node."""
    env = {
        **os.environ,
        "PATH": old.path,
        "SLURM_JOB_ID": number,
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_NODELIST": "node1",
        "LAUNCHER_INTERFACE": "",
    }
    script = (run / "job.sh").read_text().replace("\n", "\nhostname() { echo 10.0.0.1; }\n", 1)
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_submit_status_cancel_resume_why_and_collect(
    command: Command,
    on_slurm: tuple[str, ...],
    old: OldSlurm,
) -> None:
    run = run_dir(command(*on_slurm, "cluster.memory=4G", "cluster.exclude=node9", "name=old"))
    assert " queued " in command("status", str(run)).out
    assert "it waits" in command("why", str(run)).out
    refused(command("resume", str(run)), 3, "already")
    assert command("cancel", str(run)).code == 0
    assert " cancelled " in command("status", str(run)).out
    old.sbatch("accept 124; echo 124")
    assert command("resume", str(run)).code == 0
    old.test_only("fail 'allocation failure: Requested node configuration is not available'")
    old.sinfo("echo down")
    sweep = command(*on_slurm, "-m", "name=sweep", "seed=1,2")
    assert sweep.code == 0
    assert "by val_accuracy" in command("collect", sweep.out.splitlines()[-1]).out

    old.scontrol("case \"$*\" in *show*) echo 'JobState=RUNNING EndTime=2099-01-01T00:00:00 ExcNodeList=(null) ' ;; esac")
    old.answers("srun", 'case "$*" in *launcher.node*) exit 1 ;; esac')
    (old.home / "queue").write_text("")
    status, said = _job(old, run, "124")
    assert status == 1, said
    assert "the step ended with status 1" in said, "its node answers, though it knows no --overlap"
    assert "sacct: FAILED 1:0 node1" in command("why", str(run)).out
    old.answers("srun", "case \"$*\" in *launcher.node*) exit 1 ;; *) echo 'srun: error: Unable to create step' >&2; exit 1 ;; esac")
    status, said = _job(old, run, "124")
    assert "requeued: a node of node1 no longer answers" in said

    assert {line for line in old.refused if "overlap" not in line and "Reason" not in line} == set()
    assert old.asked == {"sbatch", "squeue", "sacct", "scancel", "scontrol", "sinfo", "srun"}
    assert json.loads((run / "plan.json").read_text())["name"] == "old"


def test_gpus_are_asked_for_as_it_knows_them(
    command: Command,
    on_slurm: tuple[str, ...],
    old: OldSlurm,
) -> None:
    refused(command(*on_slurm, "cluster.device=cuda"), 4, "unrecognized option '--gpus-per-node'", "type cluster.gpu_request=gres")
    assert old.submitted == []
    assert command(*on_slurm, "cluster.device=cuda", "cluster.gpu_request=gres").code == 0
    refused(command(*on_slurm, "+cluster.sbatch.prefer=a100", "name=b"), 4, "unrecognized option '--prefer'")

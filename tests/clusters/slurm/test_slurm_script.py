"""A script of the user's own on a real scheduler: preempted, at its time limit; one command is typed, no more. `make test-slurm`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import small_scripts
from batch_jobs import Batch
from processes import events, finish, wait_for
from test_slurm_night import preempt

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(900)]

PROGRESS = r'script.progress="iter (?P<step>\d+)/(?P<total>\d+) loss (?P<loss>\S+)"'


def iterations(run: Path) -> list[tuple[int, str]]:
    """Steps and losses of all attempts, in their order."""
    logs = sorted(run.glob("attempts/[0-9]*/rank_0.log"))
    return [(int(step), loss) for log in logs for step, loss in re.findall(r"^iter (\d+)/\d+ loss (\S+)", log.read_text(), re.MULTILINE)]


def words(folder: Path, steps: int) -> list[str]:
    file = small_scripts.written(folder, "train.py", small_scripts.DDP)
    return [
        f"script={file}",
        f"script.args=[--steps,{steps}]",
        "script.resume_args=[--resume,auto]",
        PROGRESS,
        f"runs_dir={folder / 'runs'}",
    ]


def test_a_plain_script_is_preempted_and_meets_its_limit_and_loses_no_step(batch: Batch, tmp_path: Path) -> None:
    on_two = ("cluster=slurm", "cluster.device=cpu", "cluster.nodes=2", "cluster.processes_per_node=2", "cluster.shared_filesystem=true")
    steps = 600
    done = batch(*words(tmp_path, steps), *on_two, "id=a", "cluster.time=1:00", "cluster.warning=20")
    assert done.returncode == 0, done.stderr
    run = Path(done.stdout.splitlines()[-1])
    assert (run / "code/script-code/train.py").is_file()
    (tmp_path / "train.py").write_text("raise SystemExit('the file of today, not the one that was submitted')")
    wait_for(lambda: len(iterations(run)) > 60, 120, "sixty steps")
    preempt(batch, run)
    summary = batch.finish(run, 480)
    assert summary["steps"] == steps
    assert summary["attempts"] >= 3, "the preemption and the limit"
    reasons = {str(event["reason"]) for event in events(run, "requeued")}
    assert any("told to stop" in reason for reason in reasons), reasons
    assert any("limit" in reason for reason in reasons), reasons
    (tmp_path / "train.py").write_text(small_scripts.DDP)
    whole = finish(tmp_path, [*words(tmp_path, steps), "cluster.processes_per_node=4", "id=whole", "script.args=[--steps,600,--pause,0]"])
    assert whole.returncode == 0, whole.stderr
    assert [step for step, _ in iterations(run)] == list(range(1, steps + 1)), "each step once"
    assert iterations(run) == iterations(tmp_path / "runs/train/whole")

"""`from launcher.script import run` in a plain script: killed, stopped, and under plain torchrun."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import small_scripts
from processes import descendants, environment, finish, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def losses(run: Path, rank: int) -> dict[int, str]:
    """Of all attempts, to the last bit; a step that was done again has to come to the same."""
    found: dict[int, str] = {}
    for log in sorted(run.glob(f"attempts/[0-9]*/rank_{rank}.log")):
        for step, loss in re.findall(r"^iter (\d+) loss (\S+)$", log.read_text(), re.MULTILINE):
            assert found.setdefault(int(step), loss) == loss, f"step {step} of rank {rank} in {log}"
    return found


def newest(run: Path) -> int:
    return max((int(path.name[5:]) for path in run.glob("checkpoints/step_*")), default=0)


def theirs(pid: int, file: Path) -> list[psutil.Process]:
    """The script's processes, and those that stay with them."""
    found: list[psutil.Process] = []
    for child in descendants(pid):
        try:
            if str(file) in child.cmdline() or (
                "launcher.scripted" in child.cmdline() and "launcher.train.torchrun" not in child.cmdline()
            ):
                found.append(child)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.full)])
def test_killed_again_and_again_it_comes_to_the_same_losses(tmp_path: Path, kills: int) -> None:
    steps, draw = 40 * (kills + 1), random.Random(20261128 + kills)
    file = small_scripts.written(tmp_path, "train.py", small_scripts.TWO_LINES)
    words = [f"script={file}", "cluster.processes_per_node=2"]
    done = finish(tmp_path, [*words, f"script.args=[{steps},0]", "id=whole"], timeout=200)
    assert done.returncode == 0, done.stderr
    run, killed = tmp_path / "runs/train/killed", 0
    with running(tmp_path, [*words, f"script.args=[{steps},0.05]", "id=killed"]) as process:
        while killed < kills and process.poll() is None:
            before = newest(run)
            while newest(run) <= before and process.poll() is None:
                time.sleep(0.05)
            time.sleep(draw.uniform(1, 3))  # an attempt that trains for less than a tenth of its time counts for nothing
            if victims := theirs(process.pid, file):
                draw.choice(victims).kill()
                killed += 1
        _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert killed == kills
    attempts = len(list(run.glob("attempts/[0-9]*")))
    print(f"{killed} kills, {attempts} attempts, {steps} steps")
    for rank in (0, 1):
        assert losses(run, rank) == losses(tmp_path / "runs/train/whole", rank)
        assert len(losses(run, rank)) == steps
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["state"], summary["steps"]) == ("done", steps)
    lines = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines == sorted(set(lines)), "each step once"
    assert list((run / "tb").glob("events*"))


def test_all_ranks_stop_at_one_step_and_go_on_from_it(tmp_path: Path) -> None:
    file = small_scripts.written(tmp_path, "train.py", small_scripts.TWO_LINES)
    words = [f"script={file}", "cluster.processes_per_node=2", "script.args=[400,0.02]", "id=a", "script.stop_signal=USR1"]
    run = tmp_path / "runs/train/a"
    with running(tmp_path, words) as process:
        while newest(run) < 10 and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    last = [max(losses(run, rank)) for rank in (0, 1)]
    assert last[0] == last[1] == newest(run) == json.loads((run / "summary.json").read_text())["steps"]
    assert f"stopped at step {last[0]} and saved" in err


def test_under_plain_torchrun_it_does_nothing(tmp_path: Path) -> None:
    file = small_scripts.written(tmp_path, "train.py", small_scripts.TWO_LINES)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(file), "5", "0"]
    done = subprocess.run(
        words, cwd=tmp_path, env={**environment(tmp_path), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("iter 5 loss") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]

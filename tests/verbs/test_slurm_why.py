"""`why RUN` on the real SLURM."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from batch_jobs import Batch
from helpers import PROJECT
from made_runs import said

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]


def test_an_exception_of_one_rank_on_two_nodes(batch: Batch) -> None:
    run = batch.submit("cluster.nodes=2", "loader.fail_at=3")
    assert batch.wait_until_over(run) == "FAILED"
    answer = said(batch("why", str(run)).stdout)
    assert answer["verdict"] == "RuntimeError: the toy broke on purpose"
    assert answer["where"] == "rank 1 on node2, attempt 0, step 3"
    assert "attempts/000/rank_1.log: RuntimeError: the toy broke on purpose" in answer["because"]
    assert "start a new run" in answer["next"]


def test_scancel(batch: Batch) -> None:
    run = batch.submit("train.steps=1000000")
    batch.wait_for_step(run, 3)
    assert said(batch("why", str(run)).stdout)["verdict"].startswith("it runs, at step ")
    batch.cluster.slurm("scancel", batch.job(run))
    assert batch.wait_until_over(run) == "CANCELLED"
    answer = said(batch("why", str(run)).stdout)
    assert answer["verdict"] == "cancelled with scancel"
    assert "CANCELLED" in answer["because"]
    assert "resume" in answer["next"]


def test_a_job_that_waits(batch: Batch) -> None:
    later = batch.submit("id=later", "+cluster.sbatch.begin=now+1hour")
    held = batch.submit("id=held", "+cluster.sbatch.hold=true")
    answer = said(batch("why", str(later)).stdout)
    assert "its time has not come" in answer["verdict"]
    assert "estimated start 20" in answer["because"]
    answer = said(batch("why", str(held)).stdout)
    assert answer["verdict"].endswith("(JobHeldUser)")
    assert answer["next"] == f"scontrol release {batch.job(held)}"
    assert batch("cancel", str(held)).returncode == 0
    assert "was cancelled before it began" in said(batch("why", str(held)).stdout)["verdict"]


def test_a_module_that_the_nodes_lack(batch: Batch, tmp_path: Path) -> None:
    package, conf = tmp_path / "lib" / "broken", tmp_path / "conf"
    package.mkdir(parents=True)
    shutil.copytree(PROJECT / "conf", conf)
    (package / "__init__.py").touch()
    (package / "net.py").write_text("import nowhere.kernels\n\nclass Net:\n    def __init__(self, num_classes: int = 4) -> None: ...\n")
    (conf / "model" / "broken.yaml").write_text("_target_: broken.net.Net\nnum_classes: 4\n")
    (conf / "exp" / "broken.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /model: broken\n  - override /data: blobs\nname: toy\ntrust: [toyproject, broken]\n"
        "train: {epochs: 1, batch_size: 64, precision: fp32}\n"
    )
    words = [word for word in batch.words if word not in ("+exp=toy", "--config-dir")]
    words = ["--config-dir", str(conf), "+exp=broken", *(word for word in words if word != str(PROJECT / "conf"))]
    paths = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(tmp_path / "lib"), str(PROJECT)])
    done = batch(*words, "cluster.nodes=2", env={"PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr
    run = Path(done.stdout.splitlines()[-1])
    assert batch.wait_until_over(run) == "FAILED"
    answer = said(batch("why", str(run)).stdout)
    assert answer["verdict"] == "the environment of the nodes has no module nowhere"
    assert answer["where"].startswith("rank ")

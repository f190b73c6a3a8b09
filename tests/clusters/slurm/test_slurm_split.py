"""A model that is split over nodes, on a real scheduler: preempted, and resumed split in another way. `make test-slurm`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from batch_jobs import Batch
from processes import events, losses, wait_for
from split_runs import language, trained
from test_slurm_night import preempt

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = ("train.steps=240", "train.save_every=10")
ON_TWO_NODES = ("cluster=slurm", "cluster.device=cpu", "cluster.nodes=2", "cluster.processes_per_node=2", "cluster.shared_filesystem=true")


def test_fsdp_over_two_nodes_is_preempted_and_resumed_as_tp_and_fsdp(batch: Batch, tmp_path: Path) -> None:
    done = batch(*language(tmp_path, "split", *STEPS), *ON_TWO_NODES, "strategy=fsdp")
    assert done.returncode == 0, done.stderr
    run = Path(done.stdout.splitlines()[-1])
    batch.wait_for_step(run, 30)
    preempt(batch, run)
    batch.wait_for_step(run, 60, attempt=1)
    assert batch("cancel", str(run)).returncode == 0
    batch.wait_until_over(run)
    refused = batch("resume", str(run), "cluster.nodes=1")
    assert refused.returncode == 2
    assert "a batch job keeps the nodes it was submitted for; leave cluster.nodes=1 out" in refused.stderr
    resumed = batch("resume", str(run), "strategy=tp", "strategy.tp=2")
    assert resumed.returncode == 0, resumed.stderr
    wait_for(lambda: bool(events(run, "done")), 240, "the end")
    assert json.loads((run / "plan.json").read_text())["mesh"] == {"dp_replicate": 1, "dp_shard": 2, "cp": 1, "tp": 2, "pp": 1}
    started = events(run, "started")
    assert [event["attempt"] for event in started] == [0, 1, 2]
    assert all(event["step"] > 0 for event in started[1:])
    whole = losses(trained(tmp_path, "whole", "one", *STEPS))
    got = losses(run)
    assert got.keys() == whole.keys()
    assert max(abs(got[step] - whole[step]) / whole[step] for step in whole) <= 1e-4, "240 steps of a model that learns a text by heart"

"""What users bring, each one file and one yaml of tests/project: a strategy, a task and a data set. Nothing in launcher/ knows them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from processes import PROJECT, finish, losses
from test_kill import shards

from launcher.plan import Mesh

STRATEGY, TASK_AND_DATA = ("+exp=toy", "strategy=averaging"), ("+exp=squares",)
ALL = ("+exp=squares", "strategy=averaging", "train.accumulate=2")


def words(home: Path, name: str, *more: str) -> list[str]:
    return [
        "--config-dir",
        str(PROJECT / "conf"),
        f"runs_dir={home / 'runs'}",
        f"id={name}",
        "name=toy",
        "train.steps=24",
        "train.save_every=5",
        *more,
    ]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("brought", "processes"),
    [
        pytest.param(STRATEGY, 2, marks=pytest.mark.full, id="strategy"),
        pytest.param(TASK_AND_DATA, 1, marks=pytest.mark.full, id="task and data set"),
        pytest.param(ALL, 1, id="all of them"),
        pytest.param(ALL, 2, id="all of them on two"),
    ],
)
def test_killed_and_resumed_it_is_equal_to_the_bit(tmp_path: Path, brought: tuple[str, ...], processes: int) -> None:
    asked = (*brought, f"cluster.processes_per_node={processes}")
    for name, extra in (("whole", {}), ("killed", {"TOY_ENDS_AFTER": "13 SIGKILL"})):
        done = finish(tmp_path, words(tmp_path, name, *asked), timeout=300, **extra)
        assert done.returncode == 0, done.stderr
    whole, killed = (tmp_path / "runs" / "toy" / name for name in ("whole", "killed"))
    assert len(list((killed / "attempts").glob("[0-9]*"))) > 1
    assert losses(killed) == losses(whole)
    assert shards(killed) == shards(whole)
    assert losses(whole)[24] < losses(whole)[1]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_parts_of_one_replica_see_the_same_batch_and_are_one_process(tmp_path: Path) -> None:
    """But for the last digits: one process has both cores, and adds in another order."""
    for name, more in (("one", ()), ("two", ("strategy=twins", "cluster.processes_per_node=2"))):
        done = finish(tmp_path, words(tmp_path, name, "+exp=toy", "train.batch_size=25", *more))
        assert done.returncode == 0, done.stderr
    one, two = (tmp_path / "runs" / "toy" / name for name in ("one", "two"))
    expected, got = losses(one), losses(two)
    assert got.keys() == expected.keys()
    assert max(abs(got[step] - expected[step]) / expected[step] for step in expected) < 1e-5
    ends = [json.loads((run / "summary.json").read_text()) for run in (one, two)]
    assert ends[0]["val_loss"] == pytest.approx(ends[1]["val_loss"], rel=1e-5)
    assert json.loads((two / "plan.json").read_text())["mesh"] == {"dp_replicate": 1, "dp_shard": 1, "cp": 1, "tp": 2, "pp": 1}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_unequal_weights_are_weighed_over_micro_batches_and_ranks(tmp_path: Path) -> None:
    """How many targets are known differs from share to share: a mean of means would be another gradient."""
    for name, more in (("one", ()), ("four", ("train.accumulate=2", "cluster.processes_per_node=2"))):
        done = finish(tmp_path, words(tmp_path, name, "+exp=squares", *more))
        assert done.returncode == 0, done.stderr
    one, four = (losses(tmp_path / "runs" / "toy" / name) for name in ("one", "four"))
    assert max(abs(four[step] - one[step]) / one[step] for step in one) < 1e-5


def test_the_coordinates_of_a_mesh_are_all_there_is_once() -> None:
    mesh = Mesh(2, 3, cp=2, tp=2, pp=2)
    places = [mesh.at(rank) for rank in range(mesh.size)]
    assert len(set(places)) == mesh.size == 48
    assert {place.dp_rank for place in places} == {*range(6)}
    assert [place.tp for place in places[:4]] == [0, 1, 0, 1], "parts of a layer are neighbours"
    assert sum(place.counts for place in places) == 6 * 2, "each share, each part of its sequences, once"

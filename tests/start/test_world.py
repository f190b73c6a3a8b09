"""A run that goes on in another world: the same samples in each update, the same losses but for rounding; or one line that says why not."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from processes import events, finish, losses, running, toy_words, wait_for
from safetensors.torch import load_file

from launcher.plan import Mesh
from launcher.train import seeds

LINEAR = ("model._target_=toyproject.net.Linear", "~model.width", "~model.fill", "model.dropout=0")
"""No norm over a batch and no dropout: what it computes does not depend on who computes it."""
WORDS = ("id=a", *LINEAR, "train.steps=200", "train.save_every=7")


def stop_at(home: Path, words: list[str], step: int) -> None:
    """Of this attempt: on a busy machine the one before may have come further than `step` by the time that it stopped."""
    run = home / "runs" / "toy" / "a"
    attempts = len(events(run, "started"))
    with running(home, words, TOY_STEP_SECONDS="0.03") as process:
        wait_for(lambda: len(events(run, "started")) > attempts, what="the start")
        until = max(step, events(run, "started")[-1]["step"] + 2)
        wait_for(lambda: max(losses(run), default=0) >= until, what=f"step {until}")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130, err


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_one_four_two(tmp_path: Path) -> None:
    moved, whole = tmp_path / "moved", tmp_path / "whole"
    for home in (moved, whole):
        home.mkdir()
    words = (*WORDS, "cluster.processes_per_node=2")
    assert finish(whole, toy_words(whole / "runs", *words)).returncode == 0
    run = str(moved / "runs" / "toy" / "a")
    stop_at(moved, toy_words(moved / "runs", *words), 50)
    what_cannot_be_is_one_line(moved, Path(run))
    stop_at(moved, ["resume", run, "cluster.processes_per_node=1"], 90)
    stop_at(moved, ["resume", run, "cluster.processes_per_node=4"], 130)
    newest = max((Path(run) / "checkpoints").glob("step_*"))
    began = [
        int.from_bytes(bytes(load_file(newest / f"rank_{rank}.safetensors")["generator|cpu"][:8].tolist()), "little") for rank in range(4)
    ]
    joined = events(Path(run), "started")[-1]["step"]
    assert began[1:] == [seeds.of_coordinate(0, Mesh(4).at(rank), joined) for rank in (1, 2, 3)], (
        "who joins draws nothing that was drawn before"
    )
    done = finish(moved, ["resume", run, "cluster.processes_per_node=2"])
    assert done.returncode == 0, done.stderr

    assert [event["world"] for event in events(Path(run), "moved")] == [
        "1 node x 1 process on cpu",
        "1 node x 4 processes on cpu",
        "1 node x 2 processes on cpu",
    ]
    expected, got = losses(whole / "runs" / "toy" / "a"), losses(Path(run))
    assert got.keys() == expected.keys()
    assert max(abs(got[step] - expected[step]) / expected[step] for step in expected) < 1e-5


def what_cannot_be_is_one_line(home: Path, run: Path) -> None:
    plan = (run / "plan.json").read_text()
    for change, said in (
        ("cluster.processes_per_node=3", "train.batch_size=64"),
        ("optim.lr=0.1", "only where a run runs can change"),
        ("cluster.processes=3", "did you mean cluster.processes_per_node?"),
        ("cluster._target_=os.system", "only where a run runs can change"),
    ):
        refused = finish(home, ["resume", str(run), change])
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1
        assert said in refused.stderr
    assert (run / "plan.json").read_text() == plan

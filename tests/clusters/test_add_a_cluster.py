"""CONTRIBUTING.md, "To add a cluster": its files are written as they stand there, its commands typed as they stand there, RUN
in them being what the first of them printed."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import Launch, records, run_dir
from processes import wait_for
from worked_examples import of

SMALL = ("train.steps=2", "train.batch_size=16", "train.eval_every=0", "model=resnet8")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_cluster_of_the_worked_example_starts_a_run_and_lets_go(tmp_path: Path, launch: Launch) -> None:
    example = of("To add a cluster")
    example.write(tmp_path)
    run, *others = example.commands
    started = launch(*run, *SMALL, timeout=200)
    assert started.returncode == 0, started.stderr
    here = run_dir(started)
    assert records(here / "events.jsonl")[-1]["event"] in ("queued", "started")
    wait_for(lambda: (here / "attempts" / "000" / "ended").exists(), 200, "the end of the run")
    typed = ([str(here) if word == "RUN" else word for word in words] for words in others)
    said = {words[0]: launch(*words, timeout=100).stdout for words in typed}
    assert set(said) == {"status", "logs", "why"}
    assert " done " in said["status"]
    assert "step 2/2" in said["logs"]
    assert "verdict    done: all 2 steps, in 1 attempt" in said["why"]

"""A failure every minute: the run trains nearly all the time, and its own summary says so."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from processes import descendants, events, losses, running, toy_words, wait_for

SEED = 20261121


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(1500)
def test_most_of_the_time_is_training(tmp_path: Path, full: bool, many: Callable[[int, int, int], int]) -> None:
    """As many failures as the mean time between them says, at times that are drawn evenly (a Poisson process of that mean, given its
    number), of a worker or of torchrun. One a minute with --full: in eight minutes, in twenty with --long."""
    seconds, between = float(many(16, 480, 1200)), 60.0 if full else 8.0
    rng, run, kills, replayed = random.Random(SEED), tmp_path / "runs" / "toy" / "a", 0, 0
    words = ("id=a", "cluster.processes_per_node=2", "train.steps=1000000", "train.eval_every=1000", f"train.mtbf_hours={between / 3600}")
    with running(tmp_path, toy_words(tmp_path / "runs", *words), TOY_STEP_SECONDS="0.04") as process:
        assert process.stdout is not None
        threading.Thread(target=process.stdout.read, daemon=True).start()  # else it fills, and the launcher waits
        wait_for(lambda: losses(run), what="the first step")
        began = time.monotonic()
        for moment in sorted(rng.uniform(0, seconds) for _ in range(round(seconds / between))):
            time.sleep(max(0.0, began + moment - time.monotonic()))  # at once, where it was starting again at that time
            victim = rng.choice([each for each in descendants(process.pid) if _matters(each)])
            before = max(losses(run))
            victim.kill()
            kills += 1
            wait_for(lambda starts=kills + 1: len(events(run, "started")) == starts, what=f"the start after kill {kills}")
            wait_for(lambda before=before: max(losses(run), default=0) > before, what=f"training after kill {kills}")
            replayed += before - events(run, "started")[-1]["step"]
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130

    summary = json.loads((run / "summary.json").read_text())
    names = ("effective", "wall_seconds", "train_seconds", "lost_seconds", "replayed_steps", "restarts")
    shown = {name: summary[name] for name in names}
    print(f"seed {SEED}, {kills} kills, {replayed} of {summary['steps']} steps done again: {shown}")
    assert kills >= 1
    assert summary["restarts"] == {"killed": kills}
    assert summary["replayed_steps"] == pytest.approx(replayed, abs=5 * kills)  # what a test reads may be some steps old
    assert not full or replayed > 0
    assert summary["train_seconds"] + summary["lost_seconds"] <= summary["wall_seconds"]
    assert summary["effective"] >= (many(0, 85, 90) / 100), "fewer failures scatter more"


def _matters(process: psutil.Process) -> bool:
    try:
        return any(word in ("launcher.train.worker", "launcher.train.torchrun") for word in process.cmdline())
    except psutil.NoSuchProcess:
        return False

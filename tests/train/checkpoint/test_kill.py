"""kill -9 of the whole tree, at random times: nothing is lost, nothing differs, nothing is done by hand but `resume`."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import events, finish, kill_launcher, kill_tree, lines, losses, start, toy_words, wait_for
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

SEED = 20261121
# Dropout draws from each rank's generator, BatchNorm keeps statistics per rank, 13 does not divide an epoch of 40 steps.
LONG = ("train.batch_size=16", "train.save_every=13", "train.eval_every=200")


def shards(run: Path) -> dict[str, str]:
    """sha256 of what the last checkpoint holds, but for the seconds that the run took."""
    newest = max((run / "checkpoints").glob("step_*"))
    files = json.loads((newest / "manifest.json").read_text())["manifest"]["files"]
    return {name: entry["sha256"] for name, entry in files.items() if name != "state.json"}


def samples(folder: Path) -> dict[tuple[int, int], list[str]]:
    """What each rank used in each update, in all attempts: once each, if every replay used the same."""
    used: dict[tuple[int, int], set[str]] = {}
    for path in folder.iterdir():
        for line in path.read_text().splitlines():
            with contextlib.suppress(ValueError):  # the line that a kill cut off
                update, chunks = json.loads(line)
                used.setdefault((int(path.name), update), set()).add(json.dumps(chunks))
    return {key: sorted(found) for key, found in used.items()}


def board_steps(run: Path) -> dict[str, list[int]]:
    """The steps that TensorBoard shows, of each of its charts."""
    board = EventAccumulator(str(run / "tb"), size_guidance={"scalars": 0})
    board.Reload()
    return {tag: [point.step for point in board.Scalars(tag)] for tag in board.Tags()["scalars"] if tag.startswith(("train/", "val/"))}


def killed_run(
    home: Path,
    words: list[str],
    kills: int,
    rng: random.Random,
    kill: Callable[[subprocess.Popen[str]], None] = kill_tree,
    **extra: str,
) -> tuple[dict[int, set[float]], int]:
    """Start a run, kill it `kills` times, let it end. Returns the losses seen at each step, and how many steps were replayed."""
    seen: dict[int, set[float]] = {}
    replayed = 0
    run = home / "runs" / "toy" / "killed"
    for attempt in range(kills + 1):
        process = start(home, words if attempt == 0 else ["resume", str(run)], **extra)
        try:
            if attempt == kills:
                _, err = process.communicate(timeout=300)
                assert process.returncode == 0, err
            else:
                _wait_for_steps(run, attempt + 1, rng.randrange(1, 60))
                time.sleep(rng.uniform(0, 0.03))  # in a step, an evaluation, a save
        except BaseException:
            kill_tree(process)
            raise
        else:
            kill(process)
        here = losses(run)
        first = events(run, "started")[-1]["step"] if events(run, "started") else 0
        replayed += sum(step in seen for step in here if step > first)
        for step, loss in here.items():
            seen.setdefault(step, set()).add(loss)
    return seen, replayed


def _wait_for_steps(run: Path, attempts: int, steps: int) -> None:
    wait_for(lambda: len(events(run, "started")) == attempts, what=f"the start of attempt {attempts}")
    first = events(run, "started")[-1]["step"]
    wait_for(lambda: max(losses(run), default=0) >= first + steps, what=f"step {first + steps}")


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(5400)
@pytest.mark.parametrize(
    ("processes", "counts", "kill"),
    [
        pytest.param(1, (2, 4, 4), kill_tree, marks=pytest.mark.full),
        (2, (3, 60, 200), kill_tree),
        pytest.param(2, (2, 25, 100), kill_launcher, marks=pytest.mark.full),
    ],
    ids=["one process", "two processes", "the launcher alone"],
)
def test_every_loss_is_the_uninterrupted_runs_to_the_last_bit(
    tmp_path: Path,
    processes: int,
    counts: tuple[int, int, int],
    kill: Callable[[subprocess.Popen[str]], None],
    many: Callable[[int, int, int], int],
) -> None:
    rng = random.Random(SEED)
    kills = many(*counts)
    print(f"seed {SEED}")
    common = (f"cluster.processes_per_node={processes}", *LONG, f"train.steps={max(480, 40 * kills)}")
    notes = {name: tmp_path / f"samples-{name}" for name in ("whole", "killed")}
    for folder in notes.values():
        folder.mkdir()
    reference = finish(tmp_path, toy_words(tmp_path / "runs", "id=whole", *common), timeout=400, TOY_SAMPLES=str(notes["whole"]))
    assert reference.returncode == 0, reference.stderr
    words = toy_words(tmp_path / "runs", "id=killed", *common)
    seen, replayed = killed_run(tmp_path, words, kills, rng, kill, TOY_SAMPLES=str(notes["killed"]))

    whole, killed = tmp_path / "runs" / "toy" / "whole", tmp_path / "runs" / "toy" / "killed"
    print(f"{processes} processes, {kills} kills, {replayed} steps replayed")
    assert replayed > 0
    assert seen == {step: {loss} for step, loss in losses(whole).items()}
    assert shards(killed) == shards(whole)
    assert samples(notes["killed"]) == samples(notes["whole"])
    for key in ("step", "split", "lr", "epoch", "samples", "loss"):
        assert [line.get(key) for line in lines(killed / "metrics.jsonl")] == [line.get(key) for line in lines(whole / "metrics.jsonl")]
    assert board_steps(killed) == board_steps(whole)
    assert board_steps(whole)["train/loss"] == list(range(1, len(losses(whole)) + 1))
    assert json.loads((killed / "summary.json").read_text())["attempts"] >= 2


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.full
@pytest.mark.timeout(300)
def test_without_the_generators_the_comparison_turns_red(tmp_path: Path) -> None:
    """The guard taken out: the same check must then fail."""
    words = ("train.batch_size=16", "train.steps=200", "train.save_every=13")
    assert finish(tmp_path, toy_words(tmp_path / "runs", "id=whole", *words)).returncode == 0
    rng = random.Random(SEED)
    seen, replayed = killed_run(tmp_path, toy_words(tmp_path / "runs", "id=killed", *words), 2, rng, TOY_SABOTAGE="generators")
    assert replayed > 0
    assert seen != {step: {loss} for step, loss in losses(tmp_path / "runs" / "toy" / "whole").items()}

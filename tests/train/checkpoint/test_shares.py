"""Every file of a checkpoint is read once when it is chosen, by one rank; the ranks agree on what they found."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from processes import REPO, environment
from safetensors.torch import save

from launcher.train.checkpoint.manifest import seal
from launcher.train.checkpoint.shares import shares

WORLD, SIZE = 3, 600_000
"""Ranks; bytes of a model's piece, of which an optimizer's has twice as many."""


def write(folder: Path, step: int) -> Path:
    """A checkpoint as a sharded run of three leaves it."""
    import torch

    path = folder / f"step_{step:09d}"
    path.mkdir(parents=True)
    (path / "state.json").write_text(json.dumps({"state": {"step": step}}))
    for rank in range(WORLD):
        tensors = {"w": torch.full((SIZE // 4,), float(step))}
        number = f".{rank}" if rank else ""
        (path / f"rank_{rank}.json").write_text("{}")
        (path / f"rank_{rank}.safetensors").write_bytes(save({}))
        (path / f"model{number}.safetensors").write_bytes(save(tensors))
        (path / f"optimizer{number}.safetensors").write_bytes(save({**tensors, "v": tensors["w"].clone()}))
    files = {each.name: {"bytes": each.stat().st_size, "sha256": hashlib.sha256(each.read_bytes()).hexdigest()} for each in path.iterdir()}
    (path / "manifest.json").write_bytes(seal({"format": 4, "step": step, "world": WORLD, "files": files}))
    return path


@pytest.fixture
def newest(tmp_path: Path) -> Path:
    for step in (1, 2):
        path = write(tmp_path / "checkpoints", step)
    return path


def loaded(home: Path, *fault: str, world: int = WORLD) -> list[dict[str, Any] | None]:
    argv = [sys.executable, str(REPO / "tests" / "load_ranks.py"), str(home), str(world), *fault]
    done = subprocess.run(argv, env=environment(home), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_each_file_is_read_once_over_all_ranks_and_none_reads_much_more_than_another(tmp_path: Path, newest: Path) -> None:
    ranks = loaded(tmp_path)
    assert all(rank and (rank["step"], rank["error"]) == (2, "") for rank in ranks)
    every = [name for rank in ranks if rank for name, times in rank["verified"].items() for _ in range(times)]
    assert sorted(every) == sorted(f"{newest.name}/{each.name}" for each in newest.iterdir() if each.name != "manifest.json")
    read, whole = [rank["bytes"] for rank in ranks if rank], sum(each.stat().st_size for each in newest.iterdir())
    assert whole <= sum(read) <= 1.1 * whole
    assert max(read) <= 1.2 * whole / WORLD


@pytest.mark.parametrize("name", ["model.1.safetensors", "rank_2.json", "manifest.json"])
@pytest.mark.parametrize("how", ["a bit", "torn"])
def test_what_one_rank_finds_damaged_all_pass_over(tmp_path: Path, newest: Path, name: str, how: str) -> None:
    data = bytearray((newest / name).read_bytes())
    data[len(data) // 2] ^= 4
    (newest / name).write_bytes(data if how == "a bit" else data[: len(data) // 2])
    ranks = loaded(tmp_path)
    assert [rank and (rank["step"], rank["error"]) for rank in ranks] == [(1, "")] * WORLD
    (said,) = (line for rank in ranks if rank for line in rank["said"])
    assert said.startswith("checkpoint step_000000002 is damaged and passed over: ")
    assert f"step_000000002/{name}" in said
    assert sorted(each.name for each in newest.parent.iterdir()) == ["aside_step_000000002.0", "step_000000001"]


def test_a_node_that_cannot_read_is_named_and_nothing_is_passed_over_for_it(tmp_path: Path, newest: Path) -> None:
    ranks = loaded(tmp_path, "mount", "1")
    errors = {rank["error"] for rank in ranks if rank}
    assert len(errors) == 1
    (error,) = errors
    assert error.startswith("CheckpointError: on rank 1 ")
    assert ".1.safetensors cannot be read (Input/output error), and rank 0 finds it as it was written" in error
    assert newest.exists()


def test_where_nobody_can_read_it_is_damage(tmp_path: Path, newest: Path) -> None:
    (newest / "model.1.safetensors").unlink()
    os.mkfifo(newest / "model.1.safetensors")
    assert [rank and rank["step"] for rank in loaded(tmp_path)] == [1] * WORLD


def test_nobody_waits_for_a_rank_that_died_over_its_share(tmp_path: Path, newest: Path) -> None:
    ranks = loaded(tmp_path, "die", "2")  # in less than the 20 s that gloo would wait, or `loaded` says so after 60
    assert ranks[2] is None
    assert all(rank and rank["error"].startswith("RuntimeError") for rank in ranks[:2])
    assert newest.exists()


def test_files_go_to_who_wrote_them_and_else_to_who_has_least() -> None:
    ours = {"model.safetensors": 10, "model.1.safetensors": 10, "rank_0.json": 1, "rank_1.json": 1}
    assert shares(ours, 2) == [["model.safetensors", "rank_0.json"], ["model.1.safetensors", "rank_1.json"]]
    replicated = {"model.safetensors": 100, "ema.safetensors": 100, "optimizer.safetensors": 200, "rank_3.json": 1}
    assert shares(replicated, 3) == [["optimizer.safetensors"], ["ema.safetensors", "rank_3.json"], ["model.safetensors"]]
    assert shares({}, 2) == [[], []]
    assert sum(map(len, shares({f"model.{rank}.safetensors": 5 for rank in range(50)}, 7))) == 50

"""The checkpoint store: complete or absent, verified, falling back, never empty-handed in silence."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import claimed

from launcher.errors import CheckpointError, RunError
from launcher.train.checkpoint import CheckpointStore, verify
from launcher.train.ranks import Ranks

FILES = {"model.safetensors": bytes(range(256)) * 40, "state.json": b'{"step": 1}', "empty.bin": b""}


def store_at(path: Path, keep: int = 3) -> CheckpointStore:
    return CheckpointStore(path, Ranks(0, 1), claimed(path.parent), attempt=0, keep=keep)


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    store = store_at(tmp_path / "checkpoints")
    for step in (10, 20, 30):
        store.save(step, {**FILES, "state.json": b'{"step": %d}' % step})
    return store


def names(store: CheckpointStore) -> list[str]:
    return sorted(path.name for path in store.path.iterdir())


def load(store: CheckpointStore) -> tuple[int | None, list[str]]:
    said: list[str] = []
    checkpoint = store.load(said.append)
    return (checkpoint.step if checkpoint else None), said


def test_the_newest_is_loaded_and_gives_back_every_byte(store: CheckpointStore) -> None:
    checkpoint = store.load(print)
    assert checkpoint is not None
    assert checkpoint.step == 30
    assert {name: checkpoint.read(name) for name in FILES} == {**FILES, "state.json": b'{"step": 30}'}


def test_a_run_without_checkpoints_starts_at_the_beginning(tmp_path: Path) -> None:
    assert load(store_at(tmp_path / "checkpoints")) == (None, [])


def test_old_ones_go_only_after_the_new_one_is_there(store: CheckpointStore) -> None:
    store.save(40, FILES)
    assert names(store) == ["step_000000020", "step_000000030", "step_000000040"]


@pytest.mark.parametrize("seed", range(3))
def test_every_flipped_bit_is_found_and_the_one_before_is_loaded(store: CheckpointStore, seed: int) -> None:
    rng = random.Random(seed)
    newest = store.path / "step_000000030"
    for path in sorted(newest.iterdir()):
        good = path.read_bytes()
        for _ in range(25 if good else 0):
            bit = rng.randrange(8 * len(good))
            broken = bytearray(good)
            broken[bit // 8] ^= 1 << bit % 8
            path.write_bytes(broken)
            with pytest.raises(CheckpointError, match=path.name):
                verify(newest)
        path.write_bytes(good)
    verify(newest)
    broken = bytearray((newest / "model.safetensors").read_bytes())
    broken[77] ^= 1
    (newest / "model.safetensors").write_bytes(broken)
    step, said = load(store)
    assert step == 20
    assert len(said) == 1
    assert "step_000000030/model.safetensors" in said[0]


@pytest.mark.parametrize("keep_bytes", [0, 1, 0.5, -1])
@pytest.mark.parametrize("name", ["manifest.json", "model.safetensors", "state.json"])
def test_every_torn_file_is_found(store: CheckpointStore, name: str, keep_bytes: float) -> None:
    path = store.path / "step_000000030" / name
    size = path.stat().st_size
    os.truncate(path, int(size * keep_bytes) if isinstance(keep_bytes, float) else keep_bytes % size)
    step, said = load(store)
    assert step == 20
    assert name in said[0]


@pytest.mark.parametrize("name", ["manifest.json", "model.safetensors"])
def test_a_missing_file_is_found(store: CheckpointStore, name: str) -> None:
    (store.path / "step_000000030" / name).unlink()
    assert load(store)[0] == 20


def test_a_damaged_one_is_kept_aside_and_its_step_can_be_saved_again(store: CheckpointStore) -> None:
    (store.path / "step_000000030" / "manifest.json").unlink()
    load(store)
    assert "damaged_step_000000030.0" in names(store)
    store.save(30, FILES)
    assert load(store) == (30, [])


def test_junk_beside_checkpoints_is_no_checkpoint(store: CheckpointStore) -> None:
    (store.path / "step_1").mkdir()
    (store.path / "best").mkdir()
    (store.path / "tmp.007").mkdir()
    (store.path / "latest").symlink_to("nowhere")
    (store.path / "step_000000099.txt").write_text("no")
    fresh = store_at(store.path)
    assert load(fresh) == (30, [])
    assert "tmp.007" not in names(fresh)


def test_a_whole_directory_under_another_name_is_refused(store: CheckpointStore) -> None:
    shutil.copytree(store.path / "step_000000010", store.path / "step_000000050")
    step, said = load(store)
    assert step == 30
    assert "step_000000050" in said[0]


def test_all_damaged_is_an_error_and_not_a_fresh_start(store: CheckpointStore) -> None:
    for path in store.path.glob("step_*"):
        (path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"all 3 checkpoints are damaged.*resume=never"):
        load(store)


def _save_until_full(store: CheckpointStore) -> None:
    for step in range(2, 9):
        store.save(step, {f"shard_{step}": b"x" * 9000, **FILES})


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small tmpfs")
@pytest.mark.parametrize("room", [48, 60, 72])
def test_a_full_disk_leaves_the_one_before_intact(tmp_path: Path, room: int) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}k", "tmpfs", mount], check=True)
    try:
        store = store_at(mount / "checkpoints")
        store.save(1, FILES)
        with pytest.raises(RunError, match=r"could not be written \(rank 0: No space left on device\)"):
            _save_until_full(store)
        assert not list(store.path.glob("tmp.*"))
        step, said = load(store)
        assert step is not None
        assert said == []
    finally:
        subprocess.run(["umount", mount], check=True)

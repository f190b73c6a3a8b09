"""The checkpoint store: complete or absent, verified, falling back, never empty-handed in silence."""

from __future__ import annotations

import errno
import os
import random
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from helpers import claimed
from processes import needs_root, small_disk
from store_ranks import naive_store

from launcher.errors import CheckpointError, RunError
from launcher.train.checkpoint.checkpoint import CheckpointStore
from launcher.train.checkpoint.manifest import Checkpoint
from launcher.train.world.ranks import Ranks

SEED = 20261121
FILES = {"model.safetensors": bytes(range(256)) * 40, "state.json": b'{"step": 1}', "empty.bin": b""}


def store_at(path: Path, keep: int = 3) -> CheckpointStore:
    return CheckpointStore(path, Ranks(0, 1), claimed(path.parent), attempt=0, keep=keep)


def pieces(files: dict[str, bytes]) -> dict[str, tuple[bytes, ...]]:
    return {name: (data[:100], data[100:]) for name, data in files.items()}


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    store = store_at(tmp_path / "checkpoints")
    for step in (10, 20, 30):
        store.save(step, pieces({**FILES, "state.json": b'{"step": %d}' % step}))
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
    store.save(40, pieces(FILES))
    assert names(store) == ["step_000000020", "step_000000030", "step_000000040"]


def damage(path: Path, rng: random.Random) -> str:
    """One flipped bit, or fewer bytes than there were. Returns which."""
    data = bytearray(path.read_bytes())
    if rng.random() < 0.5:
        bit = rng.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        return f"bit {bit}"
    length = rng.choice([0, 1, len(data) // 2, len(data) - 1, rng.randrange(len(data))]) % len(data)
    os.truncate(path, length)
    return f"{length} bytes of {len(data)}"


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_every_flipped_bit_and_every_missing_byte_is_found_named_and_the_one_before_is_loaded(store: CheckpointStore, full: bool) -> None:
    rng = random.Random(SEED)
    newest, spare = store.path / "step_000000030", store.path.parent / "spare"
    shutil.copytree(newest, spare)
    names = [path.name for path in sorted(newest.iterdir()) if path.stat().st_size]
    found = 0
    for number in range(1000 if full else 150):
        name = names[number % len(names)]
        what = damage(newest / name, rng)
        step, said = load(store)
        assert step == 20, what
        assert len(said) == 1
        assert f"step_000000030/{name}" in said[0], what
        found += 1
        shutil.rmtree(store.path / "aside_step_000000030.0")
        shutil.copytree(spare, newest)
    assert load(store) == (30, [])
    print(f"seed {SEED}: {found} of {found} found, over {len(names)} files")


def test_without_the_checksums_damage_is_loaded(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard taken out."""
    path = store.path / "step_000000030" / "model.safetensors"
    path.write_bytes(b"\1" + path.read_bytes()[1:])
    monkeypatch.setattr(Checkpoint, "_verify", lambda self, name, keep: keep((self.path / name).read_bytes()))
    assert load(store) == (30, [])


@pytest.mark.parametrize("name", ["manifest.json", "model.safetensors"])
def test_a_missing_file_is_found(store: CheckpointStore, name: str) -> None:
    (store.path / "step_000000030" / name).unlink()
    assert load(store)[0] == 20


def test_a_damaged_one_is_kept_aside_and_its_step_can_be_saved_again(store: CheckpointStore) -> None:
    (store.path / "step_000000030" / "manifest.json").unlink()
    load(store)
    assert "aside_step_000000030.0" in names(store)
    store.save(30, pieces(FILES))
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
        store.save(step, pieces({f"shard_{step}": b"x" * 9000, **FILES}))


PAGE = 4096
BIG = {f"shard_{number}": bytes(7 * PAGE) for number in range(6)}


@needs_root
@pytest.mark.chaos
def test_a_disk_that_is_full_at_any_byte_of_a_save_leaves_the_one_before_intact(tmp_path: Path, full: bool) -> None:
    """Pages left, from none to one less than a save takes."""
    with small_disk(tmp_path / "small", "size=4m") as disk:
        store = store_at(disk / "checkpoints")
        store.save(1, pieces(BIG))
        filler, taken = disk / "filler", sum(-(-len(data) // PAGE) for data in BIG.values())
        positions = range(50 if full else 10)
        for number in positions:
            free = os.statvfs(disk)
            filler.write_bytes(bytes((free.f_bavail - number * taken // len(positions)) * PAGE))
            with pytest.raises(RunError, match=r"could not be written \(rank 0: No space left on device\)"):
                store.save(2, pieces(BIG))
            assert not list(store.path.glob("tmp.*"))
            assert load(store) == (1, [])
            filler.unlink()
        store.save(2, pieces(BIG))
        assert load(store) == (2, [])
        print(f"{len(positions)} of {len(positions)} positions of {taken} pages")


@needs_root
def test_without_the_guards_half_a_save_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.train.checkpoint.checkpoint.shutil.rmtree", lambda *args, **options: None)
    with small_disk(tmp_path / "small", "size=4m") as disk:
        store = naive_store()(disk / "checkpoints", Ranks(0, 1), claimed(disk), attempt=0, keep=2)
        store.save(1, pieces(BIG))
        (disk / "filler").write_bytes(bytes((os.statvfs(disk).f_bavail - 20) * PAGE))
        with pytest.raises(RunError, match="No space left on device"):
            store.save(2, pieces(BIG))
        checkpoint = store.load(print)
        assert checkpoint is not None
        assert checkpoint.step == 2
        assert {name: checkpoint.read(name) for name in checkpoint.files} != BIG


@needs_root
def test_no_inodes_left(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "size=1m,nr_inodes=24") as disk:
        store = store_at(disk / "checkpoints")
        store.save(1, pieces(FILES))
        for number in range(40):
            with suppress(OSError):
                (disk / f"inode_{number}").touch()
        for left in range(5):
            with pytest.raises(RunError, match="No space left on device"):
                store.save(2, pieces(BIG))
            assert load(store) == (1, [])
            (disk / f"inode_{left}").unlink()


def test_an_error_of_the_disk_itself(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """fsync is where a dying disk tells (EIO): what it did not confirm is not committed."""
    fsync, left = os.fsync, [0]

    def dying(descriptor: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", dying)
    for dies_at in range(1, len(FILES) + 3):  # each file, the manifest, the directory
        left[0] = dies_at
        with pytest.raises(RunError, match="Input/output error"):
            store.save(40, pieces(FILES))
        assert load(store) == (30, [])

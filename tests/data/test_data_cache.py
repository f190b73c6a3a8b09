"""The cache is complete or absent, verified, built once per node, and exact in its statistics."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from data.store.corrupt import Corrupt
from data.store.decoded import Chunks, Split
from data.store.decoded import open_or_build as opened

PRINT = "ab" * 32


def sources(pixels: np.ndarray, built: list[int] | None = None) -> Callable[[], Mapping[str, Chunks]]:
    """A training part in two chunks and a test part in one."""

    def call() -> Mapping[str, Chunks]:
        if built is not None:
            built.append(len(built))
        labels = np.arange(len(pixels), dtype=np.int64)
        return {"train": [(pixels[:7], labels[:7]), (pixels[7:], labels[7:])], "test": [(pixels[:3], labels[:3])]}

    return call


def open_or_build(cache: Path, name: str, fingerprint: str, parts: Callable[[], Mapping[str, Chunks]]) -> dict[str, Split]:
    return opened(cache, name, fingerprint, parts, Corrupt(0))


def never() -> Mapping[str, Chunks]:
    raise AssertionError("the cache was there and must not be built again")


def same(splits: dict[str, Split], pixels: np.ndarray) -> bool:
    whole = (splits["train"].images == pixels).all() and (splits["test"].images == pixels[:3]).all()
    return bool(whole and (splits["train"].labels == np.arange(len(pixels))).all())


def test_what_was_decoded_comes_back_and_is_built_once(tmp_path: Path, images: Callable[..., np.ndarray]) -> None:
    pixels = images(20, 1)
    assert same(open_or_build(tmp_path, "toy", PRINT, sources(pixels)), pixels)
    again = open_or_build(tmp_path, "toy", PRINT, never)
    assert same(again, pixels)
    assert isinstance(again["train"].images, np.memmap), "mapped: the processes of a node share its pages"
    assert {path.name for path in tmp_path.iterdir()} == {f"toy-{PRINT[:16]}-v2", f"toy-{PRINT[:16]}-v2.lock"}


def test_another_fingerprint_is_another_cache(tmp_path: Path, images: Callable[..., np.ndarray]) -> None:
    one, other = images(20, 1), images(20, 2)
    open_or_build(tmp_path, "toy", PRINT, sources(one))
    assert same(open_or_build(tmp_path, "toy", "cd" * 32, sources(other)), other)
    assert same(open_or_build(tmp_path, "toy", PRINT, never), one)


def test_statistics_are_those_of_the_pixels(tmp_path: Path, images: Callable[..., np.ndarray]) -> None:
    pixels = images(20, 1)
    pixels[..., 1] = 200
    train = open_or_build(tmp_path, "toy", PRINT, sources(pixels))["train"]
    part = np.array([19, 3, 4, 8, 11])
    mean, std = train.statistics(part)
    chosen = pixels[part].astype(np.float64).reshape(-1, 3)
    np.testing.assert_allclose(mean, chosen.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(std[[0, 2]], chosen.std(axis=0)[[0, 2]], rtol=1e-13)
    assert std[1] == 1.0, "a constant channel is shifted, not divided by zero"
    for order in (part[::-1], np.sort(part)):
        assert [values.tobytes() for values in train.statistics(order)] == [mean.tobytes(), std.tobytes()]


def flip_bit(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def other_shape(path: Path) -> None:
    manifest = json.loads(path.read_text())
    manifest["arrays"]["train.images"]["shape"] = [5, 32, 32, 3]
    path.write_text(json.dumps(manifest))


def not_json(path: Path) -> None:
    path.write_text("[1, 2]")


FILES = [f"{split}.{field}" for split in ("train", "test") for field in ("images", "labels", "sums", "squares")]
DAMAGE = [(name, harm) for name in [*FILES, "manifest.json"] for harm in (flip_bit, cut, Path.unlink)]


@pytest.mark.parametrize(("name", "harm"), [*DAMAGE, ("manifest.json", other_shape), ("manifest.json", not_json)])
def test_a_damaged_cache_is_built_again_with_one_line(
    tmp_path: Path, images: Callable[..., np.ndarray], capsys: pytest.CaptureFixture[str], name: str, harm: Callable[[Path], None]
) -> None:
    pixels, built = images(12, 1), []
    open_or_build(tmp_path, "toy", PRINT, sources(pixels, built))
    assert capsys.readouterr().err == ""
    harm(tmp_path / f"toy-{PRINT[:16]}-v2" / name)
    assert same(open_or_build(tmp_path, "toy", PRINT, sources(pixels, built)), pixels)
    assert len(built) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("WARNING: the cache ")
    assert name in line
    open_or_build(tmp_path, "toy", PRINT, never)
    assert not list(tmp_path.glob("tmp.*"))


def test_maps_that_are_open_survive_a_rebuild(tmp_path: Path, images: Callable[..., np.ndarray]) -> None:
    pixels = images(12, 1)
    held = open_or_build(tmp_path, "toy", PRINT, sources(pixels))
    (tmp_path / f"toy-{PRINT[:16]}-v2" / "manifest.json").unlink()
    open_or_build(tmp_path, "toy", PRINT, sources(pixels))
    assert same(held, pixels)


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, images: Callable[..., np.ndarray]) -> None:
    def torn() -> Mapping[str, Chunks]:
        def chunks():
            yield images(5, 1), np.arange(5)
            raise ValueError("row 5 is torn")

        return {"train": chunks()}

    with pytest.raises(ValueError, match="row 5 is torn"):
        open_or_build(tmp_path, "toy", PRINT, torn)
    with pytest.raises(ValueError, match="the train part holds no samples"):
        open_or_build(tmp_path, "toy", PRINT, lambda: {"train": []})
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


BUILD = """
import os, sys, time
from pathlib import Path
import numpy as np
from data.store.corrupt import Corrupt
from data.store.decoded import open_or_build

cache, seconds = Path(sys.argv[1]), float(sys.argv[2])

def sources():
    (cache / f"built-by-{os.getpid()}").touch()
    def chunks():
        for i in range(4):
            time.sleep(seconds / 4)
            yield np.full((10, 8, 8, 3), i, np.uint8), np.full(10, i)
    return {"train": chunks()}

if len(sys.argv) > 3:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    train = open_or_build(cache, "toy", "ab" * 32, sources, Corrupt(0))["train"]
    print(len(train.labels), int(train.images.sum(dtype=np.int64)))
except OSError as error:
    print(error.errno, error)
"""
WHOLE = f"40 {10 * 8 * 8 * 3 * 6}"


@pytest.mark.timeout(60)
def test_one_of_many_processes_builds_and_the_others_wait(tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    processes = [start(BUILD, tmp_path, 1.2) for _ in range(3)]
    answers = [process.communicate(timeout=30) for process in processes]
    assert [out.strip() for out, _ in answers] == [WHOLE] * 3
    assert len(list(tmp_path.glob("built-by-*"))) == 1
    said = "".join(err for _, err in answers).splitlines()
    assert said, "at least one of them met the other's lock"
    assert all(line.startswith("Waiting for another process that is decoding toy") for line in said)


@pytest.mark.timeout(60)
def test_a_builder_that_is_killed_is_replaced_and_cleared_away(tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    victim = start(BUILD, tmp_path, 60)
    deadline = time.monotonic() + 20
    while not list(tmp_path.glob("tmp.*/train.images")):
        assert time.monotonic() < deadline, victim.communicate(timeout=1)
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.communicate(timeout=10)
    assert list(tmp_path.glob("tmp.*")), "it did leave something behind"
    assert start(BUILD, tmp_path, 0).communicate(timeout=30)[0].strip() == WHOLE
    assert not list(tmp_path.glob("tmp.*"))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("limit", [100, 4000, 7000])
def test_a_file_that_cannot_grow_keeps_its_errno_and_leaves_nothing(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]], limit: int
) -> None:
    out, err = start(BUILD, tmp_path, 0, limit).communicate(timeout=30)
    assert out.startswith(f"{errno.EFBIG} data.cache={tmp_path}: cannot be written ("), err
    assert "LAUNCHER_CACHE" in out
    assert len(out.splitlines()) == 1
    assert {path.name.split("-")[0] for path in tmp_path.iterdir()} == {"toy", "built"}
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@pytest.mark.timeout(60)
def test_a_full_disk_keeps_its_errno_and_leaves_nothing(tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", disk], capture_output=True, text=True, check=False)
    if mount.returncode:
        pytest.skip(f"needs a small tmpfs: {mount.stderr.strip()}")
    try:
        out, err = start(BUILD, disk, 0).communicate(timeout=30)
        assert out.startswith(f"{errno.ENOSPC} data.cache={disk}: cannot be written (No space left on device)"), err
        assert not [path for path in disk.iterdir() if path.is_dir()]
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_finished_cache_opens_where_nothing_can_be_written(tmp_path: Path, images: Callable[..., np.ndarray]) -> None:
    pixels = images(12, 1)
    open_or_build(tmp_path, "toy", PRINT, sources(pixels))
    tmp_path.chmod(0o500)
    try:
        assert same(open_or_build(tmp_path, "toy", PRINT, never), pixels)
        with pytest.raises(OSError, match=r"^data\.cache=.* cannot be written") as refused:
            open_or_build(tmp_path, "toy", "cd" * 32, sources(pixels))
        assert refused.value.errno == errno.EACCES
    finally:
        tmp_path.chmod(0o700)


def test_a_cache_below_a_file_is_refused_in_one_line(tmp_path: Path, images: Callable[..., np.ndarray]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"^data\.cache=.*/file/cache: cannot be written \(Not a directory\)") as refused:
        open_or_build(tmp_path / "file" / "cache", "toy", PRINT, sources(images(9, 1)))
    assert refused.value.errno == errno.ENOTDIR

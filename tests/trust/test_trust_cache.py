"""Decoded data that somebody else has planted, or could change, is not taken; what a colleague shares is, where it is known.

The other user is uid 65534. The canary is a label: 1 in the data that are mine, 7 in what is planted.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from another_user import as_user

import launcher.trust.owner
from data.store import hub, owner
from data.store.cache import MANIFEST
from data.store.corrupt import Corrupt
from data.store.decoded import Chunks, open_or_build
from data.store.files import cannot_write

SOMEBODY, COLLEAGUE = 65_534, 12_345
FINGERPRINT = "f" * 64
pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else"), pytest.mark.timeout(20)]


def data(label: int) -> dict[str, Chunks]:
    return {part: [(np.full((3, 2, 2, 1), 5, np.uint8), np.full(3, label, np.int64))] for part in ("train", "test")}


def label_in(cache: Path, known: str | None = None, sources: Callable[[], dict[str, Chunks]] = lambda: data(1)) -> int:
    return int(open_or_build(cache, "toy", FINGERPRINT, sources, Corrupt(0), known)["train"].labels[0])


def planted(cache: Path, label: int = 7) -> Path:
    """A whole cache with checksums that are right."""
    cache.mkdir(exist_ok=True)
    cache.chmod(0o1777)
    label_in(cache, sources=lambda: data(label))
    return next(cache.glob("toy-*-v2"))


def give(place: Path, user: int = SOMEBODY) -> None:
    for path in (place, *place.rglob("*")):
        os.chown(path, user, user, follow_symlinks=False)


def checksum(place: Path) -> str:
    return json.loads((place / MANIFEST).read_text())["sha256"]


def _theirs(place: Path) -> None:
    give(place)


def _the_directory(place: Path) -> None:
    os.chown(place, SOMEBODY, SOMEBODY)


def _the_labels(place: Path) -> None:
    os.chown(place / "train.labels", SOMEBODY, SOMEBODY)


def _the_manifest(place: Path) -> None:
    os.chown(place / MANIFEST, SOMEBODY, SOMEBODY)


def _everybody(place: Path) -> None:
    place.chmod(0o777)


def _sticky(place: Path) -> None:
    place.chmod(0o1777)


def _a_file_that_everybody_may_write(place: Path) -> None:
    (place / "test.labels").chmod(0o666)


def _a_group(place: Path) -> None:
    os.chown(place, 0, SOMEBODY)
    place.chmod(0o770)


def _a_link_of_theirs(place: Path) -> None:
    place.rename(place.with_name("real"))
    place.symlink_to("real")
    os.chown(place, SOMEBODY, SOMEBODY, follow_symlinks=False)


def _a_link_to_theirs(place: Path) -> None:
    place.rename(place.with_name("real"))
    give(place.with_name("real"))
    place.symlink_to("real")


@pytest.mark.parametrize("door", [
    _theirs, _the_directory, _the_labels, _the_manifest, _everybody, _sticky, _a_file_that_everybody_may_write, _a_group, _a_link_of_theirs,
    _a_link_to_theirs,
])  # fmt: skip
def test_what_may_be_theirs_is_not_taken(door: Callable[[Path], None], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    place = planted(tmp_path / "cache")
    assert label_in(tmp_path / "cache") == 7, "it would be taken if it were mine"
    door(place)
    for _ in range(2):
        assert label_in(tmp_path / "cache") == 1
        assert f"WARNING: the cache {place} is not taken: " in capfd.readouterr().err
    assert sorted(path.name for path in tmp_path.glob("cache/*-u0")) == [f"{place.name}-u0"]


def test_mine_is_mapped_without_a_word(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    place = planted(tmp_path / "cache", label=1)
    assert label_in(tmp_path / "cache", sources=lambda: data(9)) == 1
    assert capfd.readouterr().err == ""
    assert isinstance(open_or_build(tmp_path / "cache", "toy", FINGERPRINT, lambda: data(9), Corrupt(0))["train"].labels, np.memmap)
    assert place.exists()


# ---------------------------------------------------------------- a colleague's


def test_a_colleagues_is_taken_where_it_is_known_and_cannot_change_then(tmp_path: Path) -> None:
    place = planted(tmp_path / "cache", label=1)
    known = checksum(place)
    give(place)
    taken = open_or_build(tmp_path / "cache", "toy", FINGERPRINT, lambda: data(9), Corrupt(0), known)
    with (place / "train.labels").open("r+b") as file:
        file.write(bytes(24))
    assert taken["train"].labels.tolist() == [1, 1, 1]
    assert taken["test"].images.shape == (3, 2, 2, 1)
    assert label_in(tmp_path / "cache", known) == 1, "and what has changed is not taken again"
    assert list(tmp_path.glob("cache/*-u0"))


def _other_labels(place: Path) -> None:
    (place / "train.labels").write_bytes(np.full(3, 7, np.int64).tobytes())


def _other_labels_and_their_checksum(place: Path) -> None:
    shutil.rmtree(place)
    planted(place.parent)
    give(place)


def _short(place: Path) -> None:
    os.truncate(place / "train.labels", 8)


def _long(place: Path) -> None:
    os.truncate(place / "train.labels", 1 << 40)


def _a_pipe(place: Path) -> None:
    (place / "train.labels").unlink()
    os.mkfifo(place / "train.labels")


def _zeros(place: Path) -> None:
    (place / MANIFEST).unlink()
    (place / MANIFEST).symlink_to("/dev/zero")


def _no_json(place: Path) -> None:
    (place / MANIFEST).write_text("[" * 100_000)


@pytest.mark.parametrize("door", [_other_labels, _other_labels_and_their_checksum, _short, _long, _a_pipe, _zeros, _no_json])
def test_known_is_known_to_the_last_byte(door: Callable[[Path], None], tmp_path: Path) -> None:
    place = planted(tmp_path / "cache", label=1)
    known = checksum(place)
    give(place)
    door(place)
    assert label_in(tmp_path / "cache", known) == 1
    assert list(tmp_path.glob("cache/*-u0"))


@pytest.fixture
def shared() -> Iterator[Path]:
    """What becomes a colleague's directory, that everybody may enter."""
    place = Path(tempfile.mkdtemp())
    yield place
    shutil.rmtree(place)


def as_somebody(do: Callable[[], object]) -> str:
    """What it returned, or the error, in a process that is theirs."""

    def know_no_owner() -> object:
        for known in (owner._owners, launcher.trust.owner._owners):  # pyright: ignore[reportPrivateUsage]
            known.cache_clear()
        return do()

    return as_user(SOMEBODY, know_no_owner)[1]


@pytest.mark.parametrize("open_to_me", [True, False])
def test_the_second_user_is_told_the_reason(open_to_me: bool, shared: Path) -> None:
    place = planted(shared)
    shared.chmod(0o755)
    give(shared, COLLEAGUE)
    place.chmod(0o755 if open_to_me else 0o700)
    for path in place.iterdir():
        path.chmod(0o644)
    said = as_somebody(lambda: label_in(shared))
    assert f"data.cache={shared}: cannot be written (Permission denied: {shared} belongs to uid {COLLEAGUE}); set data.cache= or" in said
    assert "free some space" not in said


def test_the_second_user_takes_what_is_known(shared: Path) -> None:
    place = planted(shared, label=1)
    known = checksum(place)
    shared.chmod(0o755)
    give(shared, COLLEAGUE)
    place.chmod(0o755)
    for path in place.iterdir():
        path.chmod(0o644)
    assert as_somebody(lambda: label_in(shared, known)) == "1"


def test_a_full_disk_is_still_one(tmp_path: Path) -> None:
    assert "free some space there" in str(cannot_write(tmp_path, OSError(28, "No space left on device")))


# ---------------------------------------------------------------- building


@pytest.mark.parametrize(("mode", "user", "fine"), [
    (0o700, 0, True), (0o755, 0, True), (0o1777, 0, True), (0o777, 0, False), (0o773, 0, False), (0o703, 0, False), (0o770, 0, False),
    (0o755, SOMEBODY, False),
])  # fmt: skip
def test_it_is_built_where_nobody_can_take_it_away(mode: int, user: int, fine: bool, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    os.chown(cache, user, SOMEBODY)
    cache.chmod(mode)
    if fine:
        assert label_in(cache) == 1
        return
    decoded: list[int] = []
    with pytest.raises(OSError, match=r"could put other data in the place of yours; set data\.cache="):
        label_in(cache, sources=lambda: decoded.append(1) or data(1))
    assert not decoded, "it is refused before the work is done"


def lock_of(cache: Path) -> Path:
    return cache / f"toy-{FINGERPRINT[:16]}-v2.lock"


def _a_lock_that_is_held(cache: Path) -> None:
    lock_of(cache).touch()
    os.chown(lock_of(cache), SOMEBODY, SOMEBODY)
    fcntl.flock(os.open(lock_of(cache), os.O_RDWR), fcntl.LOCK_EX)


def _a_lock_that_is_a_pipe(cache: Path) -> None:
    os.mkfifo(lock_of(cache))


def _a_lock_that_is_a_link(cache: Path) -> None:
    lock_of(cache).symlink_to(cache.parent / "made")


def _a_lock_that_is_a_directory(cache: Path) -> None:
    lock_of(cache).mkdir()


def _what_a_builder_left(cache: Path) -> None:
    left = cache / f"tmp.toy-{FINGERPRINT[:16]}-v2.{os.uname().nodename}.x"
    left.mkdir()
    (left / "theirs").touch()
    give(left)


def _what_a_builder_left_is_a_link(cache: Path) -> None:
    (cache.parent / "mine").mkdir()
    (cache / f"tmp.toy-{FINGERPRINT[:16]}-v2.{os.uname().nodename}.x").symlink_to(cache.parent / "mine")


@pytest.mark.parametrize("door", [
    _a_lock_that_is_held, _a_lock_that_is_a_pipe, _a_lock_that_is_a_link, _a_lock_that_is_a_directory, _what_a_builder_left,
    _what_a_builder_left_is_a_link,
])  # fmt: skip
def test_nothing_that_is_planted_stops_it(door: Callable[[Path], None], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o1777)
    door(cache)
    assert label_in(cache) == 1
    assert not (tmp_path / "made").exists()
    assert (tmp_path / "mine").is_dir() or door is not _what_a_builder_left_is_a_link
    assert any(cache.glob("tmp.*/theirs")) or door is not _what_a_builder_left


def test_whoever_is_faster_is_not_taken(tmp_path: Path) -> None:
    planted(tmp_path / "theirs").rename(tmp_path / "ready")
    give(tmp_path / "ready")

    def sources() -> dict[str, Chunks]:
        (tmp_path / "ready").rename(tmp_path / "cache" / f"toy-{FINGERPRINT[:16]}-v2")
        return data(1)

    with pytest.raises(OSError, match="belongs to"):
        label_in(tmp_path / "cache", sources=sources)


def test_nor_what_is_planted_beside_it(tmp_path: Path) -> None:
    place = planted(tmp_path / "cache")
    shutil.copytree(place, place.with_name(f"{place.name}-u0"))
    give(tmp_path / "cache")
    os.chown(tmp_path / "cache", 0, 0)
    with pytest.raises(OSError, match="-u0 belongs to"):
        label_in(tmp_path / "cache")


def test_a_download_of_theirs_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    into = tmp_path / "hub"
    into.mkdir()
    (into / "a").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert hub.download("x/y", "main", {"a": empty}, into) == into
    give(into)
    with pytest.raises(ConnectionError):
        hub.download("x/y", "main", {"a": empty}, into)


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755, 0o770, 0o777, 0o1777])
@pytest.mark.parametrize("user", [0, SOMEBODY])
@pytest.mark.parametrize("link", [False, True])
def test_both_halves_have_the_same_rules(mode: int, user: int, link: bool, tmp_path: Path) -> None:
    """data imports nothing of the launcher."""
    place = tmp_path / "a" / "b"
    place.mkdir(parents=True)
    (tmp_path / "link").symlink_to("a")
    os.chown(tmp_path / "a", user, SOMEBODY)
    (tmp_path / "a").chmod(mode)
    for path in ((tmp_path / "link" if link else tmp_path / "a") / "b", tmp_path / "a"):
        assert bool(owner.fault(path)) == bool(launcher.trust.owner.fault(path)), path

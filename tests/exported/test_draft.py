"""An export that is being written: what is to be encrypted is plain on no disk at any time, and what a killed process left goes with the
next export to the same place, while one that is at work is left alone."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from launcher.exported import draft
from launcher.exported.draft import drafted
from launcher.exported.folder import MANIFEST, PREPROCESSING, WEIGHTS, Folder
from launcher.trust import living

KEY = bytes(range(32))
SECRET = b"nobody may read this" * 100_000
TENSORS = [{"name": "input", "dtype": "float32", "shape": ["batch", 2]}]
TOLD: dict[str, Any] = {
    "predicts": "numbers", "predicting": {}, "inputs": TENSORS, "outputs": TENSORS, "differences": {}, "missing": {},
    "run": {"name": "a", "id": "b", "step": 3},
}  # fmt: skip
AT_WORK = """
import sys
from pathlib import Path
from launcher.exported.draft import drafted
from launcher.trust.ending import ending
try:
    with ending(), drafted(Path(sys.argv[1])) as draft:
        draft.write("weights", b"half")
        print(draft.place, flush=True)
        sys.stdin.read()
except KeyboardInterrupt:
    pass
"""


@contextmanager
def at_work(target: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another export to `target`, and the directory that it writes in."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", AT_WORK, str(target)], stdin=pipe, stdout=pipe, text=True) as other:
        try:
            assert other.stdout is not None
            yield other, Path(other.stdout.readline().strip())
        finally:
            other.kill()


def _plain(home: Path) -> list[Path]:
    return [path for path in home.rglob("*") if path.is_file() and (SECRET[:20] in path.read_bytes() or b'"run"' in path.read_bytes())]


def test_what_is_encrypted_is_never_plain_on_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is written, and not only when it is in its place."""
    pytest.importorskip("cryptography")
    monkeypatch.setenv("LAUNCHER_KEY", KEY.hex())
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with drafted(tmp_path / "export", KEY) as made:
        place = made.at(WEIGHTS)
        assert isinstance(place, io.BytesIO)
        place.write(SECRET)
        assert _plain(tmp_path) == []
        again = made.at(WEIGHTS)
        assert isinstance(again, io.BytesIO)
        assert again.read() == SECRET, "whoever checks it reads it from its beginning"
        made.done(WEIGHTS)
        made.write(PREPROCESSING, b'{"kind": "tensors"}')
        lost = made.at("model.onnx")
        assert isinstance(lost, io.BytesIO)
        lost.write(SECRET)
        made.drop("model.onnx")
        assert _plain(tmp_path) == []
        assert {path.name for path in made.place.iterdir()} == {f"{name}.sealed" for name in (WEIGHTS, PREPROCESSING)}
        made.finish(TOLD)
    assert _plain(tmp_path) == []
    folder = Folder(tmp_path / "export")
    assert folder.read(WEIGHTS) == SECRET
    assert set(folder.files) == {WEIGHTS, PREPROCESSING}


def test_a_killed_one_s_leftovers_go_and_a_living_one_s_stay(tmp_path: Path) -> None:
    target = tmp_path / "export"
    with at_work(target) as (dead, left), at_work(target) as (_, busy), at_work(tmp_path / "export2") as (other, theirs):
        for each in (dead, other):
            each.kill()
            each.wait()
        assert left.is_dir(), "kill -9 leaves it"
        with drafted(target) as made:
            assert not left.exists()
            assert (busy / "weights").read_bytes() == b"half"
            assert theirs.is_dir(), "of another target"
            made.write(PREPROCESSING, b'{"kind": "tensors"}')
            made.finish(TOLD)
    assert Folder(target).told["run"] == TOLD["run"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_that_is_told_to_end_leaves_nothing(tmp_path: Path, number: int) -> None:
    with at_work(tmp_path / "export") as (other, left):
        assert left.is_dir()
        other.send_signal(number)
        other.wait(20)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_one_had_put_aside_comes_back(tmp_path: Path) -> None:
    with at_work(tmp_path / "another") as (other, left):
        other.kill()
        other.wait()
    found = left.name.removeprefix(".another.part-").rpartition("-")[0]
    target, aside = tmp_path / "export", tmp_path / f".export.old-{found}-abcd"
    (aside / "export").mkdir(parents=True)
    (aside / "export" / MANIFEST).write_text("{}")
    draft.clear(target)
    assert (target / MANIFEST).read_text() == "{}"
    assert not aside.exists()


def test_nothing_else_goes(tmp_path: Path) -> None:
    """What has such a name by chance, is a link, or is in use by this very process."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine")
    mark = living.mark().rpartition("-")[0] + "-0"  # this process, begun at another time: gone
    assert not living.lives(mark)
    (tmp_path / f".export.part-{mark}-link").symlink_to(precious)
    for name in (".export.part-abcd", f".export.part-{living.mark()}-abcd", f".exports.part-{mark}-abcd", f"export.part-{mark}-abcd"):
        (tmp_path / name).mkdir()
    before = {path for path in tmp_path.iterdir() if not path.is_symlink()}
    draft.clear(tmp_path / "export")
    assert {path for path in tmp_path.iterdir() if not path.is_symlink()} == before
    assert (precious / "file").read_text() == "mine"


def test_a_name_may_be_as_long_as_a_name_can(tmp_path: Path) -> None:
    target = tmp_path / ("é" * 127)
    with drafted(target) as made:
        made.write(PREPROCESSING, b'{"kind": "tensors"}')
        made.finish(TOLD)
    assert [path.name for path in tmp_path.iterdir()] == [target.name]

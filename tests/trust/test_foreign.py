"""A run that belongs to somebody else is one line that names the owner, whichever verb and whichever directory keeps it."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import shutil
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_rundir import frozen

import launcher.trust.foreign
from launcher.cli import VERBS, main
from launcher.trust import owner

SOMEBODY = 65_534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")


def import_all() -> None:
    """Before one is somebody else, who may not read the interpreter of root."""
    for module in (*VERBS.values(), "statistics", "encodings.ascii"):
        importlib.import_module(module)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that everybody may enter, which those of the tests are not."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    import_all()
    yield place
    shutil.rmtree(place)


def as_somebody(where: Path, *words: str, group: int = SOMEBODY) -> tuple[int, str, str]:
    """The command of a process that is nobody's but theirs, without root's power to read all."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        out, err, code = io.StringIO(), io.StringIO(), 99
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                os.setgroups([])
                os.setgid(group)
                os.setuid(SOMEBODY)
                owner._owners.cache_clear()  # pyright: ignore[reportPrivateUsage]
                os.chdir(where)
                os.environ |= {"HOME": str(where), "XDG_STATE_HOME": str(where / "state")}
                code = main(list(words))
            except BaseException:
                traceback.print_exc()
        os.write(writing, f"{code}\0{out.getvalue()}\0{err.getvalue()}".encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        code, out, err = answer.read().split("\0")
    os.waitpid(child, 0)
    return int(code), out, err


def _run(shared: Path, kept: str) -> Path:
    run = frozen(shared / "runs" / "toy" / "1").path
    for place in (shared / "runs", run.parent, run):
        place.chmod(0o755)
    {"directory": run, "runs_dir": shared / "runs", "files": run}[kept].chmod(0o755 if kept == "files" else 0o700)
    return run


@pytest.mark.parametrize("kept", ["directory", "runs_dir", "files"])
@pytest.mark.parametrize("verb", ["status", "why", "logs", "cancel", "collect", "resume", "tensorboard"])
def test_it_is_one_line(verb: str, kept: str, shared: Path) -> None:
    run = _run(shared, kept)
    code, out, err = as_somebody(shared, verb, str(run))
    owned = {"directory": run, "runs_dir": shared / "runs", "files": run / "plan.json"}[kept]
    assert (code, out) == (3, "")
    assert err.startswith(f"launcher: {run}/plan.json: Permission denied; {owned} belongs to root: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("kept", ["directory", "runs_dir", "files"])
def test_the_table_says_that_there_is_one(kept: str, shared: Path) -> None:
    _run(shared, kept)
    code, out, err = as_somebody(shared, "status")
    assert (code, err) == (0, "")
    assert "toy/1" not in out
    word = f"1 directory in {shared}/runs may not be read: ask root for runs_mode=group, or to chmod -R g+rX"
    assert out.splitlines()[-1] == word
    code, out, err = as_somebody(shared, "why", "toy")
    if kept == "runs_dir":
        assert (code, out, "runs belongs to root: ask" in err) == (3, "", True)
    else:
        assert (code, out, err.endswith(f"; {word}\n")) == (2, "", True)


def test_a_file_of_ones_own_is_called_so(tmp_path: Path) -> None:
    assert "is yours: chmod" in str(launcher.trust.foreign.refused(PermissionError(13, "Permission denied", str(tmp_path / "x"))))

"""File systems without links or locks, users without a home, directories that are gone, streams that are no terminal."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import PROJECT, REPO, TOY, Answer, claimed, refused, refused_process

from launcher.errors import RunError
from launcher.rundir import lock, rundir, standin

REFUSALS = REPO / "tests" / "refusals.py"
NO_LINKS = "symlink=EPERM,symlinkat=EPERM,link=EPERM,linkat=EPERM"


def refusing(calls: str, words: list[str], cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The launcher where these system calls are refused; a skip in plain sight where the kernel has no such filter."""
    argv = [sys.executable, str(REFUSALS), calls, sys.executable, "-m", "launcher", *words]
    done = subprocess.run(argv, cwd=cwd, env=environment, capture_output=True, text=True, timeout=100, check=False)
    if done.returncode == 77:
        pytest.skip("this kernel filters no system calls")
    return done


@pytest.mark.slow
def test_a_run_trains_and_is_seen_without_links_and_locks_and_fsync(
    tmp_path: Path, environment: dict[str, str], toy_words: tuple[str, ...], no_process_left: None
) -> None:
    calls = f"{NO_LINKS},flock=ENOLCK,fsync=EINVAL"
    done = refusing(calls, [*toy_words, "id=odd", "train.steps=4", "train.save_every=2"], tmp_path, {**environment, "LOGLEVEL": "debug"})
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "toy" / "odd"
    assert done.stderr.count("without locks") == 1
    assert "choose a runs_dir" in done.stderr
    assert (done.stdout + done.stderr).count("after a loss of power") == 1
    assert (run / "checkpoints" / "step_000000004").is_dir()
    assert not (run / "attempts" / "latest").exists()
    assert not list(run.glob("*.held*")) or not lock.is_held(run / ".lock")
    shown = refusing(calls, ["status", str(run)], tmp_path, environment)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "done" in shown.stdout


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def no_flock(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    def refuse(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(lock.fcntl, "flock", refuse)


def test_what_stands_in_for_a_lock_refuses_a_second_start_until_the_first_is_dead(tmp_path: Path, no_flock: None) -> None:
    place = tmp_path / ".lock"
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"from pathlib import Path; from launcher.rundir.standin import take; print(take(Path({str(place)!r})), flush=True); input()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "True\n"
    assert lock.is_held(place) is False  # no run there yet: nobody opened the lock itself
    place.touch()
    assert lock.is_held(place)
    with pytest.raises(RunError, match=r"rm .*held"):
        lock.hold(place, "attempt 001", 0)
    child.kill()
    child.communicate()
    assert not lock.is_held(place)
    os.close(lock.hold(place, "attempt 001", 0))
    assert lock.is_held(place)
    standin.leave(place)
    assert not lock.is_held(place)


@pytest.mark.parametrize(
    ("words", "held"),
    [("other-boot pid:[1] 1 1 elsewhere", True), (f"other-boot pid:[1] 1 1 {os.uname().nodename}", False), ("torn", False), ("", False)],
)
def test_a_holder_elsewhere_counts_as_alive_and_one_before_the_power_went_does_not(words: str, held: bool, tmp_path: Path) -> None:
    file = tmp_path / ".lock.000007.held"
    file.write_text(words, encoding="utf-8")
    os.utime(file, (0, 0))
    assert standin.is_held(tmp_path / ".lock") is held
    assert standin.take(tmp_path / ".lock") is not held


@pytest.mark.parametrize(
    "word", ["runs_dir=~/x", "runs_dir='~/x'", "runs_dir=~root/x", "+cluster.env.A=~/x", "data.root=~/x", "data.cache='~/x'"]
)
def test_a_home_is_put_into_any_key_quoted_or_not(word: str, command: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/a/home")
    answer = command("--cfg", "job", "+exp=cifar", "cluster=slurm", word)
    assert answer.code == 0, answer.err
    answer = command("plan", "+exp=cifar", word.replace("+cluster.env.A", "runs_dir"))
    assert answer.code == 0, answer.err
    if "runs_dir" in word and "root" not in word:
        assert '"/a/home/x/cifar' in answer.out


@pytest.mark.parametrize(
    "word", ["runs_dir=~nosuchuser/x", "data.cache=~nosuchuser/x", "data.root='~nosuchuser'", "runs_dir='~a`b'", "data.root='~a b'"]
)
def test_a_home_that_is_not_known_is_one_line(word: str, command: Callable[..., Answer]) -> None:
    refused(command("plan", "+exp=cifar", word), 2, word.partition("=")[0], "there is no user ", "whole path")


def test_no_home_at_all_is_one_line_where_one_is_needed(command: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "")
    refused(command("plan", "+exp=cifar", "runs_dir=~/x"), 2, "runs_dir=~/x", "HOME")


@pytest.mark.parametrize("verb", [("plan", *TOY), ("status",), ("logs", "x"), ("why", "x"), ("resume", "x"), ("cancel", "x")])
def test_a_working_directory_that_is_gone_is_one_line(verb: tuple[str, ...], command: Callable[..., Answer], tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    answer = command(*verb)
    os.chdir(tmp_path)
    assert "Traceback" not in answer.err
    assert len(answer.lines) <= 1, answer.err
    assert answer.code in (0, 2, 3)


class Notebook(io.StringIO):
    """A stream as notebooks have it: it takes text, and there is no descriptor behind it."""

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")


def test_called_from_a_notebook_it_leaves_everything_as_it_was(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from launcher.cli import main

    monkeypatch.chdir(tmp_path)
    out = Notebook()
    monkeypatch.setattr(sys, "stdout", out)
    mask = os.umask(0o022)
    try:
        path = [*sys.path]
        assert main(["plan", *TOY]) == 0
        assert main(["status"]) == 0
        assert os.umask(0o022) == 0o022
        assert sys.path == path
    finally:
        os.umask(mask)
    assert "run_dir" in out.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_of_any_encoding_takes_every_line(encoding: str, tmp_path: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "launcher", "logs", "läuft…×"],
        cwd=tmp_path,
        env={**environment, "PYTHONIOENCODING": f"{encoding}:strict"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("answer", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_fsync_of_directories_a_checkpoint_is_saved_and_says_once_what_that_costs(
    answer: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from launcher.train.checkpoint.checkpoint import CheckpointStore
    from launcher.train.world.ranks import Ranks

    really = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(answer, os.strerror(answer))
        really(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    store = CheckpointStore(tmp_path / "checkpoints", Ranks(0, 1), claimed(tmp_path), 0, keep=2)
    for step in (1, 2):
        store.save(step, {"model": (b"words",)})
    found = store.load(print)
    assert found is not None
    assert found.step == 2
    assert capsys.readouterr().out.count("loss of power") == 1


@pytest.mark.parametrize("answer", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_fsync_of_files_too_a_checkpoint_is_saved_and_says_once_what_that_costs(
    answer: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from launcher.train.checkpoint.checkpoint import CheckpointStore
    from launcher.train.record.metrics import MetricsFile
    from launcher.train.world.ranks import Ranks

    def fsync(_: int) -> None:
        raise OSError(answer, os.strerror(answer))

    monkeypatch.setattr(os, "fsync", fsync)
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics.write(1, "train", loss=1.0)
    store = CheckpointStore(tmp_path / "checkpoints", Ranks(0, 1), claimed(tmp_path), 0, keep=2, before_commit=metrics.sync)
    for step in (1, 2):
        store.save(step, {"model": (b"words",)})
    found = store.load(print)
    assert found is not None
    assert found.step == 2
    told = capsys.readouterr().out
    assert told.count("WARNING") == 1
    assert (
        f"cannot put a file on the disk for sure ({os.strerror(answer)}): after a loss of power the newest checkpoints may be torn" in told
    )
    assert "choose a runs_dir=… on another file system" in told


@pytest.mark.parametrize("answer", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_is_full_or_breaks_in_the_fsync_of_a_file_is_not_passed_over(
    answer: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data.store import cache
    from launcher.train.checkpoint.checkpoint import CheckpointStore
    from launcher.train.world.ranks import Ranks

    def fsync(_: int) -> None:
        raise OSError(answer, os.strerror(answer))

    claim = claimed(tmp_path)
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(RunError, match=f"could not be written.*{os.strerror(answer)}"):
        CheckpointStore(tmp_path / "checkpoints", Ranks(0, 1), claim, 0, keep=2).save(1, {"model": (b"words",)})
    with pytest.raises(RunError, match=os.strerror(answer)):
        rundir.write_atomic(tmp_path / "plan.json", "{}")
    with (tmp_path / "array").open("wb") as file, pytest.raises(OSError, match=os.strerror(answer)):
        cache._sync(file)  # pyright: ignore[reportPrivateUsage]


def test_a_disk_that_breaks_in_the_fsync_of_a_directory_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from launcher.train.checkpoint.checkpoint import CheckpointStore
    from launcher.train.world.ranks import Ranks

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(RunError, match="could not be written"):
        CheckpointStore(tmp_path / "checkpoints", Ranks(0, 1), claimed(tmp_path), 0, keep=2).save(1, {"model": (b"words",)})


@pytest.mark.slow
def test_a_run_leaves_nothing_among_the_temporary_files(
    tmp_path: Path, environment: dict[str, str], toy_words: tuple[str, ...], no_process_left: None
) -> None:
    """torchrun makes a directory there at each start and leaves it, and what torch compiles it takes from there, whoever made it."""
    for name in ("temporary", "home"):
        (tmp_path / name).mkdir()
    argv = [sys.executable, "-m", "launcher", *toy_words, "train.steps=2"]
    env = {**environment, "TMPDIR": str(tmp_path / "temporary"), "HOME": str(tmp_path / "home")}
    env.pop("TORCHINDUCTOR_CACHE_DIR", None)
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted((tmp_path / "temporary").rglob("*")) == []
    assert stat.S_IMODE((tmp_path / "home/.cache/launcher/torchinductor").stat().st_mode) == 0o700


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root, to take the names of users away")
def test_a_user_without_a_name_and_a_home_trains(tmp_path: Path, toy_words: tuple[str, ...], no_process_left: None) -> None:
    """In an environment as of `env -i`, and with what a login shell may have left: TMPDIR is gone, COLUMNS is no number."""
    (tmp_path / "nobody").touch()
    odd = {"TMPDIR": str(tmp_path / "gone"), "COLUMNS": "abc", "LANG": "C", "PYTHONOPTIMIZE": "2", "CDPATH": "/usr"}
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{REPO}{os.pathsep}{PROJECT}", "OMP_NUM_THREADS": "1", **odd}
    (tmp_path / "files").write_text("passwd: files\n")  # systemd's would give root its name back
    inside = 'mount --bind "$0/nobody" /etc/passwd && mount --bind "$0/files" /etc/nsswitch.conf && exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", inside, str(tmp_path), sys.executable, "-m", "launcher"]

    def launch(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*argv, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=90, check=False)

    done = launch(*toy_words, "id=a", "train.steps=2")
    assert (done.returncode, done.stderr) == (0, "")
    shown = launch("status")
    assert (shown.returncode, shown.stderr, "toy/a  done" in shown.stdout) == (0, "", True)
    refused_process(launch("plan", *TOY, "runs_dir=~/x"), 2, "runs_dir=~/x", "type the whole path")

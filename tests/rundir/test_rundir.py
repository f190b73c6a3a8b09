"""A run directory: private, whole or absent, found from anywhere, and one attempt's at a time."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import REPO, Answer
from test_render import PLAN

from launcher.errors import ConfigError, RunError
from launcher.plan import Plan
from launcher.rundir import lock, lookup
from launcher.rundir.lookup import find
from launcher.rundir.rundir import RunDir, create, read_jsonl, write_atomic
from launcher.verdict.standing import standing


def frozen(path: Path, **changes: Any) -> RunDir:
    here = create(path)
    plan = dataclasses.replace(PLAN, name=path.parent.name, id=path.name, run_dir=str(path), **changes)
    here.freeze(plan, "seed: 0\n", "#!/bin/sh\n")
    return here


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory and a state file of the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path


@pytest.fixture
def open_umask() -> Iterator[None]:
    saved = os.umask(0o000)
    yield
    os.umask(saved)


# ---------------------------------------------------------------- writing


@pytest.mark.usefixtures("open_umask")
def test_a_run_is_private_whatever_the_umask(tmp_path: Path) -> None:
    here = frozen(tmp_path / "runs" / "toy" / "a")
    here.log_event("submitted")
    assert stat.S_IMODE(here.path.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in here.path.iterdir() if path.is_file()}
    assert modes == dict.fromkeys(("config.yaml", "job.sh", "plan.json", "events.jsonl"), 0o600)


def test_a_frozen_plan_reads_back_as_it_was(tmp_path: Path) -> None:
    here = frozen(tmp_path / "runs" / "toy" / "a", env=(("A", "b c"),), overrides=("+exp=toy", "name='é\n'"))
    assert here.read_plan() == Plan.from_json(here.plan.read_text(), here.plan)
    assert (here.read_plan().env, here.read_plan().overrides) == ((("A", "b c"),), ("+exp=toy", "name='é\n'"))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"name": 1}', '{"world": 5}', "\x00\x00"])
def test_a_plan_that_is_torn_or_foreign_is_an_error_that_names_the_file(text: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"plan\.json is not a plan"):
        Plan.from_json(text, tmp_path / "plan.json")


def test_a_directory_is_made_once(tmp_path: Path) -> None:
    create(tmp_path / "runs" / "toy" / "a")
    with pytest.raises(FileExistsError):
        create(tmp_path / "runs" / "toy" / "a")
    (tmp_path / "runs" / "toy" / "b").write_text("")
    with pytest.raises(RunError, match="is a file, not a directory; choose another runs_dir="):
        create(tmp_path / "runs" / "toy" / "b")
    with pytest.raises(RunError, match=r"cannot be written .*; choose another with runs_dir="):
        create(tmp_path / "runs" / "toy" / "b" / "c" / "d")


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_atomic(path, "old")
    code = f"""
import resource
from pathlib import Path
from launcher.errors import RunError
from launcher.rundir.rundir import write_atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomic(Path({str(path)!r}), "x" * 100_000)
except RunError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == f"{path} cannot be written (File too large); make room or choose another runs_dir=…\n"
    assert (path.read_text(), list(tmp_path.iterdir())) == ("old", [path])


def test_a_write_over_a_directory_or_into_none_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for path in (tmp_path / "a", tmp_path / "missing" / "a"):
        with pytest.raises(RunError, match="cannot be written"):
            write_atomic(path, "text")
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


@pytest.mark.parametrize("torn", ['{"step": 3, "los', "", '{"step": 3}}', "\x00\x00\x00", "{'step': 3}", "é"])
def test_a_torn_line_is_passed_over_and_the_whole_ones_are_kept(torn: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{torn}\n{{"step": 2}}\n{torn}', encoding="utf-8")
    assert [record["step"] for record in read_jsonl(path)] == [1, 2]
    path.write_bytes(path.read_bytes() + b"\xff\xfe{")
    assert [record["step"] for record in read_jsonl(path)] == [1, 2]
    assert list(read_jsonl(tmp_path / "missing.jsonl")) == []


def test_events_of_many_writers_never_interleave(tmp_path: Path) -> None:
    code = f"""
import sys
from launcher.rundir.rundir import RunDir
run = RunDir({str(tmp_path)!r})
for number in range(200):
    run.log_event("saved", writer=int(sys.argv[1]), number=number, text="x" * 500)
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, str(writer)], cwd=REPO) for writer in range(3)]
    assert [writer.wait(timeout=30) for writer in writers] == [0, 0, 0]
    events = [json.loads(line) for line in RunDir(tmp_path).events.read_text().splitlines()]
    assert {(event["writer"], event["number"]) for event in events} == {(writer, number) for writer in range(3) for number in range(200)}


def test_checkpoints_are_set_aside_not_deleted(tmp_path: Path) -> None:
    here = frozen(tmp_path / "runs" / "toy" / "a")
    for number in range(2):
        (here.checkpoints / f"step_{number}").mkdir(parents=True)
        here.metrics.write_text(f"{number}")
        here.set_checkpoints_aside()
    assert not here.checkpoints.exists()
    assert not here.metrics.exists()
    assert [(here.path / f"checkpoints.old-{number}" / f"step_{number}").is_dir() for number in range(2)] == [True, True]
    assert [(here.path / f"metrics.jsonl.old-{number}").read_text() for number in range(2)] == ["0", "1"]
    assert here.plan.exists()


# ---------------------------------------------------------------- finding (more of it in test_lookup.py)


def test_a_run_is_found_by_path_id_label_and_name(home: Path) -> None:
    first = frozen(home / "elsewhere" / "toy" / "20260101-000000-000", directory=str(home / "cwd"))
    newest = frozen(home / "elsewhere" / "toy" / "20260102-000000-000", directory=str(home / "cwd"))
    lookup.remember(home / "elsewhere")
    local = frozen(Path("runs").resolve() / "other" / "x")
    for asked in (str(first), "20260101-000000-000", "toy/20260101-000000-000", "../elsewhere/toy/20260101-000000-000"):
        assert find(asked).path == first.path
    assert find("toy").path == newest.path
    assert find("other").path == find("x").path == find("runs/other/x").path == local.path
    for asked in ("nope", "", "/", "toy/nope", "20260101", "*", "../*", "a\0b"):
        with pytest.raises(ConfigError, match="no such run"):
            find(asked)


def test_an_id_that_two_runs_have_asks_for_a_path(home: Path) -> None:
    one, two = (frozen(home / "cwd" / "runs" / name / "same") for name in ("a", "b"))
    with pytest.raises(ConfigError, match=f"same: 2 runs have this id; give a path: {one}, {two}"):
        find("same")
    assert find("a/same").path == one.path


def test_a_half_made_directory_is_no_run_and_a_runs_dir_is_remembered_once(home: Path) -> None:
    create(home / "cwd" / "runs" / "toy" / "half")
    assert lookup.known() == ([], [])
    for _ in range(3):
        lookup.remember(home / "runs")
    assert (home / "state" / "launcher" / "runs_dirs").read_text() == f"{home / 'runs'}\n"
    (home / "state" / "launcher" / "runs_dirs").write_bytes(b"\xff\n/nowhere\n")
    assert lookup.known() == ([], [])
    with pytest.raises(ConfigError, match="no such run"):
        find("toy")


# ---------------------------------------------------------------- the lock and the states

HOLDER = """
import sys, time
from pathlib import Path
from launcher.errors import RunError
from launcher.rundir.lock import hold
try:
    hold(Path(sys.argv[1]), "attempt 7", 0)
except RunError:
    print("refused", flush=True)
else:
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def call(path: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], cwd=REPO, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield call
    for process in started:
        process.kill()
        process.communicate()


def _says(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_lock_names_its_holder_and_goes_with_it_by_kill_9(tmp_path: Path, holder: Callable[[Path], subprocess.Popen[str]]) -> None:
    path = tmp_path / ".lock"
    assert not lock.is_held(path)
    child = holder(path)
    assert _says(child) == "held"
    assert lock.is_held(path)
    for refuse in (lambda: lock.refuse_if_held(path), lambda: lock.hold(path, "attempt 8", patience=0)):
        with pytest.raises(RunError, match=rf"is being trained by attempt 7 on \S+, pid {child.pid}; watch it with"):
            refuse()
    os.kill(child.pid, signal.SIGKILL)
    mine = lock.hold(path, "attempt 8", patience=5)  # waits for a holder that is just dying
    assert "attempt 8" in path.read_text()
    assert lock.is_held(path)
    os.close(mine)
    assert not lock.is_held(path)
    lock.refuse_if_held(path)


def test_of_many_that_ask_at_once_one_holds(tmp_path: Path, holder: Callable[[Path], subprocess.Popen[str]]) -> None:
    assert sorted(map(_says, [holder(tmp_path / ".lock") for _ in range(5)])) == ["held", *["refused"] * 4]


def _summary(here: RunDir, attempt: int, ended: str) -> None:
    here.summary.write_text(json.dumps({"state": ended, "attempt": attempt}))


def test_the_state_of_a_run_is_read_from_what_its_attempts_left(
    home: Path, holder: Callable[[Path], subprocess.Popen[str]], command: Callable[..., Answer]
) -> None:
    here = frozen(home / "runs" / "toy" / "a")
    seen = [standing(here).word]
    here.attempt(0).mkdir()
    seen.append(standing(here).word)  # an attempt, no word from it, nobody alive
    child = holder(here.lock)
    _says(child)
    seen.append(standing(here).word)
    child.kill()
    child.wait()
    for ended in ("done", "stopped"):
        _summary(here, 0, ended)
        seen.append(standing(here).word)
    here.attempt(1).mkdir()
    seen.append(standing(here).word)  # the summary is of an attempt before
    here.error(1).write_text("{}")
    seen.append(standing(here).word)
    here.summary.write_text('{"state": "do')
    seen.append(standing(here).word)
    assert seen == ["submitted", "dead", "running", "done", "stopped", "dead", "failed", "failed"]


def test_status_shows_every_run_torn_files_and_all(command: Callable[..., Answer], tmp_path: Path) -> None:
    for number, ended in enumerate(("done", "stopped", "failed")):
        here = frozen(tmp_path / "runs" / "toy" / f"{number}")
        here.attempt(0).mkdir()
        _summary(here, 0, ended)
        here.log_event("started", attempt=0, steps=40)
        with here.events.open("a") as file:
            file.write('{"time": 1, "ev')
        here.metrics.write_text('{"step": 8, "split": "train", "loss": 0.5}\n{"step": 8, "split": "val", "loss": 9}\n{"step": 9, "spl')
    dead = frozen(tmp_path / "runs" / "toy" / "3")
    dead.attempt(0).mkdir()
    answer = command("status")
    assert (answer.code, answer.err) == (0, "")
    rows = [line.split() for line in answer.out.splitlines()]
    assert [row[:4] for row in rows[1:]] == [
        ["toy/0", "done", "8/40", "20%"],
        ["toy/1", "stopped", "8/40", "20%"],
        ["toy/2", "failed", "8/40", "20%"],
        ["toy/3", "dead", "0/?", "0"],
    ]
    assert all("0.5" in row for row in rows[1:4])
    assert "directory" in command("status", "toy/1").out

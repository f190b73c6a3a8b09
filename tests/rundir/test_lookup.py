"""Which run a word means: the newest by when it was submitted, of the project at hand, and never a guess where something is changed."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import Answer, refused
from test_rundir import frozen

from launcher.errors import ConfigError
from launcher.rundir import lock, lookup
from launcher.rundir.rundir import RunDir

NOW = float(int(time.time()) - 1_000_000)


@pytest.fixture
def made(tmp_path: Path, command: Callable[..., Answer]) -> Callable[..., RunDir]:
    """A run below tmp_path, submitted that many seconds after NOW; `command` has made tmp_path the project at hand."""

    def call(place: str, at: float = 0, directory: str = "/another/project") -> RunDir:
        run = frozen(tmp_path / place, directory=directory)
        run.events.write_text(json.dumps({"time": NOW + at, "event": "submitted"}) + "\n")
        lookup.remember(run.path.parent.parent)
        return run

    return call


# ---------------------------------------------------------------- the newest


def test_the_newest_is_the_last_submitted_whatever_its_id(made: Callable[..., RunDir]) -> None:
    made("runs/toy/zzz", 0)
    made("runs/toy/20991231-235959-999", 1)
    last = made("runs/toy/20260101-000000-000", 2)
    made("runs/toy/aaa", 1.5)
    assert lookup.find("toy").path == last.path
    assert [run.path.name[:3] for run in lookup.known().here] == ["zzz", "209", "aaa", "202"]


@pytest.mark.parametrize(
    "ledger",
    [
        '{"time": 17900',
        "",
        "\0\0\0\n",
        "[1]\n",
        '"text"\n7\nnull\n',
        '{"event": "submitted"}\n',
        '{"time": "2026", "event": "submitted"}\n',
        '{"time": true, "event": "submitted"}\n',
        '{"time": NaN, "event": "submitted"}\n',
        '{"time": 4e9, "event": "submitted"}\n',  # of a clock that was decades ahead
        '{"time": -1, "event": 5}\n',
        "[" * 100_000 + "\n",
        None,
    ],
)
def test_a_ledger_without_its_first_time_costs_the_plan_s_age_to_be_believed(
    ledger: str | None, made: Callable[..., RunDir], command: Callable[..., Answer]
) -> None:
    odd, last = made("runs/toy/odd"), made("runs/toy/last", 10)
    os.utime(odd.plan, (NOW + 5,) * 2)
    made("runs/toy/first", 0)
    odd.events.unlink()
    if ledger is not None:
        odd.events.write_text(ledger)
    assert lookup.find("toy").path == last.path
    assert [run.path.name for run in lookup.known().here] == ["first", "odd", "last"]
    for words in ((), (str(odd),)):
        shown = command("status", *words)
        assert (shown.code, shown.lines) == (0, [])
        assert "toy/odd" in shown.out


def test_a_second_line_of_the_ledger_stands_in_for_a_torn_first(made: Callable[..., RunDir]) -> None:
    torn, first = made("runs/toy/torn"), made("runs/toy/first", 3)
    torn.events.write_text('{"time": 17900\n' + json.dumps({"time": NOW + 5, "event": "started"}) + "\n")
    os.utime(torn.plan, (NOW, NOW))
    assert [run.path for run in lookup.known().here] == [first.path, torn.path]


def test_of_equal_times_the_copy_is_the_newer(made: Callable[..., RunDir], tmp_path: Path) -> None:
    original = made("runs/toy/z")
    time.sleep(0.02)  # two ticks of the file system's clock
    shutil.copytree(original.path, tmp_path / "runs" / "toy" / "a")
    assert lookup.find("toy").path.name == "a"


def test_status_shows_the_newest_25_and_says_how_many_are_older(made: Callable[..., RunDir], command: Callable[..., Answer]) -> None:
    for number in range(30):
        made(f"runs/toy/{99 - number}", number)
    rows = command("status").out.splitlines()
    assert [row.split()[0] for row in rows[1:-1]] == [f"toy/{99 - number}" for number in range(5, 30)]
    assert rows[-1] == "5 older runs of this project are left out; all of them: python -m launcher status --all"
    assert len(command("status", "--all").out.splitlines()) == 31


def test_the_newest_attempt_and_checkpoint_are_so_by_number(made: Callable[..., RunDir]) -> None:
    run = made("runs/toy/a")
    for name in ("998", "999", "1000", "0500", "latest", "12"):
        run.attempts.joinpath(name).mkdir()
    for name in ("step_999999999", "step_1000000000", "step_000000001", "step_latest", "tmp.step_2000000000"):
        (run.checkpoints / name).mkdir(parents=True)
    assert (run.newest_attempt(), run.newest_checkpoint()) == (1000, "step_1000000000")


# ---------------------------------------------------------------- the project at hand


def test_the_project_at_hand_comes_first_and_others_by_path_or_all(made: Callable[..., RunDir], command: Callable[..., Answer]) -> None:
    mine, theirs = made("runs/toy/mine", 0), made("other/runs/toy/theirs", 9)
    assert lookup.find("toy").path == mine.path
    assert lookup.find("toy", everywhere=True).path == lookup.find(str(theirs)).path == theirs.path
    assert str(mine) in command("why", "toy").out
    assert str(theirs) in command("why", "toy", "--all").out
    rows = command("status").out.splitlines()
    assert (len(rows), rows[-1]) == (3, "1 run elsewhere; all of them: python -m launcher status --all")
    assert [row.split()[-1] for row in command("status", "--all").out.splitlines()] == ["directory", str(mine), str(theirs)]


@pytest.mark.parametrize("verb", ["why", "resume", "logs", "status", "cancel", "tensorboard"])
def test_what_is_only_elsewhere_is_named_and_not_touched(verb: str, made: Callable[..., RunDir], command: Callable[..., Answer]) -> None:
    theirs = made("other/runs/toy/theirs")
    for word in ("toy", "theirs", "toy/theirs"):
        refused(command(verb, word), 2, f"{word}: no such run in this project", "add --all", str(theirs))


@pytest.mark.parametrize("verb", ["resume", "cancel"])
def test_a_verb_that_acts_never_guesses_between_two(verb: str, made: Callable[..., RunDir], command: Callable[..., Answer]) -> None:
    one, two = made("a/runs/toy/one"), made("b/runs/toy/two", 5)
    made("b/runs/toy/older", 1)
    refused(command(verb, "toy", "--all"), 2, "toy: runs of this name are in 2 directories; give a path", str(one), str(two))
    assert str(two) in command("why", "toy", "--all").out


def test_cancel_ends_the_one_that_goes_on_and_never_one_of_two(made: Callable[..., RunDir], command: Callable[..., Answer]) -> None:
    older, newer = made("runs/toy/older", 0), made("runs/toy/newer", 1)
    refused(command("cancel", "toy"), 3, f"{newer} is not running; nothing to cancel")
    held = [lock.hold(older.lock, "attempt 0", 0)]
    assert command("cancel", "toy").code == 0
    assert (older.stop.exists(), newer.stop.exists()) == (True, False)
    held.append(lock.hold(newer.lock, "attempt 0", 0))
    older.stop.unlink()
    refused(command("cancel", "toy"), 2, "toy: 2 runs of this name go on; give a path", str(older), str(newer))
    assert command("cancel", "toy/newer").code == 0
    assert (older.stop.exists(), newer.stop.exists()) == (False, True)
    for descriptor in held:
        os.close(descriptor)


def test_a_run_that_was_typed_here_is_of_this_project_wherever_it_is(
    made: Callable[..., RunDir], command: Callable[..., Answer], tmp_path: Path
) -> None:
    mine = made("scratch/toy/mine", 0, str(tmp_path))
    made("scratch/toy/theirs", 5)
    assert lookup.find("toy").path == lookup.find("toy", acts=True).path == mine.path
    here = made("runs/toy/here", 3)
    assert lookup.find("toy").path == here.path
    refused(command("cancel", "toy"), 2, str(mine), str(here))


def test_a_subdirectory_of_a_work_tree_is_its_project_and_another_one_beside_it_is_not(
    made: Callable[..., RunDir], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made("tree/a/runs/toy/x")
    (tmp_path / "tree" / "a" / "deep").mkdir()
    (tmp_path / "tree" / "b").mkdir()
    monkeypatch.chdir(tmp_path / "tree" / "a" / "deep")
    with pytest.raises(ConfigError, match="no such run in this project"):
        lookup.find("toy")
    (tmp_path / "tree" / ".git").mkdir()
    assert lookup.find("toy").path == run.path
    monkeypatch.chdir(tmp_path / "tree" / "b")
    with pytest.raises(ConfigError, match="no such run in this project"):
        lookup.find("toy")


@pytest.mark.parametrize("said", ["{}", "'{}' # mine", '"{}"', "${{oc.env:SCRATCH}}/far", "${{oc.env:NOT_SET,{}}}"])
def test_where_conf_local_puts_runs_is_of_this_project(
    said: str, made: Callable[..., RunDir], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made("far/toy/a")
    (tmp_path / "conf" / "local").mkdir(parents=True)
    (tmp_path / "conf" / "local" / "machine.yaml").write_text(f"# @package _global_\nruns_dir: {said.format(tmp_path / 'far')}\n")
    monkeypatch.setattr(lookup, "CONF", tmp_path / "conf")
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    assert lookup.find("toy").path == run.path


def test_a_directory_with_no_runs_says_where_there_are_some(made: Callable[..., RunDir], command: Callable[..., Answer]) -> None:
    assert command("status").out == "no runs yet; start one with: python -m launcher +exp=cifar\n"
    made("other/runs/toy/a")
    assert command("status").out == "no runs in this project; 1 run elsewhere; all of them: python -m launcher status --all\n"
    refused(command("tensorboard"), 2, "no runs in this project, 1 elsewhere", "tensorboard --all")


def test_a_sweep_is_looked_up_as_a_run_is(made: Callable[..., RunDir], command: Callable[..., Answer], tmp_path: Path) -> None:
    for place, directory in (("a", "/"), ("b", "/"), ("mine", str(tmp_path))):
        run = made(f"{place}/toy/s-0", 0, directory)
        sweep = tmp_path / place / ".sweeps" / ("t" if place == "mine" else "s")
        sweep.mkdir(parents=True)
        member = {"number": 0, "overrides": [], "run": str(run)}
        (sweep / "sweep.json").write_text(json.dumps({"objective": "test_loss", "members": [member]}))
    assert "1 members" in command("status", "t").out
    for verb in ("status", "cancel", "resume", "why", "logs"):
        refused(command(verb, "s"), 2, "s: no such run in this project", str(tmp_path / "a" / ".sweeps" / "s"))
    refused(command("collect", "s"), 2, "no such sweep in this project", str(tmp_path / "b" / ".sweeps" / "s"))
    for verb in ("status", "cancel", "resume", "collect"):
        refused(command(verb, "s", "--all"), 2, "2 sweeps have this id; give a path")


def test_a_working_directory_that_is_gone_has_no_runs_of_its_own(
    made: Callable[..., RunDir], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made("runs/toy/a")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert (lookup.known().here, lookup.find(str(run)).path) == ([], run.path)
    monkeypatch.chdir(tmp_path)

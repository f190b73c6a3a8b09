"""A run is where it is: copied, renamed, moved, or reached by a link, it goes on there, and its original is left alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm
from helpers import Answer, records, refused, run_dir
from processes import events, finish, losses, running, toy_words, wait_for

from launcher.rundir.rundir import RunDir

CP = shutil.which("cp") or "/bin/cp"  # `fake` leaves no other programs
Command = Callable[..., Answer]


def contents(place: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(place)): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file() and not path.is_symlink()
    }


def copy(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([CP, "-a", source, target], check=True)
    return target


def test_a_copy_goes_on_for_itself_and_so_does_a_run_that_was_moved(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "toy" / "a"
    words = toy_words(tmp_path / "runs", "id=a", "train.steps=200", "train.save_every=5")
    with running(tmp_path, words, TOY_STEP_SECONDS="0.03") as process:
        wait_for(lambda: max(losses(run), default=0) > 6, what="a checkpoint")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 75
    before = contents(run)
    twin = copy(run, tmp_path / "runs" / "toy" / "it's a copy (1)")
    done = finish(tmp_path, ["resume", str(twin)])
    assert done.returncode == 0, done.stderr
    assert (done.stdout.splitlines()[-1], max(losses(twin))) == (str(twin), 200)
    assert done.stderr == f"launcher: {twin} is a copy of {run}; it goes on in this place\n"
    assert contents(run) == before
    moved = events(twin, "moved")[0]
    assert (moved["from"], moved["to"], moved["copy"]) == (str(run), str(twin), True)
    assert json.loads((twin / "plan.json").read_text())["run_dir"] == str(twin)

    (tmp_path / "far").mkdir()
    new = tmp_path / "far" / "b"
    run.rename(new)
    (tmp_path / "link").symlink_to("far/b")
    done = finish(tmp_path, ["resume", "link"])
    assert done.returncode == 0, done.stderr
    assert (losses(new), events(new, "moved")[0]["copy"], run.exists()) == (losses(twin), False, False)


@pytest.mark.slow
def test_a_run_that_is_moved_while_it_trains_ends_in_a_line_and_goes_on_at_its_new_place(tmp_path: Path) -> None:
    run, new = tmp_path / "runs" / "toy" / "a", tmp_path / "other" / "runs" / "toy" / "a"
    new.parent.mkdir(parents=True)
    words = toy_words(tmp_path / "runs", "id=a", "train.steps=200", "train.save_every=5")
    with running(tmp_path, words, TOY_STEP_SECONDS="0.03") as process:
        wait_for(lambda: max(losses(run), default=0) > 6, what="a checkpoint")
        run.rename(new)
        refused_ = finish(tmp_path, ["resume", str(new)])
        assert refused_.returncode == 3 or process.poll() is not None
        _, err = process.communicate(timeout=30)
        assert (process.returncode, err.count("\n"), "is not there any more" in err) == (3, 1, True), err
    assert not run.exists()
    done = finish(tmp_path, ["resume", str(new)])
    assert done.returncode == 0, done.stderr
    assert sorted(losses(new)) == list(range(1, 201))


# ---------------------------------------------------------------- batch jobs, on programs in SLURM's place


@pytest.fixture
def fake(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path / "fake").instead(monkeypatch)
    fake.sbatch('number=$((100 + $(grep -c . "$home/submitted" || true))); accept $number; echo $number')
    (fake.bin / "scancel").write_text(f'#!/bin/bash\necho "$@" >>{fake.home}/cancelled\n')
    (fake.bin / "scancel").chmod(0o755)
    (fake.bin / "grep").symlink_to(shutil.which("grep") or "/bin/grep")
    return fake


@pytest.fixture
def submit(command: Command, toy_words: tuple[str, ...], fake: FakeSlurm) -> Callable[..., Path]:
    def call(*words: str) -> Path:
        answer = command(*words, *toy_words, "cluster=slurm", "cluster.device=cpu", "cluster.shared_filesystem=true")
        assert answer.code == 0, answer
        return run_dir(answer)

    return call


def job_of(run: Path) -> str:
    return str(records(run / "events.jsonl")[-1]["job"])


def test_a_copy_has_none_of_its_originals_jobs(command: Command, submit: Callable[..., Path], fake: FakeSlurm, tmp_path: Path) -> None:
    run = submit("id=a")
    before = contents(run)
    twin = copy(run, tmp_path / "kept" / "toy" / "a")
    assert command("status", str(run)).out.splitlines()[1].split()[1] == "queued"
    assert command("status", str(twin)).out.splitlines()[1].split()[1] == "submitted"
    assert f"a copy of {run}" in command("why", str(twin)).out
    refused(command("cancel", str(twin)), 3, "nothing to cancel")
    assert not (fake.home / "cancelled").exists()

    answer = command("resume", str(twin))
    assert (answer.code, fake.submitted) == (0, [f"{run}/job.sh", f"{twin}/job.sh"]), answer
    script = (twin / "job.sh").read_text()
    assert str(run) not in script
    assert (f"run={twin}" in script, f"code={twin}/code" in script) == (True, True)
    assert (contents(run), job_of(run), job_of(twin)) == (before, "101", "102")
    refused(command("resume", str(twin)), 3, "is pending as job 102 already")
    assert command("cancel", str(twin)).code == 0
    assert (fake.home / "cancelled").read_text() == "102\n"


def test_a_run_that_was_moved_still_has_its_job(command: Command, submit: Callable[..., Path], fake: FakeSlurm, tmp_path: Path) -> None:
    run = submit("id=a")
    new = tmp_path / "runs" / "toy" / "renamed"
    run.rename(new)
    refused(command("resume", str(new)), 3, "is pending as job 101 already")
    assert command("cancel", "renamed").code == 0
    assert (fake.home / "cancelled").read_text() == "101\n"
    (fake.home / "queue").write_text("")
    assert command("resume", str(new)).code == 0
    assert (fake.submitted[-1], job_of(new)) == (f"{new}/job.sh", "102")
    submit("id=a")  # another run at the old place: the moved one is no copy of it
    assert command("status", "renamed").out.splitlines()[1].split()[1] == "queued"


@pytest.mark.parametrize("how", ["copied", "moved"])
def test_a_sweep_is_its_members_beside_it(how: str, command: Command, submit: Callable[..., Path], fake: FakeSlurm, tmp_path: Path) -> None:
    sweep = submit("-m", "id=s", "optim.lr=0.1,0.2")
    runs = [RunDir(tmp_path / "runs" / "toy" / f"s-{number}") for number in range(2)]
    before = contents(tmp_path / "runs")
    if how == "copied":
        copy(tmp_path / "runs", tmp_path / "new")
    else:
        (fake.home / "queue").write_text("")
        (tmp_path / "runs").rename(tmp_path / "new")
    twin = tmp_path / "new" / ".sweeps" / sweep.name
    answer = command("resume", str(twin))
    assert answer.code == 0, answer
    for number, run in enumerate(runs):
        here = tmp_path / "new" / "toy" / run.path.name
        script = (here / "job.sh").read_text()
        assert (str(run) in script, f"code={twin}/code" in script) == (False, True)
        assert (twin / "tb" / str(number)).resolve() == here / "tb"
        assert os.path.realpath(twin / "arrays" / "1" / str(number)) == str(here)
    if how == "copied":
        assert contents(tmp_path / "runs") == before


@pytest.mark.parametrize(
    ("name", "words"), [("a\nb", "rename it"), ("a\udcff", "rename it"), ("x" * 200, ""), ("-a b$(touch owned)'\"", "")]
)
def test_a_place_of_any_name_is_a_place_or_a_line(
    name: str, words: str, command: Command, submit: Callable[..., Path], fake: FakeSlurm, tmp_path: Path
) -> None:
    run = submit("id=a")
    (fake.home / "queue").write_text("")
    new = run.with_name(name)
    run.rename(new)
    before = contents(new)
    answer = command("resume", str(new))
    assert (answer.code, answer.err.count("\n"), words in answer.err) == (3 if words else 0, 1, True), answer
    if words:
        assert contents(new) == before
    else:
        assert fake.submitted[-1] == f"{new}/job.sh"


def test_a_project_that_was_renamed_has_its_runs_elsewhere(
    command: Command, toy_words: tuple[str, ...], fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    answer = command(*toy_words, "cluster=slurm", "cluster.device=cpu", "cluster.shared_filesystem=true", "id=a")
    run = run_dir(answer)
    (fake.home / "queue").write_text("")
    (tmp_path / "project").rename(tmp_path / "renamed")
    monkeypatch.chdir(tmp_path / "renamed")
    answer = command("resume", str(run))
    assert answer.code == 0, answer
    assert json.loads((run / "plan.json").read_text())["directory"] == str(tmp_path / "renamed")
    assert answer.err.endswith(f"it goes on in {tmp_path / 'renamed'}\n")
    (fake.home / "queue").write_text("")
    assert command("resume", str(run)).err == ""


def test_a_copy_without_the_ledger_is_a_copy(command: Command, submit: Callable[..., Path], fake: FakeSlurm, tmp_path: Path) -> None:
    run = submit("id=a")
    twin = copy(run, tmp_path / "runs" / "toy" / "b")
    (twin / "events.jsonl").unlink()
    assert command("resume", str(twin)).code == 0
    assert (fake.submitted[-1], job_of(twin), job_of(run)) == (f"{twin}/job.sh", "102", "101")


def test_code_that_is_gone_is_named_before_anything_is_written(
    command: Command, submit: Callable[..., Path], fake: FakeSlurm, tmp_path: Path
) -> None:
    run = submit("id=a")
    (fake.home / "queue").write_text("")
    twin = copy(run, tmp_path / "runs" / "toy" / "b")
    shutil.rmtree(twin / "code")
    shutil.rmtree(run)
    before = contents(twin)
    refused(command("resume", str(twin)), 3, f"was at {run}/code and is gone")
    assert contents(twin) == before

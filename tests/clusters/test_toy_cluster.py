"""A third cluster that needs no edit in the launcher: tests/project/toyproject/spool.py, a scheduler that starts jobs from a directory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import Launch, refused_process, run_dir
from processes import events, losses, wait_for
from test_kill import shards

from launcher.rundir.rundir import RunDir

pytestmark = pytest.mark.timeout(240)


class Toy:
    """The launcher's verbs, with the words of the toy project on its spool."""

    def __init__(self, launch: Launch, words: tuple[str, ...], spool: Path, environment: dict[str, str]) -> None:
        self._launch, self.spool, self._environment = launch, spool, environment
        self.words = (*words, "cluster=spool")
        self._scheduler: subprocess.Popen[bytes] | None = None

    def __call__(self, *words: str, code: int = 0, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        done = self._launch(*words, env={"TOY_SPOOL": str(self.spool)}, timeout=timeout)
        assert done.returncode == code, done
        return done

    def submit(self, *words: str) -> RunDir:
        return RunDir(run_dir(self(*self.words, *words)))

    def open(self, slots: int = 1) -> None:
        argv = [sys.executable, "-m", "toyproject.spool", str(self.spool), str(slots)]
        environment = {**self._environment, "TOY_STEP_SECONDS": "0.1"}
        self._scheduler = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL)

    def close(self) -> None:
        if self._scheduler is not None:
            self._scheduler.terminate()
            self._scheduler.wait(timeout=20)

    def state(self, word: str) -> str:
        """Of the only row of the table."""
        return self("status", word).stdout.splitlines()[1].split()[1]

    def finished(self, run: RunDir) -> RunDir:
        wait_for(lambda: self.state(str(run)) == "done", 60, "the end of the job")
        return run


@pytest.fixture
def toy_spool(tmp_path: Path, launch: Launch, toy_words: tuple[str, ...], environment: dict[str, str]) -> Iterator[Toy]:
    spool = tmp_path / "spool"
    spool.mkdir()
    made = Toy(launch, toy_words, spool, environment)
    yield made
    made.close()


def test_a_run_of_it_is_started_seen_followed_and_explained(toy_spool: Toy) -> None:
    run = toy_spool.submit("cluster.processes_per_node=2", "train.steps=12", "train.batch_size=64")
    assert toy_spool.state("toy") == "queued"
    said = toy_spool("why", "toy").stdout
    assert "it waits: nobody starts jobs from the spool (Closed)" in said
    assert "the spool: job 1 PENDING (Closed) since " in said
    toy_spool.open()
    followed = toy_spool("logs", "toy", "-f", timeout=180).stdout
    assert "step 12/12" in followed
    toy_spool.finished(run)
    assert toy_spool("why", "toy").stdout.startswith("verdict    done: all 12 steps, in 1 attempt")
    assert json.loads(run.summary.read_text())["state"] == "done"
    assert [event["job"] for event in events(run.path, "queued")] == ["1"]
    assert len(list(run.attempt(0).glob("rank_*.log"))) == 2
    assert "this run is done already" in toy_spool("resume", "toy").stdout


@pytest.mark.slow
@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.full), 2])
def test_one_that_is_cancelled_and_resumed_is_equal_to_the_bit(toy_spool: Toy, processes: int) -> None:
    toy_spool.open()
    words = (f"cluster.processes_per_node={processes}", "train.steps=120", "train.save_every=5", "train.log_every=1")
    run = toy_spool.submit(*words)
    wait_for(lambda: bool(run.newest_checkpoint()), 120, "a checkpoint")
    assert toy_spool.state("toy") == "running"
    refused_process(toy_spool("resume", "toy", code=3), 3, "is running as job 1 already")
    assert "job 1 of" in toy_spool("cancel", "toy").stdout
    assert toy_spool.state("toy") == "cancelled"
    assert toy_spool("why", "toy").stdout.startswith("verdict    cancelled with `launcher cancel`")
    refused_process(toy_spool("cancel", "toy", code=3), 3, "has no job in the queue")
    assert "job     2" in toy_spool("resume", "toy").stdout
    toy_spool.finished(run)
    whole = toy_spool.finished(toy_spool.submit(*words))
    assert [event["step"] > 0 for event in events(run.path, "started")] == [False, True]
    assert losses(run.path) == losses(whole.path)
    assert shards(run.path) == shards(whole.path)


def test_one_that_fails_says_why(toy_spool: Toy) -> None:
    toy_spool.open()
    run = toy_spool.submit("loader.fail_at=3")
    wait_for(lambda: toy_spool.state("toy") == "failed", 120, "its end")
    said = toy_spool("why", "toy").stdout
    assert "where      rank 0 on" in said
    assert "correct it and start a new run" in said
    assert (run.attempt(0) / "ended").read_text() == "failed\n"


def test_a_sweep_is_a_job_for_each_member(toy_spool: Toy) -> None:
    toy_spool.open(slots=2)
    out = toy_spool("-m", *toy_spool.words, "train.steps=8,9", "id=swept").stdout
    assert "jobs     1, 2 (2 members, estimated start when its turn comes)" in out
    sweep = Path(out.splitlines()[-1]).name
    wait_for(lambda: "2 members: 2 done" in toy_spool("status", sweep).stdout, 150, "its members")
    table = toy_spool("collect", sweep).stdout
    assert "train.steps" in table
    assert len(table.splitlines()) >= 3
    refused_process(toy_spool("cancel", sweep, code=3), 3, "nothing to cancel")


def test_the_doctor_waits_in_its_queue(toy_spool: Toy) -> None:
    toy_spool.open()
    done = toy_spool("doctor", *toy_spool.words, "cluster.processes_per_node=2", timeout=200)
    assert "verdict: all fine" in done.stdout
    assert "2 of 2 to the end" in done.stdout


def test_where_the_spool_is_not_there_nothing_is_written_or_guessed(toy_spool: Toy, tmp_path: Path) -> None:
    run = toy_spool.submit()
    toy_spool.spool = tmp_path / "gone"
    refused_process(toy_spool(*toy_spool.words, "id=b", code=4), 4, "gone is no directory")
    assert not (run.path.parent / "b").exists()
    done = toy_spool("status", str(run))
    assert "the scheduler does not say: TOY_SPOOL=" in done.stderr
    refused_process(toy_spool("cancel", str(run), code=4), 4, "nothing was cancelled")


def test_its_code_is_not_imported_for_a_run_of_which_nobody_here_trusts_it(toy_spool: Toy, tmp_path: Path) -> None:
    """Whoever made the run directory: `status` shows the run, and asks no code that this user has not allowed."""
    run = toy_spool.submit()
    (tmp_path / "state" / "launcher" / "trusted").unlink()
    done = toy_spool("status", str(run))
    assert "its cluster toyproject.spool.Spool is of a package that you do not trust" in done.stderr
    assert "state" in done.stdout.splitlines()[0]

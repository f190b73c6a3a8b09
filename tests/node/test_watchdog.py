"""A rank that no longer trains: found, named, its stacks kept, and the next attempt ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from processes import REPO, TWO, events, finish, lines, losses, running, toy_words, wait_for, worker_of

from launcher.node import recorder
from launcher.node.pulse import EVALUATION, Beat, size
from launcher.node.watchdog import PATIENCE_SECONDS, judge
from launcher.train.guard.stragglers import STEPS
from launcher.train.watch import Watch
from launcher.train.world.patience import Patience

LIMIT = 3
WORDS = (*TWO, f"train.hang_seconds={LIMIT}")


def check(home: Path, rank: int, phase: str, what: str) -> float:
    """What a hang left behind. Returns how many seconds after its limit it was found."""
    run = home / "runs" / "toy" / "a"
    error = json.loads((run / "attempts" / "000" / "error.json").read_text())
    assert error["exception"] == "Hang"
    assert error["rank"] == rank
    found = re.search(rf"rank {rank} on \S+ hangs in {phase} of step \d+ for (\d+) s \(limit (\d+) s\): {what}", error["message"])
    assert found, error["message"]
    for each in (0, 1):
        assert "most recent call first" in (run / "attempts" / "000" / f"rank_{each}.log").read_text()
    assert (run / "attempts" / "000" / "outcome").read_text() == "hung\n"
    assert "hangs in" in events(run, "requeued")[0]["reason"]
    assert len(events(run, "started")) == 2
    return int(found[1]) - int(found[2])


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(
    ("how", "what"),
    [("loop", "it does not come to an end"), ("sleep", "it does not come to an end"), ("skip", "it has left out a message that rank 0")],
)
def test_a_rank_that_does_not_come(
    tmp_path: Path, whole: Path, full: bool, many: Callable[[int, int, int], int], how: str, what: str
) -> None:
    if how == "sleep" and not full:
        pytest.skip("to the watchdog it is a loop; with --full")
    for number in range(many(1, 4, 20)):
        home = tmp_path / str(number)
        home.mkdir()
        done = finish(home, toy_words(home / "runs", *WORDS, f"loader.fault=[{50 + number},{how}]"))
        assert done.returncode == 0, done.stderr
        late = check(home, 1, "backward" if how == "skip" else "data", what)
        assert late <= 5
        assert losses(home / "runs" / "toy" / "a") == losses(whole)
        print(f"{how}: found {late} s after its limit")


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(3000)
def test_a_rank_that_is_stopped(tmp_path: Path, whole: Path, many: Callable[[int, int, int], int]) -> None:
    for number in range(many(1, 4, 20)):
        home = tmp_path / str(number)
        home.mkdir()
        run = home / "runs" / "toy" / "a"
        with running(home, toy_words(home / "runs", *WORDS), TOY_STEP_SECONDS="0.02") as process:
            wait_for(lambda run=run: max(losses(run), default=0) > 30, what="30 steps")
            worker_of(process, number % 2).send_signal(signal.SIGSTOP)
            _, err = process.communicate(timeout=100)
            assert process.returncode == 0, err
        late = check(home, number % 2, r"\w+", "it is stopped")
        assert late <= 5
        assert losses(run) == losses(whole)
        print(f"SIGSTOP: found {late} s after its limit")


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(4000)
def test_clean_running_raises_no_alarm(tmp_path: Path, many: Callable[[int, int, int], int]) -> None:
    """With the limit that finds the hangs above, evaluations and saves; seven minutes with --full, an hour with --long. Nor is a rank
    called slow."""
    words = (*WORDS, "train.steps=10000000", "train.eval_every=20", "train.log_every=25")
    run = tmp_path / "runs" / "toy" / "a"
    with running(tmp_path, toy_words(tmp_path / "runs", *words), TOY_STEP_SECONDS="0.02") as process:
        wait_for(lambda: losses(run), what="the first line of metrics")  # a machine with other work takes its time to start
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(many(8, 420, 3600))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
    assert len(events(run, "started")) == 1
    assert not (run / "attempts" / "000" / "error.json").exists()
    assert max(losses(run)) >= 2 * STEPS
    assert not events(run, "slow_rank")
    evaluations = sum(line["split"] == "val" for line in lines(run / "metrics.jsonl"))
    print(f"{max(losses(run))} steps, {evaluations} evaluations, no alarm")
    assert evaluations > 2


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.full
@pytest.mark.timeout(100)
def test_without_the_watch_nobody_finds_it(tmp_path: Path) -> None:
    """The guard taken out: four limits later the run still stands."""
    words = toy_words(tmp_path / "runs", *TWO, "loader.fault=[50,sleep]", "train.hang_seconds=0")
    with running(tmp_path, words) as process:
        wait_for(lambda: max(losses(tmp_path / "runs" / "toy" / "a"), default=0) == 49, what="the hang")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(4 * LIMIT)


def beat(rank: int, step: int, phase: str, since: float = 0.0, pid: int = 0) -> Beat:
    return Beat(pid or os.getpid(), rank, step, phase, since, limit=10.0)


def test_nobody_is_blamed_within_the_limit() -> None:
    assert judge([beat(0, 5, "data", 95), beat(1, 5, "backward", 95)], {}, now=100) is None


def test_the_one_who_is_behind_is_blamed() -> None:
    verdict = judge([beat(0, 5, "backward"), beat(1, 5, "forward")], {}, now=100)
    assert verdict is not None
    assert verdict.beat.rank == 1
    assert verdict.text == "it does not come to an end, rank 0 in backward of step 6 waits"


@pytest.mark.parametrize(("phase", "blamed"), [("forward", False), ("backward", False), ("data", True)])
def test_a_host_that_waits_for_its_gpu_is_not_blamed(phase: str, blamed: bool) -> None:
    """Blocked in a call of CUDA it sleeps, or stands in torch: a process that sleeps stands in. Waiting for data is its own affair."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as idle:
        try:
            beats = [beat(0, 5, "backward", pid=idle.pid), beat(1, 5, phase, pid=idle.pid)]
            wait_for(lambda: psutil.Process(idle.pid).status() == "sleeping", what="the sleep")
            verdict = judge(beats, {}, now=100, on_gpu=True)
        finally:
            idle.kill()
    assert verdict is not None
    assert ("does not come to an end" in verdict.text) == blamed
    assert ("its host waits for its GPU" in verdict.text) != blamed


def test_a_loop_of_the_users_own_is_blamed_on_a_gpu_too() -> None:
    stacks = {1: '  File "/x/model.py", line 3 in forward\n  File "/x/launcher/train/loop.py", line 1'}
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            wait_for(lambda: psutil.Process(busy.pid).status() == "running", what="the loop")
            verdict = judge([beat(0, 5, "backward"), beat(1, 5, "forward", pid=busy.pid)], stacks, now=100, on_gpu=True)
        finally:
            busy.kill()
    assert verdict is not None
    assert verdict.text.startswith("it does not come to an end")


@pytest.mark.parametrize("floor", [0.5, 180.0, 7200.0, 1e5])
def test_the_watchdog_waits_less_than_nccl_and_nccl_less_than_gloo(floor: float) -> None:
    patience = Patience.of(floor, "linux")
    assert 0 < patience.watch < patience.nccl.total_seconds() < patience.gloo.total_seconds()
    assert patience.watch >= floor
    assert Patience.of(0, "linux") == Patience.of(floor, "darwin") == Patience(0.0, timedelta(minutes=10), timedelta(minutes=20))


@pytest.mark.parametrize(("slowest", "limit"), [(0.1, 10.0), (100.0, 2000.0), (10_000.0, 21_600.0)])
def test_no_phase_outlasts_the_most(slowest: float, limit: float, tmp_path: Path) -> None:
    """However slow steps have been: NCCL would be the first to speak."""
    watch = Watch.__new__(Watch)
    watch._floor, watch._most, watch._slowest, watch._steps, watch._is_outside = 10.0, Patience.of(10.0, "linux").watch, slowest, 5, False
    said: list[float] = []
    watch._beat = lambda step, phase, since, limit: said.append(limit)
    watch._began, watch._slowest_outside, watch._agreed = time.monotonic(), 0.0, (0, 0)
    watch.step(6)
    assert said == [limit]


def test_limits_are_the_most_that_any_rank_has_learned(tmp_path: Path) -> None:
    """A node with quick evaluations waits for one with slow ones."""
    watch = Watch.__new__(Watch)
    watch._floor, watch._most, watch._slowest, watch._steps, watch._is_outside = 10.0, 5000.0, 1.0, 5, False
    watch._agreed, watch._step, watch._limit = (0, 0), 5, 10.0
    said: list[float] = []
    watch._beat = lambda step, phase, since, limit: said.append(limit)
    watch._began, watch._slowest_outside = time.monotonic(), 4.0
    assert watch.learned() == (20, 40)
    watch.step(6)
    watch.outside(EVALUATION)
    watch.agree(300, 900)
    watch.step(7)
    watch.outside(EVALUATION)
    watch.agree(10**6, 10**6)
    watch.step(8)
    assert said == [20, 100, 300, 900, 5000]


TORCH = """
import os, sys, time
stem, rank, attempt = os.environ["TORCH_NCCL_DEBUG_INFO_PIPE_FILE"], sys.argv[1], sys.argv[2]
time.sleep(0.3)
os.mkfifo(name := f"{stem}{rank}.pipe")
pipe = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
while not os.read(pipe, 1):
    time.sleep(0.1)
open(f"{attempt}/nccl_rank_{rank}", "w").write("collectives")
time.sleep(60)
"""


def test_a_rank_that_hangs_is_asked_for_its_last_collectives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for torch's thread, which makes a pipe, looks into it, and writes the file. One rank of three has none."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv(recorder.PIPE, recorder.stem())
    assert not list(tmp_path.iterdir())
    ranks = [subprocess.Popen([sys.executable, "-c", TORCH, str(rank), str(tmp_path)]) for rank in (4, 5)]
    try:
        processes = [(ranks[0].pid, 4), (ranks[1].pid, 5)]
        left = processes
        until = time.monotonic() + 20
        while left and time.monotonic() < until:
            left = recorder.hide(left)
            time.sleep(0.05)
        assert not list(tmp_path.iterdir()), "no name is left, however they end"
        assert recorder.ask([*processes, (os.getpid(), 6)], tmp_path) == 2
        assert sorted(path.name for path in tmp_path.iterdir()) == ["nccl_rank_4", "nccl_rank_5"]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    assert recorder.stem() == "", "torch ends a process that cannot make its pipe"


def test_one_who_waits_for_a_message_is_not_blamed_for_being_behind() -> None:
    stacks = {0: '  File "/x/torch/distributed/distributed_c10d.py", line 1 in barrier\n  File "/x/launcher/train/loop.py", line 1'}
    verdict = judge([beat(0, 5, "data"), beat(1, 6, "boundary")], stacks, now=100)
    assert verdict is not None
    assert verdict.beat.rank == 1
    assert verdict.text == "it has left out a message that rank 0 in data of step 6 waits for"


def test_where_all_wait_the_node_of_the_culprit_speaks_first() -> None:
    """A process that does nothing: waiting for a message of another node looks like this."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as idle:
        try:
            beats = [beat(0, 5, "backward", pid=idle.pid), beat(1, 5, "backward", pid=idle.pid)]
            assert judge(beats, {}, now=10.5) is None
            verdict = judge(beats, {}, now=10.5 + PATIENCE_SECONDS)
        finally:
            idle.kill()
    assert verdict is not None
    assert "on another node" in verdict.text


@pytest.mark.timeout(30)
def test_it_ends_where_the_worker_died_before_it_began(tmp_path: Path) -> None:
    """The kernel only tells of a parent that dies later."""
    shared = os.memfd_create("pulse")
    os.ftruncate(shared, size(1))
    nobody = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout.strip()
    words = [sys.executable, "-m", "launcher.node.watchdog", str(tmp_path), "0", "0", str(shared), "1", nobody, "cpu"]
    assert subprocess.run(words, pass_fds=[shared], cwd=REPO, timeout=20, check=False).returncode == 0


def test_a_job_that_was_suspended_is_not_late() -> None:
    beats = [beat(0, 5, "data"), beat(1, 5, "data")]
    assert judge(beats, {}, now=100, awake=95) is None
    assert judge(beats, {}, now=106, awake=95) is not None


def test_one_who_is_behind_within_its_own_limit_is_waited_for() -> None:
    """It has seen slower steps than the others, whose limits are shorter for that."""
    slow = Beat(os.getpid(), 0, 5, "data", 0.0, limit=400.0)
    assert judge([slow, beat(1, 5, "backward")], {}, now=200) is None
    verdict = judge([slow, beat(1, 5, "backward")], {}, now=401)
    assert verdict is not None
    assert verdict.beat.rank == 0


def test_who_has_ended_keeps_nobody_waiting() -> None:
    assert judge([beat(0, 5, "end"), beat(1, 5, "data", 95)], {}, now=100) is None

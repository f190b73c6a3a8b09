"""A script that knows nothing of the launcher: what its words may name, when it is told, how its bar is read; one that is stopped twice.

The other families, and what a cluster does to them: `python benchmarks/families.py`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest
import small_scripts as scripts
from helpers import REPO, Command, refused
from processes import finish, running, wait_for

from launcher.rundir.rundir import RunDir
from launcher.rundir.tail import Tail
from launcher.scripted.work import _Stop

OUT = "'${oc.env:LAUNCHER_CHECKPOINT_DIR}'"


def test_only_its_words_may_name_what_each_process_is_given(command: Command, tmp_path: Path) -> None:
    file = scripts.written(tmp_path, "train.py", "")
    answer = command("plan", f"script={file}", "script.args=['${oc.env:LOCAL_RANK}']", f"script.resume_args=[--to,{OUT}]", "id=a")
    assert answer.code == 0, answer.err
    strange = command("run", f"script={file}", "script.args=['${oc.env:LAUNCHER_CHECKPOINT_DIRECTORY}']")
    refused(strange, 2, "script.args[0]", "LAUNCHER_CHECKPOINT_DIRECTORY")
    refused(command("run", f"script={file}", f"runs_dir={OUT}"), 2, "runs_dir", "LAUNCHER_CHECKPOINT_DIR")
    assert not (tmp_path / "runs").exists()


def test_ranks_that_look_at_different_times_are_told_at_the_same_moment(tmp_path: Path) -> None:
    told: list[float] = []

    def listen(stop: _Stop) -> None:
        while not stop.is_there():
            time.sleep(0.02)
        told.append(time.time())

    ranks = []
    for _ in range(2):
        ranks.append(threading.Thread(target=listen, args=(_Stop(RunDir(tmp_path), world=2),)))
        ranks[-1].start()
        time.sleep(0.5)
    (tmp_path / "STOP").touch()
    for each in ranks:
        each.join(10)
    assert len(told) == 2
    assert abs(told[0] - told[1]) < 0.15


def test_a_bar_is_read_before_its_line_has_an_end(tmp_path: Path) -> None:
    log = tmp_path / "rank_0.log"
    log.write_text("first\n 10%| 1/10\r 20%| 2/10\r 30%| 3/10")
    assert list(Tail(log, bars=True).lines()) == ["first", " 10%| 1/10", " 20%| 2/10"]
    assert list(Tail(log).lines()) == ["first"]


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_one_in_the_shape_of_torchtitan_is_stopped_twice_and_trains_each_step_once(tmp_path: Path) -> None:
    args = f"script.args=[--steps,60,--pause,0.1,--output-dir,{OUT}]"
    words = [f"script={REPO / 'benchmarks/families/titan.py'}", args, "cluster.processes_per_node=2", "id=a"]
    run = tmp_path / "runs/titan/a"
    for attempt, asks in enumerate((signal.SIGINT, signal.SIGTERM)):
        with running(tmp_path, words) as process:
            log = run / f"attempts/{attempt:03d}/rank_0.log"
            wait_for(lambda log=log: log.exists() and log.read_text().count("step: ") >= 5, 60, "its fifth step")
            os.kill(process.pid, asks)
            _, err = process.communicate(timeout=60)
        assert process.returncode == (130 if asks == signal.SIGINT else 75), err
        words = ["resume", str(run)]
    done = finish(tmp_path, words)
    assert done.returncode == 0, done.stderr
    logs = [path.read_text() for path in sorted(run.glob("attempts/[0-9]*/rank_0.log"))]
    steps = [int(step) for log in logs for step in re.findall(r"^step: (\d+)/60", log, re.MULTILINE)]
    assert steps == list(range(1, 61))
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["state"], summary["attempts"]) == ("done", 3)
    assert (run / "checkpoints/step-60/.metadata").is_file()

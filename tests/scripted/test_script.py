"""`script=FILE` on this machine: what it is given, how it is stopped, what is said of its end. Real torchrun processes."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import small_scripts as scripts
from helpers import REPO, run_dir
from processes import descendants, events, finish, running, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

COUNTED = r'script.progress="iter (?P<step>\d+)/(?P<total>\d+) loss (?P<loss>\S+)"'


def said(run: Path, attempt: int = 0, rank: int = 0) -> dict[str, Any]:
    text = (run / f"attempts/{attempt:03d}/rank_{rank}.log").read_text()
    return json.loads(next(line for line in text.splitlines() if line.startswith("said "))[5:])


def test_it_gets_its_words_as_they_are_torchruns_variables_and_a_place(tmp_path: Path) -> None:
    file = scripts.written(tmp_path / "my scripts", "it's (a) script, 1=2.py", scripts.SAYS)
    words = ["--lr", "1e-3", "07", "true", "null", "a b", "$(touch x)", "`x`", "-oProxyCommand=x", 'a"b', "it's", "ä", "--", "2024_11"]
    plain = re.compile(r"(?!null$)[\w.-]+", re.ASCII)
    quoted = ",".join(word if plain.fullmatch(word) else "'" + word.replace("'", "\\'") + "'" for word in words)
    scripts.written(tmp_path / "theirs", "models.py", 'WHOSE = "the user\'s"')
    path = os.pathsep.join((str(REPO), str(tmp_path / "theirs")))
    given = [f"script={file}", f"script.args=[{quoted}]", "cluster.processes_per_node=2", "id=a", "+lr=0.5"]
    done = finish(tmp_path, given, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    run = run_dir(done)
    assert run == tmp_path / "runs" / "it-s-a-script-1-2" / "a"
    for rank in (0, 1):
        found = said(run, rank=rank)
        assert found["argv"] == words
        assert (found["RANK"], found["LOCAL_RANK"], found["WORLD_SIZE"], found["LAUNCHER_ATTEMPT"]) == (str(rank), str(rank), "2", "000")
        assert found["cwd"] == str(tmp_path)
        assert (found["LAUNCHER_RUN_DIR"], found["LAUNCHER_CHECKPOINT_DIR"]) == (str(run), str(run / "checkpoints"))
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["state"], summary["attempts"]) == ("done", 1)
    left = [process for process in psutil.process_iter(["environ"]) if (process.info["environ"] or {}).get("LAUNCHER_RUN_DIR") == str(run)]
    assert left == [], "what it has started ends with it"
    again = finish(tmp_path, ["resume", str(run)])
    assert again.returncode == 0
    assert "this run is done already" in again.stdout


def test_stopped_by_the_signal_it_names_and_gone_on_with_more_words(tmp_path: Path) -> None:
    file = scripts.written(tmp_path, "count.py", scripts.COUNTS)
    words = [f"script={file}", "script.args=[USR1,120]", "script.resume_args=[--resume]", "script.stop_signal=USR1", COUNTED]
    with running(tmp_path, [*words, "cluster.processes_per_node=2", "id=a"]) as process:
        run = tmp_path / "runs/count/a"
        logs = [run / f"attempts/000/rank_{rank}.log" for rank in (0, 1)]
        wait_for(lambda: all(log.exists() and "iter 5/" in log.read_text() for log in logs), 60, "its fifth step")
        for child in descendants(process.pid):  # as a scheduler does that means all processes of a job
            if str(file) in child.cmdline():
                child.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "asked to stop (SIGUSR1)" in logs[0].read_text()
    saved = [int((run / f"checkpoints/step.{rank}").read_text()) for rank in (0, 1)]
    assert min(saved) >= 5
    assert "step 5/120" in out or "step " in out
    done = finish(tmp_path, ["resume", str(run)])
    assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        text = (run / f"attempts/001/rank_{rank}.log").read_text()
        assert f"begins at {saved[rank]}\n" in text
        assert f"iter {saved[rank] + 1}/120" in text
        assert "iter 120/120" in text
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["state"], summary["steps"], summary["attempts"], summary["loss"]) == ("done", 120, 2, 0.0083)
    told = finish(tmp_path, ["status"])
    assert "120/120  100%" in told.stdout
    assert "0.0083" in told.stdout


def test_a_process_that_is_killed_is_tried_again_and_one_that_fails_is_not(tmp_path: Path) -> None:
    file = scripts.written(tmp_path, "count.py", scripts.COUNTS)
    words = [f"script={file}", "script.args=[TERM,60]", "cluster.processes_per_node=2", "id=a"]
    with running(tmp_path, words) as process:
        run = tmp_path / "runs/count/a"
        log = run / "attempts/000/rank_1.log"
        wait_for(lambda: log.exists() and "iter 3/" in log.read_text(), 60, "its third step")
        next(child for child in reversed(descendants(process.pid)) if str(file) in child.cmdline()).kill()
        _, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    assert "was killed by SIGKILL" in err
    assert [event["attempt"] for event in events(run, "started")] == [0, 1]

    fails = scripts.written(tmp_path, "fails.py", scripts.FAILS)
    done = finish(tmp_path, [f"script={fails}", "cluster.processes_per_node=2", "id=b"])
    assert done.returncode == 1
    assert done.stderr == f"launcher: rank 1: {fails} ended with exit code 1: ValueError: no such column: price\n"
    assert not [child for child in psutil.process_iter(["cmdline"]) if str(fails) in (child.info["cmdline"] or ())]


def test_one_that_is_deaf_to_the_signal_ends_by_it_and_is_no_failure(tmp_path: Path) -> None:
    file = scripts.written(tmp_path, "deaf.py", scripts.DEAF)
    with running(tmp_path, [f"script={file}", "id=a"]) as process:
        run = tmp_path / "runs/deaf/a"
        log = run / "attempts/000/rank_0.log"
        wait_for(lambda: log.exists() and "\ndeaf" in log.read_text(), 60, "its word")
        (run / "STOP").touch()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "asked to stop, " in log.read_text()
    assert "deaf.py has ended by Terminated; what it has saved is all that is known of" in log.read_text()
    assert json.loads((run / "summary.json").read_text())["state"] == "stopped"


def test_processes_of_a_plain_script_meet_by_torchruns_words_after_a_restart_too(tmp_path: Path) -> None:
    text = 'import os\nif os.environ["TORCHELASTIC_RESTART_COUNT"] == "0": os._exit(int(os.environ["RANK"]))\n' + scripts.MEETS
    scripts.written(tmp_path / "package", "__init__.py", "")
    scripts.written(tmp_path / "package", "meets.py", text)
    words = ["script=package.meets", "script.module=true", "cluster.processes_per_node=2", "cluster.max_restarts=1", "id=a"]
    done = finish(tmp_path, words)
    assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        text = (tmp_path / f"runs/package.meets/a/attempts/000/rank_{rank}.log").read_text()
        assert "accelerate has 2\n" in text
        assert "met 2\n" in text


def test_nothing_of_it_stays_when_the_launcher_is_killed(tmp_path: Path) -> None:
    file = scripts.written(tmp_path, "deaf.py", scripts.DEAF)
    with running(tmp_path, [f"script={file}", "id=a", "cluster.processes_per_node=2"]) as process:
        log = tmp_path / "runs/deaf/a/attempts/000/rank_1.log"
        wait_for(lambda: log.exists() and "deaf" in log.read_text(), 60, "its word")
        children = descendants(process.pid)
        torchrun = next(child for child in children if "launcher.train.torchrun" in child.cmdline())
        theirs = [child for child in children if str(file) in _words(child)]
        os.kill(torchrun.pid, signal.SIGKILL)
        wait_for(lambda: not any(child.is_running() and child.status() != "zombie" for child in theirs), 20, "their end")


def _words(child: psutil.Process) -> list[str]:
    try:
        return child.cmdline()
    except psutil.Error:
        return []

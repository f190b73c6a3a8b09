"""Processes that a verb starts and hears (launcher/clusters/submit.py): whoever ends the verb ends them, and they tidy up first where
there is time for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from helpers import REPO

CHILD = """
import os, sys, time
from pathlib import Path
from launcher.train.prepare import served

def work(given):
    here = Path(given["here"])
    try:
        (here / "pid").write_text(str(os.getpid()))
        (here / "ready").touch()
        time.sleep(60)
    finally:
        (here / "tidied").touch()
    return {}

sys.exit(served(work))
"""
PARENT = """
import sys
from launcher.clusters import submit
from launcher.errors import interrupted
try:
    submit._answered("hears_for_ever", "export", {"here": sys.argv[1]})
except KeyboardInterrupt as told:
    sys.exit(interrupted(told))
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_child_ends_with_its_parent_however_that_ends(tmp_path: Path, number: int, code: int, no_process_left: None) -> None:
    (tmp_path / "hears_for_ever.py").write_text(CHILD)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(REPO), str(tmp_path)))}
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], cwd=tmp_path, env=environment)
    try:
        deadline = time.monotonic() + 50
        while not (tmp_path / "ready").exists():
            assert time.monotonic() < deadline
            assert parent.poll() is None
            time.sleep(0.02)
        child = int((tmp_path / "pid").read_text())
        assert os.getsid(child) == child, "a Ctrl-C that is typed reaches it by its parent alone"
        parent.send_signal(number)
        assert parent.wait(20) == code
    finally:
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 5
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
    assert (tmp_path / "tidied").exists() == (number != signal.SIGKILL)

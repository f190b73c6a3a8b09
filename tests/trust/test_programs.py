"""Programs that do not stop talking, or say nothing for ever: the scheduler's, git, bash; asked by the launcher and by a job's shell."""

from __future__ import annotations

import os
import subprocess
import time
import tracemalloc
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm
from helpers import REPO, Command, refused
from hostile import MOST_BYTES, MOST_SECONDS

from launcher.clusters import submit
from launcher.code import git
from launcher.errors import ConfigError, NoAnswer
from launcher.trust import program

TALK = "while :; do printf '%01048576d' 0; done"
ENDLESS = {
    "words": TALK,
    "complaints": f"{{ {TALK}; }} >&2",
    "zeros": "exec cat /dev/zero",
    "lines of a child": "yes & wait",
    "without listening": "exec <&-; exec cat /dev/zero",
}


@pytest.mark.parametrize("bash", ENDLESS.values(), ids=ENDLESS)
def test_a_program_that_does_not_stop_talking_is_ended_and_costs_little(bash: str) -> None:
    tracemalloc.start()
    begin = time.monotonic()
    try:
        with pytest.raises(NoAnswer, match="bash said more than 16 MiB, and was ended"):
            submit.ask(["bash", "-c", bash], 60, "x" * 1_000_000)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
    assert time.monotonic() - begin < MOST_SECONDS


@pytest.mark.parametrize("bash", ["exec sleep 60", "exec >&- 2>&-; exec sleep 60", "while :; do echo a word; sleep 0.05; done"])
def test_a_program_that_does_not_end_is_not_waited_for(bash: str) -> None:
    """Whether it is silent, has hung up, or says a word now and then."""
    begin = time.monotonic()
    with pytest.raises(TimeoutError):
        program.hear(["bash", "-c", bash], 0.4)
    assert time.monotonic() - begin < MOST_SECONDS


def test_what_a_program_says_and_hears_is_whole() -> None:
    text = bytes(range(256)) * 20_000
    assert program.hear(["cat"], 20, text) == (0, text, b"")
    said = program.hear(["bash", "-c", "echo a; echo b >&2; exit 3"], 20)
    assert said == (3, b"a\n", b"b\n")


@pytest.mark.parametrize("name", ["test_only", "scontrol", "sbatch"])
def test_a_scheduler_that_does_not_stop_talking_is_as_one_that_does_not_answer(
    name: str, command: Command, on_slurm: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job is queued without what it would have said; where it is sbatch itself, a job may have come of it, and the run is kept."""
    FakeSlurm(tmp_path / "slurm").instead(monkeypatch).answers(name, TALK)
    answer = command(*on_slurm)
    if name == "sbatch":
        refused(answer, 4, "sbatch said more than 16 MiB, and was ended", "the script is kept in")
    else:
        assert answer.code == 0
    assert len(answer.out + answer.err) < 3_000


def test_a_git_that_does_not_stop_talking_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "git").write_text(f"#!/bin/bash\n{TALK}\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(ConfigError, match=r"git said more than 16 MiB, and was ended; add large directories to \.gitignore"):
        git.names(tmp_path)


def test_a_jobs_shell_reads_no_more_of_a_controller_than_it_may_say(tmp_path: Path) -> None:
    """Functions of launcher/clusters/slurm/slurm.sh, with an address space that an endless line would fill."""
    (tmp_path / "scontrol").write_text("#!/bin/bash\nprintf 'JobId=7 JobState=RUNNING '\nexec tr '\\0' x </dev/zero\n")
    (tmp_path / "scontrol").chmod(0o755)
    text = (REPO / "launcher" / "clusters" / "slurm" / "slurm.sh").read_text(encoding="utf-8")
    wanted = [part for part in text.split("\n\n") if "ask_job() {" in part or "job_state() {" in part]
    script = "\n".join(["set -euo pipefail; ulimit -v 400000; job=7", *wanted, "job_state"])
    env = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, timeout=10, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "RUNNING"), done.stderr

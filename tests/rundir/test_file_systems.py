"""File systems without links and locks, under load: a rank that is killed, several starts at once, batch jobs and arrays."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm
from helpers import records, run_dir
from test_homes import NO_LINKS, REFUSALS, refusing

from launcher.rundir import rundir
from launcher.rundir.rundir import RunDir
from launcher.trust import reading

NOTHING = f"{NO_LINKS},flock={{0}}"


DATA = """
import sys
from pathlib import Path
from data.store.files import one_at_a_time
from launcher.code.snapshot import Source
with one_at_a_time(Path(sys.argv[1], "cache", "x.lock"), "decoding"):
    Source((("a.py", Path(sys.argv[1], "link.py")),)).copy_to(Path(sys.argv[1], "code"))
"""


@pytest.mark.parametrize("answer", ["ENOSYS", "ENOLCK", "EPERM"])
def test_data_and_code_need_neither_links_nor_locks(answer: str, tmp_path: Path, environment: dict[str, str]) -> None:
    """One line of warning, no warning of a library's; what a link in the code leads to is in the copy."""
    (tmp_path / "real.py").write_text("words = 1\n")
    (tmp_path / "link.py").symlink_to("real.py")
    argv = [sys.executable, str(REFUSALS), NOTHING.format(answer), sys.executable, "-c", DATA, str(tmp_path)]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == done.stderr.count("has no file locks") == 1, done.stderr
    assert (tmp_path / "code" / "a.py").read_text() == "words = 1\n"


@pytest.mark.slow
def test_a_rank_that_is_killed_is_started_again_in_a_sandbox_without_links_and_locks(
    tmp_path: Path, environment: dict[str, str], toy_words: tuple[str, ...], no_process_left: None
) -> None:
    """The lock of the killed attempt is free again, checkpoints are pruned, and the warning comes once for both attempts. What a site's
    BASH_ENV does to every script does nothing to ours."""
    (tmp_path / "site.sh").write_text("exit 9\n")
    words = [*toy_words, "id=poor", "train.steps=12", "train.save_every=2", "train.keep=2", "loader.fault=[7,segfault]"]
    done = refusing(
        NOTHING.format("EPERM"), words, tmp_path, {**environment, "TOY_STEP_SECONDS": "0.05", "BASH_ENV": str(tmp_path / "site.sh")}
    )
    run = RunDir(tmp_path / "runs" / "toy" / "poor")
    assert done.returncode == 0, done.stderr
    assert [done.stderr.count(words) for words in ("without locks", "starting again from step_0000")] == [1, 1]
    assert (run.newest_attempt(), run.newest_checkpoint()) == (1, "step_000000012")
    assert len(list(run.checkpoints.glob("step_*"))) == 2


HOLDER = """
import sys
from pathlib import Path
from launcher.rundir import lock
from launcher.errors import RunError
try:
    held = lock.hold(Path(sys.argv[1]), "attempt 7", 0)
except RunError as error:
    sys.exit(f"refused: {error}")
print("held", lock.is_held(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def holder(answer: str, path: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    argv = [sys.executable, str(REFUSALS), f"flock={answer}", sys.executable, "-c", HOLDER, str(path)]
    return subprocess.Popen(argv, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.parametrize("left", ["nothing", "a dead holder"])
def test_of_many_who_want_the_lock_at_once_one_gets_it(
    left: str, tmp_path: Path, environment: dict[str, str], no_process_left: None
) -> None:
    path = tmp_path / ".lock"
    if left != "nothing":
        dead = holder("ENOSYS", path, environment)
        assert first_line(dead) == "held True\n"
        dead.kill()
        dead.communicate()
    started = [holder("ENOSYS", path, environment) for _ in range(6)]
    assert sorted(first_line(process) for process in started) == [""] * 5 + ["held True\n"]
    told = [process.communicate()[1] for process in started]
    assert sum("is being trained by" in text for text in told) == 5


def test_a_lock_file_that_stays_stale_is_one_line(tmp_path: Path, environment: dict[str, str], no_process_left: None) -> None:
    out, err = holder("ESTALE", tmp_path / ".lock", environment).communicate()
    assert (out, err.count("\n")) == ("", 1)
    assert "cannot be locked" in err


def test_what_was_replaced_while_it_was_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[OSError | bytes] = [OSError(errno.ESTALE, "Stale file handle"), b"007\n"]

    def read(*_: object, **__: object) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(reading, "_whole", read)
    assert rundir.read_text(tmp_path / ".claim") == "007\n"


def test_batch_jobs_and_arrays_need_neither_links_nor_locks(
    tmp_path: Path, toy_words: tuple[str, ...], environment: dict[str, str], no_process_left: None
) -> None:
    """A submit leaves a whole run, and a member of an array finds its run without a link."""
    slurm = FakeSlurm(tmp_path / "slurm")
    env = {**environment, "PATH": f"{slurm.bin}{os.pathsep}{environment['PATH']}"}
    cluster = ["cluster=slurm", "cluster.nodes=1", "cluster.device=cpu", "cluster.shared_filesystem=true", "cluster.processes_per_node=1"]
    done = refusing(NOTHING.format("ENOLCK"), [*toy_words, *cluster], tmp_path, env)
    assert done.returncode == 0, done.stderr
    assert [event["event"] for event in records(run_dir(done) / "events.jsonl")] == ["submitted", "queued"]
    swept = refusing(NOTHING.format("ENOLCK"), ["-m", *toy_words, *cluster, "seed=1,2"], tmp_path, env)
    assert swept.returncode == 0, swept.stderr
    array = run_dir(swept) / "arrays" / "0"
    for index in (0, 1):
        run = Path((array / str(index)).read_text(encoding="utf-8").strip())
        (run / "job.sh").write_text('echo "ran $0"\n')
        subprocess.run(["bash", array / "array.sh"], env={**environment, "SLURM_ARRAY_TASK_ID": str(index)}, check=True)
        assert (run / "job.log").read_text() == f"ran {run}/job.sh\n"

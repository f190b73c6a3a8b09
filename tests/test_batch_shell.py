"""The batch shell alone, in bash, with a scheduler and a step that do as they are told: what a site's prelude does to a job, and when
attempts that go nowhere end."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from launcher import evidence, hardware, prelude, worker
from launcher.clusters.slurm import Slurm
from launcher.diagnose import diagnose, failure
from launcher.errors import ConfigError, RankLost
from launcher.place import Place
from launcher.plan import Plan, World
from launcher.rundir import RunDir
from launcher.train.stop import Deadline

STEP = """printf 'done\\n' >"$run/attempts/$LAUNCHER_ATTEMPT/outcome"; env >"$run/seen\""""
STUBS = f"""
export SLURM_JOB_ID=7 SLURM_JOB_NUM_NODES=1 SLURM_JOB_NODELIST=node1
hostname() {{ echo 10.0.0.1; }}
scontrol() {{ case "$1" in show) echo "JobState=RUNNING" ;; esac; }}
srun() {{ case "$*" in *launcher.node*) {STEP} ;; esac; }}
"""


class Shell:
    """A run directory, and its job script with stubs in front."""

    def __init__(self, place: Path) -> None:
        self.stubs = STUBS
        self.run = place / "runs" / "toy" / "a"
        for name in ("attempts", "code", "checkpoints"):
            (self.run / name).mkdir(parents=True, exist_ok=True)
        self.plan = Plan(
            name="toy", id="a", run_dir=str(self.run), world=World(1, 1, "cpu"), threads=1, max_restarts=0, python="python3",
            directory=str(place), project=str(self.run / "code"), env=(), config_hash="", code_hash="", overrides=(), version="0",
        )  # fmt: skip

    def attempt(self, number: int, **files: str) -> None:
        place = self.run / "attempts" / f"{number:03d}"
        place.mkdir()
        for name, text in {"job": "7", "checkpoint": f"step_{number:09d}", **files}.items():
            (place / name).write_text(f"{text}\n")

    def start(self, text: str | None = None, **options: object) -> tuple[int, str]:
        if text is not None:
            (self.run / "prelude").mkdir()
            (self.run / "prelude" / "site.sh").write_text(text)
            options["prelude"] = "site.sh"
        script = Slurm(device="cpu", time="10:00", **options).render(self.plan)  # type: ignore[arg-type]
        first, rest = script.split("\n", 1)
        (self.run / "job.sh").write_text(f"{first}\n{self.stubs}\n{rest}")
        done = subprocess.run(["bash", self.run / "job.sh"], capture_output=True, text=True, check=False, timeout=60)
        return done.returncode, done.stdout + done.stderr

    def events(self, name: str) -> list[dict[str, object]]:
        found = [json.loads(line) for line in (self.run / "events.jsonl").read_text().splitlines()]
        return [event for event in found if event["event"] == name]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


# ---------------------------------------------------------------- the prelude


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("module load cuda/99\n", "site.sh line 1: module load cuda/99 (status 127)"),
        ("module() { return 1; }\ntrue\nmodule load gcc\nmodule load late\n", "site.sh line 3: module load gcc (status 1)"),
        ("source nothing.sh\n", "site.sh line 1: source nothing.sh (status 1)"),
        ("set -e\nfalse || true\n", ""),
        ("[ -n '' ] && echo x\nif false; then :; fi\n", ""),
        ("echo fine\n[ -f /nowhere ] && . /nowhere\n", ""),
    ],
)
def test_the_first_command_that_fails_is_told_and_training_begins(shell: Shell, text: str, told: str) -> None:
    status, said = shell.start(text)
    assert status == 0, said
    assert (shell.run / "seen").exists()
    assert evidence.prelude(RunDir(shell.run).read_events()) == told
    assert [event["reason"] for event in (shell.events("prelude"))] == ([told] if told else [])
    assert ("warning: the prelude failed in" in said) == bool(told)


def test_a_strict_prelude_ends_the_job(shell: Shell) -> None:
    status, said = shell.start("module load cuda/99\n", prelude_strict=True)
    assert status == 4, said
    assert "the prelude failed in site.sh line 1: module load cuda/99" in said
    assert not (shell.run / "seen").exists()


def test_a_prelude_that_exits_is_told(shell: Shell) -> None:
    status, said = shell.start("echo before\nexit 5\n")
    assert status == 5
    assert "the prelude ended the job with status 5: it must not call exit" in said
    assert evidence.prelude(RunDir(shell.run).read_events()) == "it ended the job with status 5"


@pytest.mark.parametrize(
    "text",
    [
        "trap 'echo theirs' EXIT TERM USR2 ERR\n",
        "set -fu -o posix; IFS=,; shopt -s nullglob failglob\n",
        "cd /\n",
        "run=/no code=/no limit=1 requeue=no strict=yes say() { exit 9; }\n".replace(" say", "; say"),
        "unset PATH\n",
        "readonly_of_theirs=1\nexport OMP_NUM_THREADS=77\n",
        "trap false DEBUG\n",
        "cd() { return 1; }; date() { echo garbage; }; printf() { :; }\n",
    ],
    ids=["traps", "options", "cd", "names", "path", "threads", "debug", "functions"],
)
def test_what_a_prelude_leaves_behind_does_not_change_the_job(shell: Shell, text: str) -> None:
    status, said = shell.start(text)
    assert status == 0, said
    assert "theirs" not in said
    assert "all steps done" in said


def test_a_prelude_is_copied_with_what_it_names_beside_itself(shell: Shell, tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "lib").mkdir(parents=True)
    (site / "site.sh").write_text('. "$(dirname "${BASH_SOURCE[0]}")/gpu.sh"\nsource ./lib/net.sh\n')
    (site / "gpu.sh").write_text("export GPU=yes\n. lib/deep.sh\n")
    (site / "lib" / "net.sh").write_text("export NET=yes\n")
    (site / "lib" / "deep.sh").write_text("export DEEP=yes\n")
    (site / "unrelated").write_text("x")
    prelude.copy(site / "site.sh", shell.run / "prelude")
    copied = {path.relative_to(shell.run / "prelude").as_posix() for path in (shell.run / "prelude").rglob("*") if path.is_file()}
    assert copied == {"site.sh", "gpu.sh", "lib/net.sh", "lib/deep.sh"}
    status, said = shell.start(prelude="site.sh")
    assert status == 0, said
    assert {"GPU=yes", "NET=yes", "DEEP=yes"} <= set((shell.run / "seen").read_text().splitlines())
    assert not shell.events("prelude")


def test_a_prelude_that_bash_cannot_read_is_refused_at_submit(tmp_path: Path) -> None:
    site = tmp_path / "site.sh"
    site.write_text("if true; then\n")
    with pytest.raises(ConfigError, match=r"cluster\.prelude: bash cannot read it: .*line 2.*; correct that line"):
        prelude.check(str(site))


# ---------------------------------------------------------------- what NCCL says, and nobody else


@pytest.mark.parametrize(
    ("text", "requeued"),
    [
        (
            "[rank1]:[E] Watchdog caught collective operation timeout: WorkNCCL(OpType=ALLREDUCE) ran for 600029 milliseconds",
            True,
        ),
        ("Some NCCL operations have failed or timed out. Due to the asynchronous nature of CUDA kernels", True),
        ("ProcessGroupNCCL's watchdog got stuck for 480 seconds without making progress", True),
        ("RuntimeError: the model broke", False),
    ],
)
def test_a_process_that_nccl_ended_has_hung(shell: Shell, text: str, requeued: bool) -> None:
    """A stand-in for NCCL: its words in a rank's log, SIGABRT, and no error.json."""
    step = f"printf '%s\\n' {shlex.quote(text)} >\"$run/attempts/$LAUNCHER_ATTEMPT/rank_0.log\"; bash -c 'kill -ABRT $$'"
    shell.stubs = STUBS.replace(STEP, step)
    status, said = shell.start()
    assert status == 0 or not requeued, said
    assert ("requeued: NCCL gave up a collective that did not end" in said) == requeued


# ---------------------------------------------------------------- hardware


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("RuntimeError: CUDA error: uncorrectable ECC error encountered", True),
        ("torch.AcceleratorError: CUDA error: unspecified launch failure", True),
        ("RuntimeError: CUDA error: uncorrectable NVLink error detected during the execution", True),
        ("RuntimeError: CUDA error: Invalid access of peer GPU memory over nvlink or a hardware error", True),
        ("RuntimeError: HIP error: uncorrectable ECC error encountered", True),
        ("NVRM: Xid (PCI:0000:07:00): 79, GPU has fallen off the bus.", True),
        ("NVRM: Xid (PCI:0000:07:00): 95, pid=1, Uncontained ECC error", True),
        ("NVRM: Xid (PCI:0000:07:00): 31, pid=1, name=python, MMU Fault", False),
        ("NVRM: Xid (PCI:0000:07:00): 13, pid=1, Graphics SM Warp Exception", False),
        ("node3:211 NCCL WARN NET/IB : mlx5_0:1 Got async event : local catastrophic error", True),
        ("torch.AcceleratorError: CUDA error: an illegal memory access was encountered", False),
        ("RuntimeError: CUDA error: device-side assert triggered", False),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", False),
        ("RuntimeError: CUDA error: misaligned address", False),
        ("ValueError: hardware must be one of a100, h100", False),
    ],
)
def test_what_is_hardware(text: str, broken: bool) -> None:
    assert hardware.is_broken(text) == broken


def test_a_worker_that_meets_it_names_its_node(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no peer that only lost it can take the word back."""
    shell.attempt(0)
    run, place = RunDir(shell.run), Place(rank=1, local_rank=1, world=2, restart=0, attempt=0)
    monkeypatch.setenv("SLURMD_NODENAME", "node3")
    worker._report(run, place, RuntimeError("CUDA error: unspecified launch failure"), {"step": 4, "refused": False})
    worker._report(run, place, RuntimeError("NCCL error: remote process exited"), {"step": 4, "refused": False})
    assert run.outcome(0).read_text() == "hardware\n"
    assert (run.attempt(0) / "bad_nodes").read_text() == "node3\n"


def test_where_it_ended_the_process_the_node_is_named_as_slurm_does(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for what NCCL's thread makes of such an error: its words, indented as in C++, and SIGABRT. Nobody tries again here."""
    died = (
        "terminate called after throwing an instance of 'c10::AcceleratorError'\n  what():  CUDA error: uncorrectable ECC error encountered"
    )
    table = "  time      : 2026-11-21_12:07:42\n  host      : c2.example.org\n  rank      : 1 (local_rank: 0)\n  exitcode  : -6 (pid: 12)"
    shell.attempt(0, **{"rank_1.log": died, "agent_1.log": f"ChildFailedError:\n{table}"})
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node[2-3]")
    run = RunDir(shell.run)
    assert hardware.main(["", str(run), "0"]) == 0
    assert (run.attempt(0) / "bad_nodes").read_text() == "node3\n"
    error = failure(run, 0, 1)
    assert not isinstance(error, RankLost)
    assert "rank 1 on c2.example.org was killed by SIGABRT: a GPU is broken" in str(error)
    assert "a GPU is broken" in diagnose(run, 0).verdict
    monkeypatch.delenv("SLURM_JOB_NODELIST")
    (run.attempt(0) / "rank_1.log").write_text("  what():  CUDA error: an illegal memory access was encountered\n")
    assert isinstance(failure(run, 0, 1), RankLost)


@pytest.mark.parametrize("nodes", [1, 2])
def test_the_job_is_requeued_without_that_node(shell: Shell, nodes: int) -> None:
    here = "$run/attempts/$LAUNCHER_ATTEMPT"
    shell.stubs = STUBS.replace(STEP, f"echo hardware >{here}/outcome; echo node1 >{here}/bad_nodes; false")
    shell.stubs = shell.stubs.replace("NUM_NODES=1", f"NUM_NODES={nodes}") + "sbatch() { :; }\n"
    shell.stubs = shell.stubs.replace('JobState=RUNNING" ;;', 'JobState=RUNNING" ;; update) echo "$*" >>"$run/updated" ;;')
    status, said = shell.start()
    assert status == 0, said
    assert (shell.run / "updated").read_text() == "update JobId=7 ExcNodeList=node1\n"
    assert shell.events("hardware")
    assert "requeued: goes on without the bad nodes node1" in said


def test_a_process_that_was_ended_by_it_is_found_in_its_log(shell: Shell) -> None:
    """CUDA in a thread of NCCL's: SIGABRT, and torchrun alone knows where that rank ran."""
    shell.attempt(0)
    place = shell.run / "attempts" / "000"
    (place / "rank_1.log").write_text("terminate called\n  what(): CUDA error: uncorrectable ECC error encountered\n")
    table = "  time      : 2026-11-26_01:00:00\n  host      : node2\n  rank      : 1 (local_rank: 0)\n  exitcode  : -6 (pid: 5)\n"
    (place / "agent_0.log").write_text(table)
    assert hardware.main(["", str(shell.run), "0"]) == 0
    assert (place / "bad_nodes").read_text() == "node2\n"


# ---------------------------------------------------------------- nodes


@pytest.mark.parametrize(
    ("says", "requeued"), [("srun: unrecognized option '--overlap'", False), ("srun: error: Unable to contact slurm controller", True)]
)
def test_an_srun_that_cannot_be_asked_says_nothing_of_nodes(shell: Shell, says: str, requeued: bool, tmp_path: Path) -> None:
    """Before 20.11 every crash was taken for a lost node."""
    (tmp_path / "srun").write_text(f'#!/bin/sh\necho "{says}" >&2\nexit 1\n')
    (tmp_path / "srun").chmod(0o755)
    shell.stubs = STUBS.replace(STEP, "false") + f"PATH={tmp_path}:$PATH\n"
    status, said = shell.start()
    assert ("requeued: a node of node1 no longer answers" in said) == requeued, said
    assert status == (0 if requeued else 1)


# ---------------------------------------------------------------- attempts that go nowhere


def test_three_attempts_that_hardly_trained_end_the_run(shell: Shell) -> None:
    """Each saved a step, so each left a new checkpoint: 300 s of start-up below a limit of ten minutes."""
    for number in range(3):
        shell.attempt(number, ended="requeued-limit", lasted="580", trained=str(5 * number))
    status, said = shell.start()
    assert status == 1
    assert "less than a tenth of it in training, the rest in start-up and saves; in a new run: a longer cluster.time" in said
    assert shell.events("stuck")


@pytest.mark.parametrize(
    "files",
    [
        {"ended": "requeued-limit", "lasted": "580", "trained": "60"},
        {"ended": "requeued-limit", "lasted": "200", "trained": "3"},
        {"ended": "requeued-preempted", "lasted": "580", "trained": "3"},
        {"ended": "requeued-limit", "lasted": "580", "trained": "3", "job": "6"},
        {"ended": "requeued-limit", "trained": "3"},
        {"ended": "requeued-limit", "lasted": "x[$(touch bad)]", "trained": "0x1"},
    ],
    ids=["trained a tenth", "warned early", "preempted", "another job", "of an older launcher", "garbage"],
)
def test_others_go_on(shell: Shell, files: dict[str, str]) -> None:
    for number in range(3):
        shell.attempt(number, **files)
    status, said = shell.start()
    assert status == 0, said


def test_two_go_on_and_so_does_a_run_whose_third_trained(shell: Shell) -> None:
    for number in range(4):
        shell.attempt(number, ended="requeued-limit", lasted="580", trained="300" if number == 1 else "0")
    status, said = shell.start()
    assert status == 0, said


# ---------------------------------------------------------------- when to stop


def test_start_up_is_no_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr("time.time", lambda: now)
    deadline = Deadline(end=1600.0, trained=tmp_path / "trained")
    now += 300  # decoding, compiling the first step
    assert not deadline.is_near()
    deadline.note()
    steps = 0
    while not deadline.is_near():
        now += 2
        steps += 1
    assert steps > 130
    assert 1600 - 20 < now < 1600
    deadline.note()
    assert int((tmp_path / "trained").read_text()) == 2 * steps


def test_a_slow_step_is_still_expected_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr("time.time", lambda: now)
    deadline = Deadline(end=1000.0)
    for spent in (300, 1, 50, 1):  # start-up, a step, an evaluation
        now += spent
        assert not deadline.is_near()
    assert deadline.lead == 50 + Deadline.AIR_SECONDS

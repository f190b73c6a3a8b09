"""`cluster.inside=true` without a scheduler: how it is refused; the script, in bash, with programs that say what they were given."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from batch_shell import Shell
from helpers import Answer, refused
from test_render import GOLDENS, PLAN
from test_slurm_render import RUN

from launcher.clusters import kinds
from launcher.clusters.slurm import Slurm, allocation
from launcher.clusters.slurm.allocation import Allocation
from launcher.clusters.slurm.inside import Inside
from launcher.config import targets
from launcher.errors import ClusterError, ConfigError, LaunchError, RankLost, Stopped, TrainingFailed
from launcher.plan import World
from launcher.rundir.rundir import RunDir
from launcher.start import inside

Command = Callable[..., Answer]
WORDS = ("cluster=slurm", "cluster.device=cpu", "cluster.inside=true", "cluster.cpus_per_process=1", "cluster.shared_filesystem=true")
JOB = (
    "JobId=7 JobName=bash Account=(null) JobState={state} Reason=None NodeList=node[1-2] NumNodes=2 NumCPUs=8 TRES=cpu=8,gres/gpu=4 "
    "JOB_GRES=gpu:4   Nodes=node1 CPU_IDs=0-2,7 Mem=16384 GRES=gpu:h100:2(IDX:0-1) MinCPUsNode=1   Nodes=node2 CPU_IDs=0-15 Mem=1 "
    "GRES=gpu:a:1(IDX:0),gpu:b:3(IDX:1-3) Command=(null)"
)
SCONTROL = 'case "$*" in *"show job"*) echo "$JOB" ;; esac'
SRUN = """
[ "$1" != --help ] || { echo "${KNOWS-  --exact  --overlap }"; exit; }
echo "srun $*" >>"$home/calls"
env | grep -E '^(SLURM|SRUN|SALLOC|LAUNCHER)_' | sort >"$home/seen"
if [ -n "${FAILS:-}" ]; then echo "srun: error: $FAILS" >&2; exit 1; fi
case "$*" in *launcher.node*) exit 0 ;; *) echo "meeting 10.0.0.1 20001 node[1-2]" ;; esac
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which srun leaves what it was given. The shell is one of salloc's, of two nodes."""
    home = tmp_path / "programs"
    home.mkdir()
    for name, body in (("srun", SRUN), ("scontrol", SCONTROL)):
        (home / name).write_text(f"#!/bin/bash\nhome={home}\n{body}\n")
        (home / name).chmod(0o755)
    for name, value in {"PATH": f"{home}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "JOB": JOB.format(state="RUNNING")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("launcher.clusters.slurm.inside._found", allocation.find)
    return home


def test_outside_of_an_allocation_a_line_says_what_to_type(command: Command, toy_words: tuple[str, ...], tmp_path: Path) -> None:
    for words in ((), ("cluster.nodes=2",)):
        refused(command(*toy_words, *WORDS, *words), 4, "in no allocation", "type salloc first", "leave cluster.inside out")
    assert not (tmp_path / "runs").exists()
    done = command("render", *toy_words, *WORDS, "cluster.nodes=2")
    assert (done.code, "--nodes=2" in done.out, "#SBATCH" in done.out, "requeue" in done.out) == (0, True, False, False), done.err


def test_it_is_as_large_as_the_allocation_and_the_run_knows_its_class(command: Command, toy_words: tuple[str, ...], programs: Path) -> None:
    done = command("render", *toy_words, *WORDS)
    assert (done.code, "--nodes=2" in done.out) == (0, True), done.err
    assert Slurm(nodes="auto", device="cpu").world() == World(1, 1, "cpu")
    assert isinstance(kinds.named(Slurm(inside=True).meant(), "cluster")(), Inside)
    fields = {each.name for each in dataclasses.fields(Slurm)}
    assert (known := targets.signature("launcher.clusters.slurm.inside.Inside")) is not None
    assert known.annotations.keys() == fields
    with pytest.raises(ConfigError, match=r"cluster\.inside=false"):
        Inside(inside=False).world()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("cluster.nodes=3",), "cluster.nodes=3 is more than allocation 7 (2 nodes: node[1-2]) has; type cluster.nodes=2"),
        (("cluster.cpus_per_process=5",), "has on a node (4); type cluster.cpus_per_process=4"),
        (("cluster.nodes=1", "cluster.cpus_per_process=17"), "has on a node (16); type cluster.cpus_per_process=16"),
        (("cluster.processes_per_node=5",), "type cluster.processes_per_node=4 cluster.cpus_per_process=1"),
        (("cluster.device=cuda", "cluster.processes_per_node=3"), "has 2 GPUs on a node; type cluster.processes_per_node=2"),
    ],
)
def test_what_it_has_not_names_the_key(
    words: tuple[str, ...], part: str, command: Command, toy_words: tuple[str, ...], programs: Path, tmp_path: Path
) -> None:
    refused(command(*toy_words, *WORDS, "train.batch_size=60", *words), 4, words[-1].partition("=")[0], part)
    assert not (tmp_path / "runs").exists()


def test_one_that_is_over_and_what_is_of_a_job(
    command: Command, toy_words: tuple[str, ...], programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOB", JOB.format(state="COMPLETING"))
    refused(command(*toy_words, *WORDS), 4, "allocation 7 is completing; type salloc")
    monkeypatch.setenv("JOB", JOB.format(state="RUNNING"))
    monkeypatch.setenv("FAILS", "Unable to create step for job 7: Requested nodes are busy")
    done = command(*toy_words, *WORDS, "cluster.time=5:00", "cluster.partition=x", "id=a")
    assert done.code == 4
    warned, told, why = (line for line in done.err.splitlines() if line.startswith("launcher: "))
    assert "cluster.partition, cluster.time: not used inside an allocation" in warned
    assert told == "launcher: runs in allocation 7 (2 nodes: node[1-2])"
    assert "Requested nodes are busy (other steps have its CPUs or GPUs)" in why
    run = RunDir("runs/toy/a")
    assert (list(run.attempts.iterdir()), run.summary.exists()) == ([], False), "what could not begin leaves no attempt"
    assert "job" not in run.events.read_text()


def test_an_allocation_that_scontrol_does_not_tell_of(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert allocation.find() == Allocation("7", 2, "node[1-2]", (4, 16), (2, 4), "RUNNING")
    (programs / "scontrol").unlink()
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(ClusterError, match=r"cluster\.nodes=auto"):
        allocation.find()
    for name, value in {"SLURM_JOB_NUM_NODES": "3", "SLURM_JOB_CPUS_PER_NODE": "16(x2),8", "SLURM_JOB_NODELIST": "a[1-3]"}.items():
        monkeypatch.setenv(name, value)
    assert allocation.find() == Allocation("7", 3, "a[1-3]", (16, 8))


def script(shell: Shell, **options: object) -> subprocess.CompletedProcess[str]:
    cluster = Inside(nodes=2, device="cpu", inside=True, **options)
    plan = dataclasses.replace(shell.plan, world=World(2, 1, "cpu"))
    (shell.run / "job.sh").write_text(cluster.render(plan))
    return subprocess.run(["bash", shell.run / "job.sh"], capture_output=True, text=True, check=False, timeout=60)


def test_what_salloc_was_asked_for_is_not_what_the_step_is(shell: Shell, programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outer = ("SLURM_NTASKS", "SLURM_CPUS_PER_TASK", "SLURM_MEM_PER_NODE", "SLURM_TRES_PER_TASK", "SRUN_DEBUG", "SALLOC_PARTITION")
    for name in (*outer, "LAUNCHER_JOB", "LAUNCHER_LIMIT"):
        monkeypatch.setenv(name, "9")
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1999999999")
    monkeypatch.setenv("JOB", "")
    done = script(shell, env={"SLURM_CPU_BIND": "none"})
    assert (done.returncode, done.stderr) == (0, ""), (shell.run / "job.log").read_text()
    seen = dict(line.split("=", 1) for line in (programs / "seen").read_text().splitlines())
    assert not seen.keys() & {*outer, "LAUNCHER_JOB", "LAUNCHER_LIMIT"}
    assert (seen["SLURM_JOB_ID"], seen["LAUNCHER_DEADLINE"], seen["SLURM_CPU_BIND"]) == ("7", "1999999999", "none")
    _, step = (programs / "calls").read_text().split("srun ")[1:][-2:]
    for word in (
        "--exact",
        "--jobid=7",
        "--mem=0",
        "--gres=none",
        "--cpus-per-task=4",
        "--nodelist=node[1-2]",
        "--rdzv-endpoint=10.0.0.1:20001",
    ):
        assert f" {word} " in f" {step}", step


@pytest.mark.parametrize(
    ("step", "knows", "word"),
    [("3", None, "--overlap"), ("4294967290", None, "--exact"), ("4294967291", None, "--exact"), ("3", "", ""), ("", "", "")],
)
def test_a_step_beside_the_one_that_this_shell_is(
    step: str, knows: str | None, word: str, shell: Shell, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_STEP_ID", step)
    if knows is not None:
        monkeypatch.setenv("KNOWS", knows)
    assert script(shell).returncode == 0
    assert (programs / "calls").read_text().splitlines()[-1].split()[1] == (word or "--jobid=7")


def test_by_hand_in_no_allocation_it_starts_nothing(shell: Shell, programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "a[$(touch x)]")
    assert script(shell).returncode == 4
    assert "refused: this shell is in no allocation" in (shell.run / "job.log").read_text()
    assert not (programs / "calls").exists()


@pytest.mark.parametrize(
    ("state", "said", "kind", "part"),
    [
        (
            "NODE_FAIL",
            "srun: error: Node failure on node2",
            Stopped,
            "allocation 7 is node_fail, and the run has ended with it; type salloc",
        ),
        ("RUNNING", "srun: error: Node failure on node2", RankLost, "Node failure on node2"),
        ("RUNNING", "srun: error: node2: task 1: Killed\nsrun: error: node1: task 0: Exited with exit code 1", RankLost, "task 1: Killed"),
        ("RUNNING", "srun: error: node1: task 0: Exited with exit code 1\nsrun: error: node2: task 1: Killed", TrainingFailed, "gone"),
    ],
)
def test_who_else_knows_why_it_ended(
    state: str, said: str, kind: type[LaunchError], part: str, shell: Shell, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOB", JOB.format(state=state))
    monkeypatch.setattr(allocation, "pause", lambda: None)
    shell.attempt(0, **{"rank_0.log": "step 1"})
    (shell.run / "job.log").write_text(f"x launcher: attempt 000: job.sh of 7\n{said}\n")
    error = Inside(inside=True).explained(RunDir(shell.run), 0, TrainingFailed("gone"))
    assert type(error) is kind
    assert part in str(error)


def test_a_run_of_this_machine_is_told_of_the_allocation(capsys: pytest.CaptureFixture[str]) -> None:
    there = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2"}
    inside.suggest(there, PLAN)
    assert capsys.readouterr().err == (
        "launcher: you are inside allocation 7; cluster=slurm cluster.inside=true runs there, cluster=local here without a word\n"
    )
    one = {"SLURM_JOB_ID": "8", "SLURM_JOB_NUM_NODES": "1", "SLURMD_NODENAME": "node1"}
    typed = dataclasses.replace(PLAN, overrides=("cluster=local",))
    for environment, plan in ((one, PLAN), ({**there, "LAUNCHER_ATTEMPT": "000"}, PLAN), (there, typed), ({}, PLAN)):
        inside._tell.cache_clear()  # pyright: ignore[reportPrivateUsage]
        inside.suggest(environment, plan)
    assert capsys.readouterr().err == ""


def test_who_types_to_the_first_of_several_is_a_person() -> None:
    several = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"}
    inside.refuse({**several, "SLURM_PTY_PORT": "4000"})
    with pytest.raises(ConfigError, match="srun has started this 2 times"):
        inside.refuse(several)


def test_the_rendered_script_is_the_golden_one(request: pytest.FixtureRequest) -> None:
    cluster = Inside(nodes=2, processes_per_node=8, cpus_per_process=12, inside=True, env={"NCCL_IB_HCA": "mlx5_0"})
    plan = dataclasses.replace(PLAN, world=World(2, 8, "cuda"), threads=12, run_dir=RUN)
    golden = GOLDENS / "inside_two_nodes.sh"
    if request.config.getoption("--goldens"):
        golden.write_text(cluster.render(plan), encoding="utf-8")
    assert golden.read_text(encoding="utf-8") == cluster.render(plan)

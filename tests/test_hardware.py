"""A GPU that broke, a collective that NCCL gave up, a node that no longer answers: what the batch shell makes of them."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from batch_shell import STEP, STUBS, Shell

from launcher import hardware, worker
from launcher.diagnose import diagnose, failure
from launcher.errors import RankLost
from launcher.place import Place
from launcher.rundir import RunDir


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
        ("NVRM: Xid (PCI:0000:07:00): 143, GPU Init error", True),
        ("NVRM: Xid (PCI:0000:07:00): 149, NETIR_LINK_DOWN", True),
        ("NVRM: Xid (PCI:0000:07:00): 158, GPU fatal timeout", True),
        ("NVRM: Xid (PCI:0000:07:00): 63, pid=1, Row Remapper: New row marked for remapping", False),
        ("NVRM: Xid (PCI:0000:07:00): 92, High single-bit ECC error rate", False),
        ("NVRM: Xid (PCI:0000:07:00): 14, fake", False),
        ("HW Exception by GPU node-4 (Agent handle: 0x1ebc04e0) reason :GPU Hang", True),
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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("CUDA error: unspecified launch failure", ["hardware", "hardware", "failed"]),
        ("HIP error: unspecified launch failure", ["hardware", "hardware", "failed"]),
        ("CUDA error: uncorrectable ECC error encountered", ["hardware"] * 3),
    ],
)
def test_what_a_program_can_bring_about_is_believed_of_one_node(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, text: str, words: list[str]
) -> None:
    """Else it would leave node after node out, and begin again each time."""
    for number, node in enumerate(["node3", "node3", "node5"]):
        shell.attempt(number)
        run, place = RunDir(shell.run), Place(rank=0, local_rank=0, world=1, restart=0, attempt=number)
        monkeypatch.setenv("SLURMD_NODENAME", node)
        worker._report(run, place, RuntimeError(text), {"step": 4, "refused": False})
    assert [run.outcome(number).read_text().strip() for number in range(3)] == words
    assert (run.attempt(2) / "bad_nodes").exists() == (words[2] == "hardware")


def test_a_collective_that_nccl_gave_up_is_a_hang_here_too(shell: Shell) -> None:
    """Nobody watches it where train.hang_seconds=0."""
    said = "[rank1]:[E] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=4, OpType=ALLREDUCE) ran for 600029 milliseconds\n"
    table = "  time      : 2026-11-26_01:00:00\n  host      : node2\n  rank      : 1 (local_rank: 1)\n  exitcode  : -6 (pid: 5)\n"
    shell.attempt(0, **{"rank_1.log": said, "agent_0.log": table})
    error = failure(RunDir(shell.run), 0, 1)
    assert isinstance(error, RankLost)
    assert "rank 1 on node2 hangs in a collective that NCCL gave up ([rank1]:[E] Watchdog caught" in str(error)


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

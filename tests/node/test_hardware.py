"""A GPU that broke, a collective that NCCL gave up, a node that no longer answers: what the batch shell makes of them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from batch_shell import STEP, STUBS, Shell
from helpers import REPO

from launcher.errors import RankLost
from launcher.node import hardware
from launcher.node.place import Place
from launcher.rundir.rundir import RunDir
from launcher.train import worker
from launcher.verdict.diagnose import diagnose, failure


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


NODE, BOTH, PROGRAM = "the node's", "of both kinds", "the program's, or nobody's"
AT = "NVRM: Xid (PCI:0000:07:00): "
SAID = (
    (NODE, "RuntimeError: CUDA error: uncorrectable ECC error encountered"),
    (NODE, "RuntimeError: CUDA error: uncorrectable NVLink error detected during the execution"),
    (NODE, "RuntimeError: HIP error: uncorrectable ECC error encountered"),
    (NODE, "RuntimeError: CUDA error: system not yet initialized"),
    (NODE, f"{AT}48, pid=1, name=python, An uncorrectable double bit error (DBE) has been detected on GPU"),
    (NODE, f"{AT}79, GPU has fallen off the bus."),
    (NODE, f"{AT}94, pid=1, Contained: SM (0x1). RST: No, D-RST: No"),
    (NODE, f"{AT}95, pid=1, Uncontained ECC error"),
    (NODE, f"{AT}143, GPU Init error"),
    (NODE, f"{AT}149, NETIR_LINK_DOWN"),
    (NODE, f"{AT}145, RLW_SRC_TRACK Fatal   XC0 i0 Link 03 (0x00000007 0x00000001)"),
    (NODE, f"{AT}154, GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)"),
    (NODE, f"{AT}158, GPU fatal timeout"),
    (NODE, f"{AT}171, uncorrectable DRAM error"),
    (NODE, "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 22013, Fatal, Link 27 Minion Link DLREQ interrupt"),
    (NODE, "HW Exception by GPU node-4 (Agent handle: 0x1ebc04e0) reason :ECC"),
    (NODE, "Memory access fault by GPU node-2 (Agent handle: 0x5640a8bb1980) on address 0x7feea09c5000. Reason: SRAM ECC failure."),
    (NODE, "amdgpu 0000:08:00.0: amdgpu: device lost from bus!"),
    (NODE, "node3:211 NCCL WARN NET/IB : mlx5_0:1 Got async event : local catastrophic error"),
    (BOTH, "torch.AcceleratorError: CUDA error: unspecified launch failure"),
    (BOTH, "RuntimeError: CUDA error: Invalid access of peer GPU memory over nvlink or a hardware error"),
    (BOTH, "RuntimeError: CUDA error: hardware stack error"),
    (BOTH, f"{AT}46, pid=1, name=python, Ch 00000008"),
    (BOTH, f"{AT}109, pid=1, name=python, Ch 00000008, errorString CTX SWITCH TIMEOUT"),
    (BOTH, "HW Exception by GPU node-4 (Agent handle: 0x1ebc04e0) reason :GPU Hang"),
    (BOTH, "Memory access fault by GPU node-2 (Agent handle: 0x1) on address 0x7feea09c5000. Reason: Generic hang recovery."),
    (PROGRAM, f"{AT}13, pid=1, Graphics SM Warp Exception"),
    (PROGRAM, f"{AT}31, pid=1, name=python, MMU Fault"),
    (PROGRAM, f"{AT}43, pid=1, name=python, Ch 00000010"),
    (PROGRAM, f"{AT}45, pid=1, name=python, Ch 00000010"),
    (PROGRAM, f"{AT}137, NVLink privilege error"),
    (PROGRAM, f"{AT}145, RLW_CTRL Nonfatal XC0 i0 Link 00 (0x00000003 0x80000000)"),
    (PROGRAM, f"{AT}154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)"),
    (PROGRAM, f"{AT}63, pid=1, Row Remapper: New row marked for remapping"),
    (PROGRAM, f"{AT}92, High single-bit ECC error rate"),
    (PROGRAM, f"{AT}14, fake"),
    (PROGRAM, "nvidia-nvswitch0: SXid (PCI:0000:c3:00.0): 20009, Non-fatal, Link 28 RX Short Error Rate"),
    (PROGRAM, "Memory access fault by GPU node-2 (Agent handle: 0x1) on address 0x7f. Reason: Page not present or supervisor privilege."),
    (PROGRAM, "Memory access fault by GPU node-3 (Agent handle: 0x1) on address 0x7f. Reason: Write access to a read-only page."),
    (PROGRAM, "HSA_STATUS_ERROR_MEMORY_APERTURE_VIOLATION: The agent attempted to access memory beyond the largest legal address."),
    (PROGRAM, "torch.AcceleratorError: CUDA error: an illegal memory access was encountered"),
    (PROGRAM, "RuntimeError: CUDA error: device-side assert triggered"),
    (PROGRAM, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"),
    (PROGRAM, "RuntimeError: CUDA error: misaligned address"),
    (PROGRAM, "ValueError: hardware must be one of a100, h100"),
)


@pytest.mark.parametrize(("whose", "text"), SAID)
def test_whose_fault_it_is(shell: Shell, monkeypatch: pytest.MonkeyPatch, whose: str, text: str) -> None:
    """Words of both kinds are believed of one node, not of a second: else the run would leave out node after node."""
    blamed: list[bool] = []
    for number, node in enumerate(["node3", "node3", "node5"]):
        shell.attempt(number)
        run, place = RunDir(shell.run), Place(rank=0, local_rank=0, world=1, restart=0, attempt=number)
        monkeypatch.setenv("SLURMD_NODENAME", node)
        worker._report(run, place, RuntimeError(text), {"step": 4, "refused": False})
        blamed.append(run.outcome(number).read_text() == "hardware\n")
        assert (run.attempt(number) / "bad_nodes").exists() == blamed[-1]
    assert blamed == {NODE: [True] * 3, BOTH: [True, True, False], PROGRAM: [False] * 3}[whose]


def test_what_is_sure_is_believed_beside_what_is_not(shell: Shell) -> None:
    """A launch failure on the second node too, and the driver says why."""
    for number, node in enumerate(["node3", "node5"]):
        shell.attempt(number)
        text = f"{'' if number == 0 else AT + '79, GPU has fallen off the bus.'}\nCUDA error: unspecified launch failure"
        assert hardware.blames_node(RunDir(shell.run), number, text, node)


def test_the_batch_shell_looks_closer_at_each_of_them() -> None:
    """What its grep lets pass is asked of Python, which costs a start."""
    pattern = re.search(r"grep -qsiE '([^']+)' \"\$here\"/rank_", (REPO / "launcher" / "clusters" / "slurm" / "slurm.sh").read_text())
    assert pattern
    for whose, text in SAID:
        if whose != PROGRAM:
            assert re.search(pattern[1], text, re.IGNORECASE), text


def test_a_worker_that_meets_it_names_its_node(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no peer that only lost it can take the word back."""
    shell.attempt(0)
    run, place = RunDir(shell.run), Place(rank=1, local_rank=1, world=2, restart=0, attempt=0)
    monkeypatch.setenv("SLURMD_NODENAME", "node3")
    worker._report(run, place, RuntimeError("CUDA error: unspecified launch failure"), {"step": 4, "refused": False})
    worker._report(run, place, RuntimeError("NCCL error: remote process exited"), {"step": 4, "refused": False})
    assert run.outcome(0).read_text() == "hardware\n"
    assert (run.attempt(0) / "bad_nodes").read_text() == "node3\n"


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

"""Every signature against lines as torch, NCCL, gloo and SLURM write them, and squeue's reasons in words."""

from __future__ import annotations

import string
import time

import pytest

from launcher.clusters.slurm.words import WAITING, WORDS, waiting
from launcher.verdict.signatures import CAUSE, LOST_PEER, SCHEDULER, SYMPTOM, WAIT, Signature, find

LINES = [
    (
        "cuda_oom",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which "
        "17.38 GiB is free. Including non-PyTorch memory, this process has 61.72 GiB memory in use.",
    ),
    ("cuda_oom", "RuntimeError: CUDA error: out of memory"),
    ("cuda_oom", "ncclUnhandledCudaError: Call to CUDA function failed. Last error: Cuda failure 2 'out of memory'"),
    ("cuda_oom", "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ("host_oom", "srun: error: node2: task 1: Out Of Memory"),
    ("host_oom", "srun: error: nid001277: tasks 1-3: Out Of Memory"),
    (
        "host_oom",
        "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=12.0. Some of your processes may have been killed by the cgroup "
        "out-of-memory handler.",
    ),
    ("host_oom", "slurmstepd: error: Detected 2 oom_kill events in StepId=12.0. Some of the step tasks have been OOM Killed."),
    ("host_oom", "RuntimeError: DataLoader worker (pid 4242) is killed by signal: Killed. "),
    (
        "host_oom",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
        "4000000000000000 bytes. Error code 12 (Cannot allocate memory)",
    ),
    (
        "shared_memory",
        "ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient shared memory (shm).",
    ),
    (
        "shared_memory",
        "RuntimeError: unable to write to file </torch_1_2>: unable to open shared memory object </torch_1_2> in read-write mode",
    ),
    ("disk_full", "OSError: [Errno 28] No space left on device: '/scratch/run/checkpoints/tmp.000/model.safetensors'"),
    ("quota", "OSError: [Errno 122] Disk quota exceeded"),
    ("file_system", "OSError: [Errno 116] Stale file handle"),
    ("file_system", "OSError: [Errno 5] Input/output error: '/data/cifar10'"),
    (
        "hung",
        "rank 1 on node2 hangs in data of step 51 for 181 s (limit 180 s): it does not come to an end, rank 0 in backward of step 51 "
        "waits; the stacks of all ranks are in their logs (/srv/runs/toy/a/attempts/000/rank_1.log)",
    ),
    ("replicas", "rank 2 on node1 holds other weights than the other 7 ranks, after step 100 and by step 200: its memory or its GPU may"),
    ("bad_loss", "the loss of steps 31 to 35 is nan; lower optim.lr, or go back and pass these batches over: train.on_bad=rollback"),
    ("bad_loss", "body.0.weight has values that are not finite, so there is no checkpoint of it; lower optim.lr, or set"),
    ("not_visible", "launcher: node2 does not see /srv/runs/toy/a/plan.json; put runs_dir=… on a file system that every node shares"),
    ("not_visible", "slurmstepd: error: couldn't chdir to `/srv/runs/toy/a': No such file or directory: going to /tmp instead"),
    ("not_visible", "slurmstepd: error: Could not open stdout file /srv/runs/toy/a/job.log: No such file or directory"),
    ("not_visible", "/opt/env/bin/python: No module named launcher.node"),
    (
        "not_visible",
        "python3: Error while finding module specification for 'launcher.node' (ModuleNotFoundError: No module named 'launcher')",
    ),
    ("no_python", "slurmstepd: error: execve(): /home/me/env/bin/python: No such file or directory"),
    ("no_python", "/srv/runs/toy/a/job.sh: line 90: python3: command not found"),
    ("import", "ModuleNotFoundError: No module named 'flash_attn.ops'"),
    (
        "import",
        "python3: Error while finding module specification for 'torch.distributed.run' (ModuleNotFoundError: No module named 'torch')",
    ),
    ("import", "ImportError: cannot import name 'Foo' from 'bar' (/opt/bar/__init__.py)"),
    ("import", "ImportError: libcudnn.so.9: cannot open shared object file: No such file or directory"),
    ("no_cuda", "AssertionError: Torch not compiled with CUDA enabled"),
    ("no_cuda", "RuntimeError: Distributed package doesn't have NCCL built in"),
    ("driver", "RuntimeError: The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver"),
    ("driver", "RuntimeError: CUDA error: CUDA driver version is insufficient for CUDA runtime version"),
    ("driver", "RuntimeError: Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU"),
    ("driver", "RuntimeError: No CUDA GPUs are available"),
    ("driver", "ValueError: ProcessGroupNCCL is only supported with GPUs, no GPUs found!"),
    ("driver", "cluster.device=cuda: torch 2.13.0+cu130 sees 3 CUDA devices on this node and local rank 3 needs one; install a CUDA build"),
    ("driver", "RuntimeError: CUDA driver initialization failed, you might not have a CUDA gpu."),
    ("gpu_kind", "RuntimeError: CUDA error: no kernel image is available for execution on the device"),
    ("device_assert", "RuntimeError: CUDA error: device-side assert triggered"),
    (
        "short_limit",
        "3 attempts of job 12 in a row reached their time limit of 600 s …; in a new run: cluster.time=0:49:00; look at: …",
    ),
    ("gpu_fault", "RuntimeError: CUDA error: uncorrectable ECC error encountered"),
    ("gpu_fault", "torch.AcceleratorError: CUDA error: unspecified launch failure"),
    (
        "port",
        "torch.distributed.DistNetworkError: The server socket has failed to listen on any local network address. port: 23997, "
        "useIpv6: false, code: -98, name: EADDRINUSE, message: address already in use",
    ),
    (
        "unreachable",
        "torch.distributed.DistNetworkError: The client socket has timed out after 60000ms while trying to connect to (10.0.0.1, 23999).",
    ),
    (
        "unreachable",
        "launcher: node2 has no route to the first node at 10.0.0.1 (Network is unreachable); name the interface between the nodes",
    ),
    ("fenced", "attempt 003 has taken over from attempt 002, which writes no more"),
    ("account", "sbatch refused: Batch job submission failed: Invalid account or account/partition combination specified"),
    ("qos", "sbatch refused: Batch job submission failed: Invalid qos specification"),
    ("qos", "sbatch refused: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"),
    ("partition", "sbatch refused: invalid partition specified: gpu; Batch job submission failed: Invalid partition name specified"),
    ("node_config", "sbatch refused: Batch job submission failed: Requested node configuration is not available"),
    ("time_limit", "slurmstepd: error: *** JOB 12 ON node1 CANCELLED AT 2026-11-21T12:09:33 DUE TO TIME LIMIT ***"),
    ("preempted", "slurmstepd: error: *** STEP 12.0 ON node1 CANCELLED AT 2026-11-21T12:09:33 DUE TO PREEMPTION ***"),
    ("node_failure", "srun: error: Node failure on node2"),
    (
        "node_failure",
        "slurmstepd: error: *** STEP 12.0 ON node1 CANCELLED AT 2026-11-21T12:09:33 DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***",
    ),
    ("requeued", "slurmstepd: error: *** JOB 12 ON node1 CANCELLED AT 2026-11-21T12:09:33 DUE TO JOB REQUEUE ***"),
    ("cancelled", "slurmstepd-node1: error: *** JOB 12 ON node1 CANCELLED AT 2026-11-21T12:09:44 ***"),
    ("cancelled", "slurmstepd: error: *** JOB 12 ON node1 CANCELLED AT 2026-11-21T12:09:44 DUE to SIGNAL Terminated ***"),
    ("rendezvous", "torch.distributed.elastic.rendezvous.api.RendezvousTimeoutError"),
    (
        "collective_timeout",
        "[rank0]:[E1218 20:27:21.416425540 ProcessGroupNCCL.cpp:629] [Rank 0] Watchdog caught collective operation timeout: "
        "WorkNCCL(SeqNum=7, OpType=ALLREDUCE, NumelIn=131072, NumelOut=131072, "
        "Timeout(ms)=600000) ran for 600081 milliseconds before timing out.",
    ),
    ("collective_timeout", "[Rank 1] Some NCCL operations have failed or timed out. Due to the asynchronous nature of CUDA kernels"),
    ("collective_timeout", "RuntimeError: [unbound_buffer.cc:84] Timed out waiting 1800000ms for recv operation to complete"),
    ("loader", "RuntimeError: DataLoader worker (pid(s) 4242) exited unexpectedly"),
    ("loader", "RuntimeError: DataLoader worker (pid 4242) is killed by signal: Terminated. "),
    (
        "lost_peer",
        "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [10.213.0.12]:31449. This is "
        "typically caused by a remote worker crashing. Check the logs of the remote worker before reporting an error.",
    ),
    ("lost_peer", "RuntimeError: [pair.cc:537] Read error [10.213.0.12]:8320: Connection reset by peer."),
    (
        "lost_peer",
        "torch.distributed.DistNetworkError: failed to recv, got 0 bytes. Connection was likely closed. "
        "Did the remote server shutdown or crash?",
    ),
    ("lost_peer", "ncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely."),
    ("lost_peer", "torch.distributed.elastic.rendezvous.api.RendezvousClosedError"),
]


@pytest.mark.parametrize(("name", "line"), LINES, ids=[f"{name}-{number}" for number, (name, _) in enumerate(LINES)])
def test_a_line_is_known_and_its_words_are_whole(name: str, line: str) -> None:
    match = find(["something before", line, "something behind"], CAUSE, SCHEDULER, words=WORDS) or find([line], SYMPTOM, words=WORDS)
    assert match is not None
    assert (match.signature.name, match.line) == (name, line)
    said = match.verdict + match.advice(run="runs/toy/a", python="/opt/python", job="12")
    assert "{" not in said
    assert bool(LOST_PEER.search(line)) >= (match.signature.kind == SYMPTOM)


def test_every_signature_has_a_line_that_shows_it() -> None:
    matches = [find([line], CAUSE, SCHEDULER, words=WORDS) or find([line], SYMPTOM, words=WORDS) for _, line in LINES]
    shown = {id(match.signature) for match in matches if match}
    assert [signature for signature in WORDS.table if id(signature) not in shown] == []


@pytest.mark.parametrize("signature", [*WORDS.table, *WAITING], ids=lambda each: f"{each.name}:{each.pattern.pattern[:20]}")
def test_what_a_text_holds_is_in_the_pattern(signature: Signature) -> None:
    """Else the user would see a KeyError in place of the verdict."""
    given = {*signature.pattern.groupindex, "run", "python", "job"} | ({"owner", "what"} if signature.kind == WAIT else set())
    for text in (signature.verdict, signature.advice):
        assert {field for _, field, _, _ in string.Formatter().parse(text) if field} <= given
    assert not {"run", "python", "job"} & {field for _, field, _, _ in string.Formatter().parse(signature.verdict) if field}


@pytest.mark.parametrize(
    "line",
    [
        "step 400/4950  8.1%  loss 1.2345  accuracy 0.551  lr 0.412  3,412 samples/s  eta 2:13",
        "[W1121 12:07:36.930267796 socket.cpp:207] [c10d] The hostname of the client socket cannot be retrieved. err=-3",
        "RuntimeError: the toy broke on purpose",
        "slurmstepd-node1: error: *** STEP 423.0 ON node1 CANCELLED AT 2026-11-21T12:10:59 ***",  # srun's own, after a task failed
        "srun: error: node1: task 0: Exited with exit code 1",
        "srun: Job step aborted: Waiting up to 7 seconds for job step to finish.",
    ],
)
def test_an_innocent_line_is_not(line: str) -> None:
    assert find([line], CAUSE, SCHEDULER, SYMPTOM, words=WORDS) is None


@pytest.mark.parametrize("line", ["x" * 1_000, "x " * 500, "=" * 500 + "python" * 80, "error: tasks: " * 70])
def test_a_hostile_line_takes_no_time(line: str) -> None:
    began = time.process_time()
    find([line] * 65, CAUSE, SCHEDULER, SYMPTOM, words=WORDS)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("reason", "words", "advice"),
    [
        ("None", "has not come to it yet", "starts by itself"),
        ("Resources", "in use", "starts by itself"),
        ("Priority", "other jobs come first", "starts by itself"),
        ("Dependency", "another job", "starts by itself"),
        ("DependencyNeverSatisfied", "a job that failed", "launcher cancel R"),
        ("BeginTime", "its time has not come", "starts by itself"),
        ("JobHeldUser", "hold it", "scontrol release 12"),
        ("JobHeldAdmin", "run the cluster", "ask them"),
        ("launch failed requeued held", "failed to start it", "scontrol release 12"),
        ("launch_failed_requeued_held", "failed to start it", "scontrol release 12"),
        ("PartitionTimeLimit", "time limit", "cluster.time"),
        ("PartitionNodeLimit", "that many nodes", "cluster.nodes"),
        ("PartitionDown", "takes no jobs", "starts by itself"),
        ("ReqNodeNotAvail, UnavailableNodes:node[2-3]", "node[2-3]", "starts by itself"),
        ("ReqNodeNotAvail, Reserved for maintenance", "maintenance", "starts by itself"),
        ("Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions", "down", "starts by itself"),
        ("QOSMaxGRESPerUser", "the QOS's limit of GPUs", "starts by itself"),
        ("QOSMaxJobsPerUserLimit", "the QOS's limit of jobs", "starts by itself"),
        ("QOSMaxWallDurationPerJobLimit", "a limit for each job, and this one is beyond it: time", "launcher cancel R"),
        ("QOSGrpNodeLimit", "all jobs of its QOS together are at the limit of nodes", "starts by itself"),
        ("AssocGrpCPUMinutesLimit", "all jobs of its account together are at the limit of CPUs, in minutes", "starts by itself"),
        ("AssocMaxJobsLimit", "the account's limit of jobs", "starts by itself"),
        ("MaxMemoryPerAccount", "the account's limit of memory", "starts by itself"),
        ("InvalidAccount", "account", "cluster.account"),
        ("InvalidQOS", "QOS", "cluster.qos"),
        ("JobArrayTaskLimit", "cluster.throttle", "starts by itself"),
        ("SomethingOfTheNextVersion", "a reason of its own", "starts by itself"),
    ],
)
def test_a_reason_to_wait_in_words(reason: str, words: str, advice: str) -> None:
    match = waiting(reason)
    assert words in match.verdict
    assert advice in match.advice(run="R", job="12")

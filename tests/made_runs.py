"""Runs that never were, as files: two nodes with two processes each, and what ended them, in the words that it leaves."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from launcher.plan import Plan, World
from launcher.rundir.rundir import RunDir

LOST = "RuntimeError: [pair.cc:553] Connection closed by peer [10.213.0.12]:31449. This is typically caused by a remote worker crashing."
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB"
CUT = "slurmstepd: error: *** JOB 12 ON node1 CANCELLED AT 2026-11-21T12:09:33 DUE TO {} ***"
START = "2026-11-21T12:07:30 launcher: attempt 000: job 12, restart 0, nodes node[1-2], meeting at 10.213.0.11:20084"
FAILED = "2026-11-21T12:09:40 launcher: attempt 000 failed: the step ended with status 1; see: python -m launcher why"
TRACEBACK = """\
--- failed
Traceback (most recent call last):
  File "/srv/code/launcher/worker.py", line 53, in main
    work(run, plan, place, where)
  File "/srv/code/mine/data.py", line 54, in steps
    raise NCCL  # quoted code is no evidence
  File "/env/lib/python3.11/site-packages/torch/autograd/graph.py", line 979, in _engine_run_backward
    return Variable._execution_engine.run_backward(
{}
"""


class Made:
    """A run of two nodes with two processes each, as files."""

    def __init__(self, home: Path, *, batch: bool = True, world: World | None = None) -> None:
        self.run = RunDir(home / "runs" / "toy" / "made")
        self.run.attempts.mkdir(parents=True)
        world = world or World(2, 2, "cuda")
        plan = Plan("toy", "made", str(self.run), world, 1, 0, "/opt/python", "/", "/", (), "", "", (), "0")
        self.run.plan.write_text(plan.to_json())
        self.run.script.write_text("#!/bin/bash\n#SBATCH --nodes=2\n" if batch else "#!/bin/bash\n")
        kind = "slurm.Slurm" if batch else "local.Local"
        self.run.config.write_text(f"cluster:\n  nodes: {world.nodes}\n  _target_: launcher.clusters.{kind}\ntrust: []\n")
        self.event("submitted")
        if batch:
            self.event("queued", job="12")

    @property
    def path(self) -> Path:
        return self.run.path

    def event(self, name: str, **fields: object) -> None:
        self.run.log_event(name, **fields)

    def attempt(self, number: int = 0, ended: str | None = None, nodes: str = "node[1-2]") -> Path:
        place = self.run.attempt(number)
        place.mkdir()
        (place / "job").write_text("12\n")
        self.event("attempt", attempt=number, job="12", reason=f"nodes {nodes}")
        if ended is not None:
            (place / "ended").write_text(f"{ended}\n")
        return place

    def write(self, name: str, text: str, age: float = 0) -> None:
        path = self.run.attempt(0) / name if name != "job.log" else self.run.log
        path.write_text(text)
        os.utime(path, (time.time() - age,) * 2)

    def report(self, rank: int, raised: str, restart: int = 0, **fields: object) -> None:
        exception, _, message = raised.partition(": ")
        entry = {"time": time.time(), "rank": rank, "host": f"node{rank // 2 + 1}", "step": 412, "exception": exception, "message": message}
        entry |= {"exit_code": 1, "traceback": TRACEBACK.format(raised).partition("\n")[2], **fields}
        self.write(f"error.{restart}.json" if restart else "error.json", json.dumps(entry))

    def table(self, node: int, *ends: tuple[int, int, str]) -> None:
        """torchrun's, of (rank, exit code, host)."""
        rows = [
            f"[{index}]:\n  time      : 2026-11-21_12:19:12\n  host      : {host}\n  rank      : {rank} (local_rank: {rank % 2})\n"
            f"  exitcode  : {code} (pid: 28701) {'(SIGKILL)' if code == -9 else ''}\n  error_file: <N/A>\n  traceback : …"
            for index, (rank, code, host) in enumerate(ends)
        ]
        self.write(f"agent_{node}.log", "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n" + "\n".join(rows))


def cuda_oom(made: Made) -> None:
    made.report(3, OOM)


def cuda_oom_that_a_lost_peer_reported_first(made: Made) -> None:
    made.report(0, LOST)
    made.write("rank_0.log", TRACEBACK.format(LOST), age=20)
    made.write("rank_3.log", TRACEBACK.format(OOM))
    made.table(1, (3, 1, "node2"))


def host_oom(made: Made) -> None:
    made.report(0, LOST)
    made.table(1, (3, -9, "node2"))
    made.write("job.log", f"{START}\nsrun: error: node2: task 1: Out Of Memory\n{FAILED}")


def sigkill(made: Made) -> None:
    made.report(0, LOST)
    made.table(0, (0, 1, "node1"))
    made.table(1, (2, 1, "node2"), (3, -9, "node2"))


def segfault(made: Made) -> None:
    made.report(0, LOST)
    made.table(1, (3, -11, "node2"))


def exit_without_a_word(made: Made) -> None:
    made.report(0, LOST)
    made.table(1, (3, 3, "node2"))


def exception(made: Made) -> None:
    made.report(3, "ValueError: not a label: 1001")
    made.write("rank_0.log", TRACEBACK.format(LOST), age=20)
    made.write("job.log", f"{START}\nslurmstepd: error: *** STEP 12.0 ON node1 CANCELLED AT 2026-11-21T12:19:13 ***\n{FAILED}")


def imported(made: Made) -> None:
    made.report(3, "ConfigError: mine.Net: No module named 'flash_attn'", traceback=None, step=0)


def disk(made: Made) -> None:
    made.report(3, "RunError: /runs/x cannot be written (No space left on device); make room", traceback=None)


def chained_cause(made: Made) -> None:
    raised = "RuntimeError: the loader gave up"
    made.report(3, raised, traceback=f"OSError: [Errno 122] Disk quota exceeded\n\nThe above exception was …\n{TRACEBACK.format(raised)}")


def nccl_timeout(made: Made) -> None:
    watchdog = "[rank{0}]:[E1218 ProcessGroupNCCL.cpp:629] [Rank {0}] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7, "
    for rank in range(4):
        text = watchdog.format(rank) + "OpType=ALLREDUCE, Timeout(ms)=600000) ran for 600081 milliseconds before timing out."
        made.write(f"rank_{rank}.log", text, age=10 - rank)
    made.table(0, (0, -6, "node1"))


def lost_each_other(made: Made) -> None:
    made.report(1, LOST)
    made.write("rank_0.log", TRACEBACK.format(LOST))


def node_failure(made: Made) -> None:
    made.report(0, LOST)
    made.write("job.log", f"{START}\nsrun: error: Node failure on node2\n{CUT.format('NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS')}")


def time_limit(made: Made) -> None:
    made.table(0, (0, -9, "node1"))
    made.write("job.log", f"{START}\n{CUT.format('TIME LIMIT')}\nsrun: error: node1: task 0: Killed")


def preemption(made: Made) -> None:
    made.write("job.log", f"{START}\n{CUT.format('PREEMPTION')}")


def scancel(made: Made) -> None:
    made.report(0, "EOFError: the pipe was closed")  # much later than the job was cancelled
    made.write("job.log", f"{START}\n{CUT.replace(' DUE TO {}', '').replace('2026-11-21T12:09:33', '2020-01-01T12:00:00')}")


def absent_node(made: Made) -> None:
    made.write("agent_0.log", "Traceback (most recent call last):\n  x\ntorch.distributed.elastic.rendezvous.api.RendezvousTimeoutError\n")


def unreachable(made: Made) -> None:
    absent_node(made)
    retry = "[W1121 TCPStore.cpp:340] [c10d] TCP client failed to connect/validate to host 10.0.0.1:23999 - retrying\n"
    inner = (
        "torch.distributed.DistNetworkError: The client socket has timed out after 60000ms while trying to connect to (10.0.0.1, 23999)."
    )
    outer = "torch.distributed.elastic.rendezvous.api.RendezvousConnectionError: The connection to the C10d store has failed."
    made.write("agent_1.log", f"{retry}Traceback (most recent call last):\n{inner}\n\nTraceback (most recent call last):\n{outer}\n")


def port(made: Made) -> None:
    text = "DistNetworkError: The server socket has failed to listen on any local network address. code: -98, name: EADDRINUSE"
    made.write("agent_0.log", f"Traceback (most recent call last):\n{text}\n")


def no_torch(made: Made) -> None:
    text = "Error while finding module specification for 'torch.distributed.run' (ModuleNotFoundError: No module named 'torch')"
    made.write("agent_1.log", f"/usr/bin/python3: {text}\n")


def not_visible(made: Made) -> None:
    said = "launcher: node2 does not see /srv/plan.json; put runs_dir=… on a file system that every node shares"
    made.write("job.log", f"{START}\n{said}\n{FAILED}")


def torchrun_killed(made: Made) -> None:
    made.report(0, LOST)
    made.write("job.log", f"{START}\nsrun: error: node2: task 1: Killed\nsrun: error: node1: task 0: Exited with exit code 1\n{FAILED}")


def the_shells_own_reason(made: Made) -> None:
    said = "2026-11-21T12:09:40 launcher: attempt 000 failed: the doctor names bad nodes: node2; those are all nodes it has"
    made.write("job.log", f"{START}\n{said}")


def fenced(made: Made) -> None:
    made.report(0, "RunError: attempt 001 has taken over from attempt 000, which writes no more", traceback=None)


def restarted(made: Made) -> None:
    made.report(1, "ValueError: of the first start")
    made.write("rank_1.log", f"{TRACEBACK.format('ValueError: of the first start')}--- restart 1 of attempt 0\nstep 5/10\n")
    made.table(0, (1, -9, "node1"))


CASES: list[tuple[Callable[[Made], None], str, str, str]] = [
    (cuda_oom, "a GPU ran out of memory when asked for 20.00 GiB", "rank 3 on node2, attempt 0, step 412", "train.accumulate"),
    (cuda_oom_that_a_lost_peer_reported_first, "a GPU ran out of memory", "rank 3 on node2", "train.accumulate"),
    (host_oom, "node2 ran out of memory", "node2, attempt 0", "cluster.memory"),
    (sigkill, "rank 3 was killed by SIGKILL", "rank 3 on node2", "launcher resume"),
    (segfault, "rank 3 was killed by SIGSEGV", "rank 3 on node2", "correct it"),
    (exit_without_a_word, "rank 3 exited with status 3", "rank 3 on node2", "launcher resume"),
    (exception, "ValueError: not a label: 1001", "rank 3 on node2, attempt 0, step 412", "correct it"),
    (imported, "the environment of the nodes has no module flash_attn", "rank 3 on node2", "install it for /opt/python"),
    (disk, "the disk is full", "rank 3 on node2", "make room"),
    (chained_cause, "the disk quota is used up", "rank 3 on node2", "make room"),
    (nccl_timeout, "waited in vain for each other in ALLREDUCE", "rank 0 on node1, attempt 0", "logs"),
    (lost_each_other, "the ranks lost each other", "rank 1 on node1", "resume"),
    (node_failure, "node2 failed", "node2, attempt 0", "resume"),
    (time_limit, "the time limit ended the job", "attempt 0", "cluster.time"),
    (preemption, "preempted", "attempt 0", "resume"),
    (scancel, "cancelled with scancel", "attempt 0", "resume"),
    (absent_node, "node2 never came", "node2, attempt 0", "resume"),
    (unreachable, "does not reach the first node at 10.0.0.1", "node2, attempt 0", "cluster.interface"),
    (port, "the port at which the nodes meet was taken", "node1, attempt 0", "resume"),
    (no_torch, "no module torch", "node2, attempt 0", "install it for /opt/python"),
    (not_visible, "node2 does not see the run directory", "node2, attempt 0", "runs_dir"),
    (torchrun_killed, "torchrun on node2 was ended: Killed", "node2, attempt 0", "resume"),
    (the_shells_own_reason, "the doctor names bad nodes: node2", "attempt 0", "correct it"),
    (fenced, "attempt 001 has taken over", "rank 0 on node1", "nothing"),
    (restarted, "rank 1 was killed by SIGKILL", "rank 1 on node1", "resume"),
]


class Said(NamedTuple):
    rows: dict[str, str]
    """Further lines of one are joined to it."""
    table: list[list[str]]
    """Of attempts, without its head."""
    err: str

    def __getitem__(self, name: str) -> str:  # type: ignore[override]  # read by name alone
        return self.rows[name]


def said(out: str, err: str = "") -> Said:
    assert "Traceback (" not in err
    assert out.isprintable() or set(out) - {"\n"} == set(filter(str.isprintable, out))
    head, _, rest = out.partition("\nattempt ")
    rows: dict[str, str] = {}
    for line in head.splitlines():
        name = line[:11].strip()
        if name:
            rows[name] = line[11:]
        else:
            rows["because"] += f"\n{line[11:]}"
    assert next(iter(rows)) == "verdict"
    return Said(rows, [line.split(maxsplit=3) for line in rest.partition("\n\n")[0].splitlines()[1:]], err)


def job(state: str, reason: str = "None", start: str = "N/A") -> str:
    """A squeue, as shell text."""
    return f"echo '12|12|{state}|{reason}|node[1-2]|{start}|2026-11-21T12:07:30|0:42|toy.made'"

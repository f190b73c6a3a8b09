"""What lies between processes: the shared file system, the clocks, sums over all of them, links from node to node.

The first process of each node speaks for it: a leader. Leaders are in the order of their ranks, which is torchrun's, not the scheduler's.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from launcher.devices import CPU, HOST_BACKEND, KINDS
from launcher.doctor.examine.patient import Patient
from launcher.doctor.findings import nonce_file
from launcher.train.device import wait
from launcher.train.world.proof import prove
from launcher.train.world.ranks import gather
from launcher.trust import writing

FILES_SECONDS = 10.0
"""A file written on one node must be seen on all others by then; NFS may keep a directory for some seconds."""
SUM_BYTES = {True: (2**22, 2**26), False: (2**18, 2**22)}
LINK_BYTES = {True: 2**26, False: 2**22}
"""On GPUs, or between CPUs."""
ROUNDS = 5
LATENCY_ROUNDS = 20


def examine(patient: Patient, *, on_gpus: bool) -> None:
    """Fill in `files`, `clock`, `sum` and `links`. `on_gpus`: every process has a working one, and that is what sends."""
    rank = patient.place.rank
    spoken = gather(patient.node if patient.place.local_rank == 0 else None, None, patient.place.world)
    leaders = [other for other, node in enumerate(spoken) if node is not None]
    names = [spoken[leader] for leader in leaders]
    kind = patient.plan.world.device
    device = torch.device(kind, patient.place.local_rank) if on_gpus else torch.device(CPU)
    backend = KINDS[kind].backend if on_gpus else HOST_BACKEND

    patient.enter("files")
    _files(patient, leaders, names)
    patient.enter("clock")
    if rank in leaders:
        patient.facts["clock"] = _clock(rank, leaders, 5.0 if "clock" in patient.drills else 0.0)
    patient.enter("sum")
    everybody = dist.new_group(backend=backend)
    if not on_gpus:
        prove(everybody, "doctor.sum")
    patient.facts["sum"] = _sum(rank, patient.place.world, everybody, device, SUM_BYTES[on_gpus], corrupt="sum" in patient.drills)
    patient.enter("links")
    group = dist.new_group(leaders, backend=backend)
    if rank in leaders and len(leaders) > 1:
        if not on_gpus:
            prove(group, "doctor.links")
        patient.facts["links"] = _links(rank, leaders, names, group, device, LINK_BYTES[on_gpus], corrupt="link" in patient.drills)
    dist.barrier()


def _files(patient: Patient, leaders: list[int], names: list[str]) -> None:
    """Each leader writes a file that nobody can know and reads those of all others. `unseen`: nodes whose file did not come."""
    rank, nonce = patient.place.rank, secrets.token_hex(16)
    place = patient.run.attempt(patient.place.attempt)
    mine = nonce_file(place, rank)
    if rank in leaders and "files" not in patient.drills:
        with os.fdopen(os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(nonce)
            file.flush()
            writing.sync(file.fileno())
    nonces = gather(
        nonce, None, patient.place.world
    )  # after it every file is there; nobody has looked for one before, so no cache says it is not
    if rank in leaders:
        began = time.monotonic()
        left = dict(zip(leaders, names, strict=True))
        while left and time.monotonic() < began + FILES_SECONDS:
            left = {leader: name for leader, name in left.items() if _read(nonce_file(place, leader)) != nonces[leader]}
            time.sleep(0.05 if left else 0)
        patient.facts["files"] = {"unseen": sorted(left.values()), "seconds": time.monotonic() - began}
    dist.barrier()
    mine.unlink(missing_ok=True)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _clock(rank: int, leaders: list[int], ahead: float) -> dict[str, float]:
    """`offset`: seconds that this node's clock is ahead of the first leader's, known to +- `rtt` / 2: the quickest of a few round trips."""
    first = leaders[0]
    if rank != first:
        best = {"offset": 0.0, "rtt": float("inf")}
        theirs = torch.zeros(1, dtype=torch.float64)
        for _ in range(ROUNDS):
            dist.send(theirs, first)
            began = time.time()
            dist.send(theirs, first)
            dist.recv(theirs, first)
            ended = time.time()
            if ended - began < best["rtt"]:
                best = {"offset": (began + ended) / 2 + ahead - theirs.item(), "rtt": ended - began}
        return best
    for leader in leaders[1:]:
        for _ in range(ROUNDS):
            box = torch.zeros(1, dtype=torch.float64)
            dist.recv(box, leader)  # now it is its turn
            dist.recv(box, leader)
            box[0] = time.time() + ahead
            dist.send(box, leader)
    return {"offset": 0.0, "rtt": 0.0}


def numbers(count: int, device: torch.device) -> torch.Tensor:
    """1 2 3 … 7 1 2 …: (count,) float32. Its multiples stay exact where they are below 2**24."""
    return (torch.arange(count, device=device) % 7 + 1).float()


def _sum(rank: int, world: int, group: Any, device: torch.device, sizes: tuple[int, ...], *, corrupt: bool) -> dict[str, Any]:
    """All-reduce over all processes: elements that are wrong, seconds for each size, seconds for a single number."""
    wrong, timed = 0, list[dict[str, float]]()
    for size in sizes:
        base = numbers(size // 4, device)
        mine = base * (rank % 64 + 1)
        if corrupt:
            mine[0] += 1
        expected = base * sum(other % 64 + 1 for other in range(world))
        total = mine.clone()
        dist.all_reduce(total, group=group)  # also makes the connections, which is not timed
        wrong += int((total != expected).sum())
        timed.append({"bytes": size, "seconds": _quickest(lambda total=total: dist.all_reduce(total, group=group), device, ROUNDS)})
    single = torch.ones(1, device=device)
    latency = _quickest(lambda: dist.all_reduce(single, group=group), device, LATENCY_ROUNDS)
    return {"wrong": wrong, "timed": timed, "latency": latency}


def _links(
    rank: int, leaders: list[int], names: list[str], group: Any, device: torch.device, size: int, *, corrupt: bool
) -> list[dict[str, Any]]:
    """Every leader sends to the next one and receives from the one before, then the same two places apart: with three nodes or more each
    takes part in four links, so that a bad one is the node that all bad links have in common."""
    here, count = leaders.index(rank), len(leaders)
    dist.all_reduce(torch.ones(1, device=device), group=group)  # NCCL makes its connections with all of a group
    mine = numbers(size // 4, device) * (here % 64 + 1)
    if corrupt:
        mine[-1] += 1
    found: list[dict[str, Any]] = []
    for stride in (1, 2) if count > 2 else (1,):
        target, source = (here + stride) % count, (here - stride) % count
        box = torch.zeros_like(mine)

        def swap(target: int = target, source: int = source, box: torch.Tensor = box) -> None:
            operations = [dist.P2POp(dist.isend, mine, leaders[target], group), dist.P2POp(dist.irecv, box, leaders[source], group)]
            for request in dist.batch_isend_irecv(operations):
                request.wait()

        seconds = _quickest(swap, device, ROUNDS)
        wrong = int((box != numbers(size // 4, device) * (source % 64 + 1)).sum())
        found.append({"from": names[source], "bytes_per_second": size / seconds, "wrong": wrong})
    return found


def _quickest(work: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Seconds of the quickest of some calls: what is shared with others is slow now and then, never too quick."""
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        wait(device)
        best = min(best, time.perf_counter() - began)
    return best

"""What one process looks at: its device, its node, and then, with the others, what lies between them (between.py)."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from launcher.devices import CPU
from launcher.doctor.examine import between, health
from launcher.doctor.examine.patient import EXAMINE_SECONDS, JOIN_SECONDS, Patient
from launcher.train import device
from launcher.train.world import meeting
from launcher.train.world.proof import prove
from launcher.train.world.ranks import gather

NEVER = timedelta(hours=1)
"""Nothing in torch is to time out: the thread of Patient does, and knows what was going on."""
MATMUL_SECONDS = {True: 0.3, False: 1.0}
"""How long the speed is measured: on a CPU, on a GPU."""
SIDE = {True: 768, False: 6144}
"""Of the square matrices; 3 x a power of two, see `pattern`."""


def examine(patient: Patient) -> list[dict[str, Any]] | None:
    """Everything, in step with the other processes. Returns everybody's findings on rank 0."""
    kind = patient.plan.world.device
    torch.set_num_threads(patient.plan.threads)
    _join(patient)
    patient.enter("device", EXAMINE_SECONDS)
    facts = patient.facts
    facts["host"] = _safely(lambda: _host(patient.run.path))
    facts["device"] = _safely(lambda: _device(kind, patient.place.local_rank))
    if "error" not in facts["device"]:
        target = torch.device(CPU) if kind == CPU else torch.device(kind, patient.place.local_rank)
        facts["matmul"] = _safely(lambda: matmul(target, facts, corrupt="matmul" in patient.drills))
    patient.enter("compare")
    healthy = torch.tensor([int("error" not in facts["device"] and "error" not in facts["matmul"])])
    dist.all_reduce(healthy, op=dist.ReduceOp.MIN)
    between.examine(patient, on_gpus=kind != CPU and bool(healthy))
    patient.enter("gather")
    facts["stage"] = "end"  # in what is gathered
    gathered = gather(facts, None, patient.place.world)
    dist.barrier()
    return gathered if patient.place.rank == 0 else None


def _join(patient: Patient) -> None:
    """Meet the others; the gloo group that is left as the default carries numbers between processes, never through a GPU."""
    if "hang" in patient.drills:
        time.sleep(86_400)
    patient.enter("join", JOIN_SECONDS)
    rank, world = patient.place.rank, patient.place.world
    patient.store = meeting.store(patient.plan, patient.place, NEVER)
    store = meeting.store(patient.plan, patient.place, NEVER)
    store.set(f"doctor/{rank}", patient.node)
    store.wait([f"doctor/{other}" for other in range(world)], NEVER)
    dist.init_process_group("gloo", store=dist.PrefixStore("doctor", store), rank=rank, world_size=world, timeout=NEVER)  # pyright: ignore[reportPrivateImportUsage]
    prove(None, "doctor")


def _safely(check: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A check that raises is a finding too, and the others wait for this process."""
    try:
        return check()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


# ---------------------------------------------------------------- the device


def _device(kind: str, index: int) -> dict[str, Any]:
    if kind == CPU:
        name = device.name(torch.device(CPU))
        return {"name": name, "count": os.cpu_count(), "bytes": _memory("MemTotal"), "free": _memory("MemAvailable")}
    taken = device.take(kind, index)
    free, total = device.memory(taken)
    count = torch.accelerator.device_count()
    return {"name": device.name(taken), "count": count, "bytes": total, "free": free, "uuid": device.uuid(taken)}


def pattern(side: int, dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two matrices of small integers and their product, known without computing it: (side, side) each, `side` = 3 x a power of two.

    A[i, k] = r(i) (((i + k) mod 3) - 1) and B[k, j] = c(j) (((k + j) mod 3) - 1) with r and c odd and below 8. A period of three adds 2
    where i = j mod 3 and -1 elsewhere, so the product is r(i) c(j) times side 2/3 or -side/3: 49 times a power of two at most, which
    bfloat16 holds exactly, as float32 does every sum on the way.
    """
    index = torch.arange(side, device=device)
    odd = 1 + 2 * (index.div(3, rounding_mode="floor") % 4)
    waves = (index[:, None] + index[None, :]) % 3 - 1
    same = (index[:, None] - index[None, :]) % 3 == 0
    third = side // 3
    product = odd[:, None] * odd[None, :] * torch.where(same, 2 * third, -third)
    return (odd[:, None] * waves).to(dtype), (waves * odd[None, :]).to(dtype), product.to(dtype)


def matmul(where: torch.device, facts: dict[str, Any], *, corrupt: bool) -> dict[str, Any]:
    """Elements that are wrong in float32 and bfloat16, and the speed in floating point operations per second."""
    device.sum_exactly()
    on_cpu = device.is_host(where)
    side, wrong = SIDE[on_cpu], 0
    for dtype in (torch.float32, torch.bfloat16):
        a, b, expected = pattern(side, dtype, where)
        product = a @ b
        if corrupt:
            product[side // 2, side // 3] += 1024
        wrong += int((product != expected).sum())
    timed = torch.float32 if on_cpu else torch.bfloat16
    a, b, expected = pattern(side, timed, where)
    seconds = _seconds_each(lambda: torch.mm(a, b, out=expected), where, MATMUL_SECONDS[on_cpu])
    if not on_cpu:
        for _ in range(max(1, int(0.5 / seconds))):  # asked while it works: an idle GPU is never throttled
            torch.mm(a, b, out=expected)
        if device.has_cublas(where):
            facts["health"] = health.examine(facts["device"]["uuid"])
        device.wait(where)
    wrong += int((expected != pattern(side, timed, where)[2]).sum())
    return {"wrong": wrong, "flops": 2 * side**3 / seconds, "dtype": str(timed).removeprefix("torch.")}


def _seconds_each(work: Callable[[], object], where: torch.device, total: float) -> float:
    """Median of single calls for `total` seconds, the first of them not counted."""
    times: list[float] = []
    until = time.perf_counter() + total
    while len(times) < 4 or time.perf_counter() < until:
        began = time.perf_counter()
        work()
        device.wait(where)
        times.append(time.perf_counter() - began)
    return sorted(times[1:])[len(times[1:]) // 2]


# ---------------------------------------------------------------- the node


def _host(run: Path) -> dict[str, Any]:
    """Bytes free: on the disk of the run directory, in /tmp, of memory."""
    return {
        "run_free": shutil.disk_usage(run).free,
        "tmp_free": shutil.disk_usage("/tmp").free,
        "memory_free": _memory("MemAvailable"),
    }


def _memory(what: str) -> int:
    """A line of /proc/meminfo in bytes; where there is none, all of the machine's memory."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith(f"{what}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

"""The rows of `make gpu`: each shows one thing on the device and returns what was seen; AssertionError where it does not hold.

A row runs in a process and an empty directory of its own. To add one: a function with `@row(promise, seconds)`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    name: str
    promise: str
    seconds: float
    """It may take; more is a failure."""
    on_cpu: bool
    """Whether a CPU stands in: what is the same on both is shown then."""
    show: Callable[[str], str]


RUNS = Path.cwd() / "runs"
"""Of a row: it is in a directory of its own."""

ROWS: dict[str, Row] = {}


def row(promise: str, seconds: float, *, on_cpu: bool = False) -> Callable[[Callable[[str], str]], Callable[[str], str]]:
    def add(show: Callable[[str], str]) -> Callable[[str], str]:
        ROWS[show.__name__] = Row(show.__name__, promise, seconds, on_cpu, show)
        return show

    return add


def program(text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, for what may end one."""
    env = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", text], env=env, capture_output=True, text=True, timeout=90, check=False)


def launch(*words: str) -> list[str]:
    return [sys.executable, "-m", "launcher", *words]


def same_weights(one: Path, other: Path) -> bool:
    manifests = [json.loads((max((run / "checkpoints").glob("step_*")) / "manifest.json").read_text()) for run in (one, other)]
    first, second = (each["manifest"]["files"]["model.safetensors"]["sha256"] for each in manifests)
    return first == second


@row("the card's health can be asked for", 60)
def card(device: str) -> str:
    import torch

    from launcher.doctor.examine import health

    properties: Any = torch.cuda.get_device_properties(0)
    found = health.examine(str(getattr(properties, "uuid", "")))
    assert found["by"], found.get("why")
    return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB; {found}"


@row("devices are counted as CUDA counts them", 90)
def counting(device: str) -> str:
    text = "import torch; from launcher.clusters.gpus import find; print(find().count, torch.cuda.device_count())"
    seen = {}
    for visible in ("0", "0,0", "0,7", "-1,0", ""):
        done = program(text, CUDA_VISIBLE_DEVICES=visible)
        assert done.returncode == 0, done.stderr
        ours, cudas = done.stdout.split()
        assert ours == cudas, f"CUDA_VISIBLE_DEVICES={visible}: {ours} counted, CUDA has {cudas}"
        seen[visible] = int(ours)
    return str(seen)


@row("auto takes what the card computes, and a run says so", 120, on_cpu=True)
def precision(device: str) -> str:
    import torch

    from launcher.train.precision import choose

    chosen, why = choose("auto", torch.device(device, 0) if device == "cuda" else torch.device("cpu"))
    summary = train(device, "train.steps=3", "train.batch_size=32")
    assert summary["precision"] == chosen, summary["precision"]
    return f"{chosen}, for {why}"


def train(device: str, *words: str) -> dict[str, Any]:
    fixed = ("+exp=cifar", "data.source=standin", f"runs_dir={RUNS}", "id=a", f"cluster.device={device}", "cluster.processes_per_node=1")
    done = subprocess.run(launch(*fixed, *words), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-600:]
    return json.loads((RUNS / "cifar-standin" / "a" / "summary.json").read_text())


@row("with train.deterministic=true a killed run ends equal to the last bit", 200, on_cpu=True)
def equality(device: str) -> str:
    """Without it, how many of the losses after a resume are others: told, not judged."""
    steps = 120 if device == "cuda" else 24
    told = []
    for exact in (True, False):
        losses = {}
        for name in ("whole", "killed"):
            fixed = ("+exp=cifar", "data.source=standin", f"runs_dir={RUNS}", f"id={name}{exact}", f"cluster.device={device}")
            more = (f"train.steps={steps}", "train.batch_size=32", f"train.save_every={steps // 6}", "train.log_every=1")
            run = RUNS / "cifar-standin" / f"{name}{exact}"
            process = subprocess.Popen(
                launch(*fixed, *more, "cluster.processes_per_node=1", f"train.deterministic={exact}".lower()), stdout=subprocess.DEVNULL
            )
            if name == "killed":
                until = time.monotonic() + 90
                while len(list((run / "checkpoints").glob("step_*"))) < 1 and time.monotonic() < until and process.poll() is None:
                    time.sleep(0.01)
                process.kill()  # its workers go with it
                process.wait()
                process = subprocess.Popen(launch("resume", str(run)), stdout=subprocess.DEVNULL)
            assert process.wait(120) == 0, "a run failed"
            lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            losses[name] = [line["loss"] for line in lines if line["split"] == "train"]
        other = sum(one != two for one, two in zip(losses["whole"], losses["killed"], strict=True))
        assert not exact or (other == 0 and same_weights(RUNS / "cifar-standin" / "wholeTrue", RUNS / "cifar-standin" / "killedTrue")), (
            f"{other} losses differ"
        )
        told.append(f"{other} of {steps} losses differ {'with' if exact else 'without'} it")
    return ", ".join(told)


@row("a save is measured by what the device does, not by how fast it is told", 60, on_cpu=True)
def save(device: str) -> str:
    import torch

    from launcher.train.checkpoint.state import Parts, Snapshot
    from launcher.train.checkpoint.stored import TrainState
    from launcher.train.ema import NoEma
    from launcher.train.optimizers import Optimizers
    from launcher.train.record.meter import Meter
    from launcher.train.record.span import span

    where = torch.device(device, 0) if device == "cuda" else torch.device("cpu")
    model = torch.nn.Linear(1, 1, device=where)
    model.filler = torch.nn.Parameter(torch.zeros(250_000_000 if device == "cuda" else 1_000_000, device=where))
    parts = Parts(model, Optimizers([torch.optim.SGD(model.parameters(), lr=0.1)], model), None, NoEma(), Meter(where), where)
    snapshot = Snapshot()
    snapshot.take(parts, TrainState(), 0)  # the first one allocates
    if device == "cuda":
        torch.cuda.synchronize()
    began, measured = time.perf_counter(), span(snapshot.aside(where))
    snapshot.take(parts, TrainState(), 0)
    measured.end()
    host, seconds = time.perf_counter() - began, measured.seconds()
    whole = time.perf_counter() - began
    if device == "cuda":
        assert 0.7 * whole <= seconds <= whole, f"measured {seconds:.4f} s of {whole:.4f} s"
    return f"host {1000 * host:.1f} ms, device {1000 * seconds:.1f} ms, until it was there {1000 * whole:.1f} ms"


@row("a save's copy goes on beside the next forward pass, and the next update waits for it", 60, on_cpu=True)
def aside(device: str) -> str:
    import torch
    from safetensors.torch import load

    from launcher.train.checkpoint.state import Parts, Snapshot
    from launcher.train.checkpoint.stored import TrainState
    from launcher.train.ema import NoEma
    from launcher.train.optimizers import Optimizers
    from launcher.train.record.meter import Meter

    where = torch.device(device, 0) if device == "cuda" else torch.device("cpu")
    model = torch.nn.Linear(1, 1, device=where)
    model.filler = torch.nn.Parameter(torch.zeros(250_000_000 if device == "cuda" else 1_000_000, device=where))
    parts = Parts(model, Optimizers([torch.optim.SGD(model.parameters(), lr=0.1)], model), None, NoEma(), Meter(where), where)
    snapshot, seconds = Snapshot(), {}
    for name, cycles in (("allocating", 0), ("the copy", 0), ("both", 400_000_000)):
        began = time.perf_counter()
        files = snapshot.take(parts, TrainState(), 0)
        if device == "cuda":
            torch.cuda._sleep(cycles)  # the next forward and backward
        parts.optimizers.make_way()
        with torch.no_grad():
            model.filler.add_(1)  # the next update
        if device == "cuda":
            torch.cuda.synchronize()
        seconds[name] = time.perf_counter() - began
        saved = load(b"".join(files["model.safetensors"]))["filler"]
        assert bool((saved == model.filler.detach().cpu() - 1).all()), f"{name}: the file has what the update made"
    if device == "cuda":
        began = time.perf_counter()
        torch.cuda._sleep(400_000_000)
        torch.cuda.synchronize()
        seconds["the pass"] = time.perf_counter() - began
        apart = seconds["the copy"] + seconds["the pass"]
        assert seconds["both"] < apart - 0.5 * min(seconds["the copy"], seconds["the pass"]), f"one after the other: {seconds}"
    return ", ".join(f"{name} {1000 * spent:.0f} ms" for name, spent in seconds.items())


@row("what waits for the device sleeps", 60)
def waiting(device: str) -> str:
    import torch

    from launcher.train.record.meter import Fetch

    torch.cuda._sleep(1)
    torch.cuda.synchronize()
    torch.cuda._sleep(2_000_000_000)  # about a second
    fetch = Fetch(torch.ones(1, device="cuda"))
    worked, began = time.thread_time(), time.perf_counter()
    fetch.value()
    worked, waited = time.thread_time() - worked, time.perf_counter() - began
    assert waited > 0.2, f"waited only {waited:.3f} s: nothing shown"
    assert worked < 0.2 * waited, f"{worked:.2f} s of a processor in {waited:.2f} s"
    return f"{1000 * worked:.0f} ms of a processor in {1000 * waited:.0f} ms"


_ALONE = """
import datetime, os, torch, torch.distributed as dist
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0", RANK="0", WORLD_SIZE="1")
torch.cuda.set_device(0)
store = dist.TCPStore("127.0.0.1", 0, 1, True)
dist.init_process_group("nccl", store=store, rank=0, world_size=1, timeout=datetime.timedelta(seconds=5))
ones = torch.ones(1, device="cuda")
dist.all_reduce(ones)
torch.cuda.synchronize()
"""


@row("a collective that NCCL gives up is known as a hang", 120)
def nccl_abort(device: str) -> str:
    """A kernel that runs for long before the collective stands in for the rank that does not come: one GPU takes one rank of NCCL."""
    text = _ALONE + "torch.cuda._sleep(60_000_000_000)\ndist.all_reduce(ones)\ntorch.cuda.synchronize()\n"
    done = program(text, TORCH_NCCL_ASYNC_ERROR_HANDLING="1")
    from launcher.verdict.signatures import CAUSE, SYMPTOM, find

    assert done.returncode == -signal.SIGABRT, f"ended with {done.returncode}: {done.stderr[-300:]}"
    shell = re.search(r"Watchdog caught collective operation timeout|operations have failed or timed out|watchdog got stuck", done.stderr)
    assert shell, "the batch shell would not know it"
    lines = done.stderr.splitlines()
    assert find(lines, CAUSE) is None, find(lines, CAUSE)
    found = find(lines, SYMPTOM)
    assert found is not None, "why would not know it"
    assert found.signature.name == "collective_timeout", found.signature.name
    return f"SIGABRT; {found.verdict}"


_KERNEL = """
import torch
torch.cuda.jiterator._create_jit_fn("template <typename T> T broken(T x) {{ {body} return x; }}")(torch.ones(1, device="cuda"))
torch.cuda.synchronize()
"""


@row("a GPU's own failure is told from a program's", 120)
def hardware(device: str) -> str:
    """A trap in a kernel gives CUDA's unspecified launch failure; a null address and an index out of range are the program's."""
    from launcher.node.hardware import is_broken

    broken = program(_KERNEL.format(body='asm(\\"trap;\\");'))
    address = program(_KERNEL.format(body="*(volatile int*)16 = 1;"))
    index = program("import torch; x = torch.ones(2, device='cuda')[torch.tensor([9], device='cuda')]; torch.cuda.synchronize()")
    said = [each.stderr.strip().splitlines()[-1] if each.stderr.strip() else "" for each in (broken, address, index)]
    assert all(each.returncode for each in (broken, address, index)), said
    assert is_broken(broken.stderr), broken.stderr[-300:]
    assert not is_broken(address.stderr), address.stderr[-300:]
    assert not is_broken(index.stderr), index.stderr[-300:]
    return "a trap is the GPU's, an illegal address and an assertion are not"


@row("memory that ran out is said in these words", 60)
def memory(device: str) -> str:
    from launcher.verdict.signatures import CAUSE, find

    done = program("import torch; torch.empty(10**13, device='cuda')")
    found = find(done.stderr.splitlines(), CAUSE)
    assert found is not None, done.stderr[-300:]
    assert found.signature.name == "cuda_oom", found.signature.name
    return found.verdict


@row("NCCL takes the interface that was named, and that one alone", 120)
def interfaces(device: str) -> str:
    told = {}
    for named in ("", "=lo"):
        done = program(_ALONE, NCCL_DEBUG="INFO", **({"NCCL_SOCKET_IFNAME": named} if named else {}))
        assert done.returncode == 0, done.stderr[-300:]
        found = re.search(r"Bootstrap ?: Using (\S+?):", done.stdout + done.stderr)
        assert found, "NCCL does not say which it uses"
        told[named] = found[1]
    assert told["=lo"] == "lo", told
    return f"{told['']} by itself, {told['=lo']} where =lo was named"


@row("doctor finds nothing wrong with this machine", 180, on_cpu=True)
def doctor(device: str) -> str:
    words = launch(
        "doctor", "+exp=cifar", "data.source=standin", f"runs_dir={RUNS}", f"cluster.device={device}", "cluster.processes_per_node=1"
    )
    done = subprocess.run(words, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-400:]
    return " ".join(done.stdout.split())[-200:]

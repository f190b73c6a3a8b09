"""The passes before the first update of a pipeline: what they find, whom they blame, and that nobody sees them."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from processes import said_by
from torch import nn

from launcher.errors import ConfigError
from launcher.strategies import stages
from launcher.strategies.pipeline import Pipeline

CPU = torch.device("cpu")
OOM = "CUDA out of memory. Tried to allocate 2.00 GiB"


@pytest.fixture(scope="module")
def group() -> Iterator[Any]:
    """Of one process, which has all stages."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


class Chain(nn.Module):
    """Has a state in all that can have one."""

    def __init__(self, between: Callable[[Chain, torch.Tensor], torch.Tensor] = lambda model, x: x) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.head = nn.Linear(4, 2)
        self.between = between

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        return self.head(self.between(self, self.body(x)) + (x if self.between is residual and self.training else 0))


def residual(model: Chain, x: torch.Tensor) -> torch.Tensor:
    """Around `body`, where the model trains alone: `forward` adds it."""
    return x


class Headless(Chain):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self.embed(x))


def cut(model: nn.Module, group: Any) -> Pipeline:
    """In two stages, the second of which begins with `body`."""
    shares = stages.shares(model, stages.units(model, ("embed", "body", "head")), 2, ["body"])
    return Pipeline(model, [stages.stage(model, shares, number) for number in range(2)], 2, group, CPU, "Interleaved1F1B")


def probed(model: nn.Module, group: Any) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    pipeline = cut(model, group)
    return pipeline._probe(lambda: pipeline(torch.ones(6, 3)))


def test_nobody_sees_that_shapes_were_found_out(group: Any) -> None:
    model = Chain()
    model.body.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    drawn = torch.get_rng_state()
    seen = probed(model, group)
    assert {number: (tuple(takes.shape), tuple(gives.shape)) for number, (takes, gives) in seen.items()} == {
        0: ((1,), (6, 4)),
        1: ((6, 4), ()),
    }
    assert torch.equal(torch.get_rng_state(), drawn)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_is_looked_at_as_it_trains(group: Any) -> None:
    probed(Chain(residual).eval(), group)
    with pytest.raises(ConfigError, match="forward does more with what a module of STAGES gives"):
        probed(Chain(residual), group)


def test_a_forward_that_leaves_out_its_last_module_is_named(group: Any) -> None:
    with pytest.raises(ConfigError, match="forward ends where head is due"):
        probed(Headless(), group)


def test_a_first_module_that_changes_what_it_is_given_is_found_out(group: Any) -> None:
    for changes in (False, True):
        model = Chain()
        model.body = nn.ReLU(inplace=changes)
        pipeline = cut(model, group)
        pipeline._probe(lambda pipeline=pipeline: pipeline(torch.ones(6, 3)))
        assert pipeline.stages[1].mail.copies is changes


@pytest.mark.parametrize("where", ["weight", "running_var"])
def test_weights_that_have_gone_bad_are_not_what_the_config_says(group: Any, where: str) -> None:
    model = Chain()
    with torch.no_grad():
        (model.body[0].weight if where == "weight" else model.body[1].running_var).fill_(float("nan"))
    assert probed(model, group).keys() == {0, 1}


def raised(error: Exception, *modules: str) -> Callable[..., Any]:
    """A function of the first of these modules, which calls one of the next; that of the last raises it."""
    call: Any = None
    for module in reversed(modules):
        made = types.ModuleType(module)
        made.__dict__.update(call=call, error=error)
        exec("def fail(*ignored):\n    if call is not None: call()\n    raise error.with_traceback(None)", made.__dict__)
        call = made.__dict__["fail"]
    return call


def wrapped(fail: Callable[..., Any]) -> Callable[..., Any]:
    """Of a model that has words of its own for whatever fails."""

    def call(model: Chain, x: torch.Tensor) -> torch.Tensor:
        try:
            return fail(x)
        except Exception as error:
            raise ValueError("the body failed") from error

    return call


CLOSED = RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:20177")
OF_THE_MACHINE = {
    "gloo": raised(CLOSED, "torch.distributed.distributed_c10d"),
    "a collective of FSDP's": raised(CLOSED, "torch.distributed.fsdp._fully_shard._fsdp_collectives"),
    "a functional collective": raised(CLOSED, "torch.distributed._functional_collectives", "torch._ops"),
    "a broken connection": raised(dist.DistNetworkError("Failed to recv, got 0 bytes"), "elsewhere"),
    "NCCL": raised(dist.DistBackendError("NCCL error in: ProcessGroupNCCL.cpp:77, remote process exited"), "elsewhere"),
    "memory of a GPU": raised(torch.OutOfMemoryError(OOM), "elsewhere"),
    "a GPU": raised(torch.AcceleratorError("CUDA error: unspecified launch failure"), "elsewhere"),
    "a library of a GPU": raised(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), "elsewhere"),
    "memory": raised(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."), "elsewhere"),
    "memory of Python's": raised(MemoryError(), "elsewhere"),
    "a file system": raised(OSError(5, "Input/output error"), "elsewhere"),
    "a timeout": raised(TimeoutError("no answer"), "elsewhere"),
}


@pytest.mark.parametrize("fault", OF_THE_MACHINE.values(), ids=OF_THE_MACHINE)
def test_what_a_machine_or_a_peer_fails_is_not_the_models(group: Any, fault: Callable[..., Any]) -> None:
    with pytest.raises(Exception) as failed:  # noqa: PT011  # of any kind but one
        probed(Chain(fault), group)
    assert not isinstance(failed.value, ConfigError)
    with pytest.raises(ValueError, match="the body failed"):
        probed(Chain(wrapped(lambda x: fault(None, x))), group)


LEFT = """
import json, os, sys
from datetime import timedelta
import torch, torch.distributed as dist
from launcher.strategies import crossing, faults
rank = int(sys.argv[1])
dist.init_process_group("gloo", store=dist.FileStore(sys.argv[2], 2), rank=rank, world_size=2, timeout=timedelta(seconds=60))
dist.barrier()
if rank:
    print("0", flush=True)
    os._exit(0)
device, parameter = torch.device("cpu"), torch.nn.Parameter(torch.ones(3))
parameter.grad = torch.ones(3)
found = {}
for name, call in {
    "receive": lambda: crossing.receive(1, dist.group.WORLD, device),
    "send": lambda: [crossing.send(torch.ones(1 << 16), 1, dist.group.WORLD, device) for _ in range(100)],
    "broadcast": lambda: dist.broadcast(torch.ones(3), 1),
    "average": lambda: crossing.average([parameter], dist.group.WORLD),
}.items():
    try:
        call()
    except Exception as error:
        found[name] = [type(error).__name__, faults.is_of_machine(error)]
print(json.dumps(found), flush=True)
os._exit(0)
"""


def test_what_gloo_raises_for_a_peer_that_is_gone_is_not_the_models(tmp_path: Path) -> None:
    found, _ = said_by(tmp_path, [["-c", LEFT, str(rank), str(tmp_path / "meeting")] for rank in range(2)])
    assert found == {name: ["RuntimeError", True] for name in ("receive", "send", "broadcast", "average")}


OF_THE_MODEL = {
    "shapes": lambda model, x: x @ x,
    "no such thing": lambda model, x: x.nothing,
    "its own words": raised(RuntimeError("mine"), "models.mine"),
    "pieces of tensors": raised(RuntimeError("got mixed torch.Tensor and DTensor"), "torch.distributed.tensor._dispatch"),
    "what no message takes": raised(
        TypeError("Invalid function argument. Expected parameter tensor"), "torch.distributed.distributed_c10d"
    ),
}


@pytest.mark.parametrize("mistake", OF_THE_MODEL.values(), ids=OF_THE_MODEL)
def test_what_the_model_raises_is_one_line_that_names_it(group: Any, mistake: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"the model cannot be run in stages, if it can at all .*; type strategy=fsdp"):
        probed(Chain(mistake), group)

"""What is asked of torch about a device, with stand-ins for the modules of kinds that the machines which run these tests have not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from data.processes.ahead import Blocking, Copier, Here, copier
from data.sampling import memory
from launcher.errors import ConfigError
from launcher.strategies import draws
from launcher.train import device, precision
from launcher.train.checkpoint import generators
from launcher.train.record import peaks
from launcher.train.record.meter import Fetch

CPU, CUDA, XPU, MPS = (torch.device(kind) if kind in ("cpu", "mps") else torch.device(kind, 0) for kind in ("cpu", "cuda", "xpu", "mps"))


class Queue:
    """A stream or an event, and what it was made with."""

    def __init__(self, *given: Any, **named: Any) -> None:
        self.given, self.named = given, named

    def record_event(self) -> Queue:
        return Queue(self)

    def wait_event(self, event: Queue) -> None:
        self.given = (*self.given, event)


class Intel(SimpleNamespace):
    """torch.xpu, of one GPU that is no data centre's."""

    Stream, Event = Queue, Queue

    def __init__(self) -> None:
        super().__init__(drawn=torch.arange(3), current=Queue("current"))

    def get_device_properties(self, device: Any) -> Any:
        return SimpleNamespace(name="Intel Arc", uuid="", has_fp64=False, has_subgroup_matrix_multiply_accumulate=True)

    def get_device_name(self, device: Any) -> str:
        return "Intel Arc"

    def mem_get_info(self, device: Any) -> tuple[int, int]:
        return 1000, 4000

    def get_rng_state(self, device: Any) -> torch.Tensor:
        return self.drawn

    def set_rng_state(self, state: torch.Tensor, device: Any) -> None:
        self.drawn = state

    def stream(self, queue: Queue) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def current_stream(self, device: Any) -> Queue:
        return self.current


@pytest.fixture
def intel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Intel]:
    made = Intel()
    monkeypatch.setattr(torch, "xpu", made)
    device.has_float64.cache_clear()
    yield made
    device.has_float64.cache_clear()


def seen(monkeypatch: pytest.MonkeyPatch, kind: str | None, count: int) -> list[int]:
    """Has torch see so many of a kind. Returns those that were taken."""
    taken: list[int] = []
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: kind and torch.device(kind))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)
    monkeypatch.setattr(torch.accelerator, "set_device_index", taken.append)
    return taken


@pytest.mark.parametrize("kind", ["cuda", "xpu"])
def test_a_process_takes_the_one_of_its_number(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = seen(monkeypatch, kind, 2)
    assert device.take(kind, 1) == torch.device(kind, 1)
    assert taken == [1]
    with pytest.raises(
        ConfigError, match=rf"={kind}: torch .* sees 2 {kind.upper()} devices .* rank 2 needs one; install .* build of torch"
    ):
        device.take(kind, 2)


def test_another_kind_than_the_plan_has_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build of torch for one kind sees nothing of another: a run planned for that would train elsewhere."""
    taken = seen(monkeypatch, "xpu", 4)
    with pytest.raises(ConfigError, match=r"sees no CUDA device .*; install a CUDA or ROCm build of torch, or type cluster\.device=cpu$"):
        device.take("cuda", 0)
    assert device.take("cpu", 3) == CPU
    assert taken == []


def test_events_let_the_host_sleep_where_the_kind_has_such(intel: Intel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Queue)
    assert device.event(CUDA, timed=True).named == {"enable_timing": True, "blocking": True}
    assert device.event(XPU).named == {"enable_timing": False}, "torch.xpu.Event knows no other word"


def test_kinds_without_queues_are_copied_from_and_to_at_once() -> None:
    assert [device.has_streams(each) for each in (CPU, CUDA, XPU, MPS)] == [False, True, True, False]
    host = torch.ones(2)
    there = SimpleNamespace(is_cpu=False, device=MPS, cpu=lambda: host)
    assert Fetch(cast("torch.Tensor", there)).value() is host
    assert not device.pinned(64, MPS).is_pinned()
    assert isinstance(copier(CPU, True), Here)
    assert isinstance(copier(MPS, True), Blocking)
    moved = Blocking(torch.device("meta")).end((torch.ones(2), "text"))
    assert (moved[0].device.type, moved[1]) == ("meta", "text")


def test_data_go_ahead_by_the_queue_of_the_kind(intel: Intel) -> None:
    ahead = copier(XPU, pin=False)
    assert isinstance(ahead, Copier)
    batch, copied = ahead.begin(["text"])
    assert ahead.end((batch, copied)) == ["text"]
    assert intel.current.given == ("current", copied), "who computes waits for the copy"


def test_data_are_refused_that_do_not_fit_into_any_kinds_memory(intel: Intel) -> None:
    memory.check(10, 100, XPU)
    with pytest.raises(ValueError, match="the GPU has"):
        memory.check(11, 100, XPU)


def test_sums_are_made_where_there_are_numbers_wide_enough(intel: Intel) -> None:
    assert [device.has_float64(each) for each in (CPU, XPU, MPS)] == [True, False, False]
    assert device.place_of_sums(XPU) == device.place_of_sums(CPU) == CPU
    assert (device.widest(XPU), device.widest(CPU)) == (torch.float32, torch.float64)
    assert device.wide(torch.ones(1)).dtype == torch.float64


def test_a_kinds_generator_is_kept_and_put_back(intel: Intel) -> None:
    kept = generators.on_device(XPU)
    assert {*kept} == {"generator|cpu", "generator|xpu"}
    with draws.kept(XPU):
        intel.drawn = torch.zeros(3)
    assert torch.equal(intel.drawn, torch.arange(3))
    intel.drawn = torch.zeros(3)
    generators.restore(generators.on_host(), kept, XPU)
    assert torch.equal(intel.drawn, torch.arange(3))


def test_auto_computes_in_bf16_where_matrix_units_are_named(intel: Intel) -> None:
    assert precision.choose("auto", XPU) == ("bf16", "Intel Arc has matrix units for bf16")
    assert precision.choose("auto", MPS)[0] == "fp32"
    assert precision.choose("fp16", MPS)[0] == "fp16", "typed, it is taken"
    assert peaks.of(XPU, "bf16", False) is None, "no guess"


def test_names_and_uuids_are_as_programs_write_them(intel: Intel, monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(uuid="0a1b2c3d-1111-2222-3333-444444444444")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    assert device.uuid(CUDA) == "GPU-0a1b2c3d-1111-2222-3333-444444444444"
    assert (device.uuid(XPU), device.uuid(CPU), device.uuids_beside(CPU)) == ("", "", [])
    assert (device.name(XPU), bool(device.name(CPU))) == ("Intel Arc", True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 3)
    assert len(device.uuids_beside(CUDA)) == 2

"""What a checkpoint holds: after a restore, everything continues to the last bit."""

from __future__ import annotations

import random
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import claimed
from toyproject.net import Net

from launcher.errors import CheckpointError
from launcher.plan import Mesh
from launcher.train.checkpoint.checkpoint import CheckpointStore, Content
from launcher.train.checkpoint.manifest import Checkpoint
from launcher.train.checkpoint.state import Parts, Snapshot, inexact, restore
from launcher.train.checkpoint.stored import TrainState, as_written, foreign
from launcher.train.ema import Ema, NoEma
from launcher.train.optim import adamw, sgd
from launcher.train.optimizers import Optimizers
from launcher.train.record.meter import Meter, Totals
from launcher.train.tasks.task import Step
from launcher.train.world.ranks import Ranks

CPU = torch.device("cpu")


def parts(optimizer: Any = sgd, *, width: int = 8, average: bool = True, scaler: bool = False, seed: int = 0) -> Parts:
    torch.manual_seed(seed)
    model = Net(width=width).to(memory_format=torch.channels_last)
    ema = Ema(model, 0.9) if average else NoEma()
    scale = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3) if scaler else None
    return Parts(model, Optimizers([optimizer(model)], model), scale, ema, Meter(CPU), CPU)


def take(here: Parts, state: TrainState | None = None) -> dict[str, Content]:
    return Snapshot().take(here, state or TrainState(), 0)


def held(files: dict[str, Content]) -> dict[str, bytes]:
    return {name: b"".join(content) for name, content in files.items()}


def advance(here: Parts, steps: int) -> list[float]:
    """Train on noise drawn from every generator there is."""
    losses = []
    here.model.train()
    for step in range(steps):
        x = torch.randn(6, 3, 8, 8) * (1 + random.random()) + float(np.random.random())
        loss = here.model(x).pow(2).mean()
        (here.scaler.scale(loss) if here.scaler else loss).backward()
        here.optimizers.step(here.scaler)
        here.optimizers.zero_grad()
        here.ema.update(step)
        here.meter.add(Step(6 * loss, 6, (loss.detach(),)))
        here.meter.steps += 1
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("scaler", [False, True])
@pytest.mark.parametrize("optimizer", [sgd, adamw])
def test_a_restored_run_goes_on_to_the_last_bit(tmp_path: Path, optimizer: Any, scaler: bool) -> None:
    store = CheckpointStore(tmp_path / "c", Ranks(0, 1), claimed(tmp_path), 0, 2)
    random.seed(1)
    np.random.seed(1)
    here = parts(optimizer, scaler=scaler)
    advance(here, 5)
    store.save(5, take(here, TrainState(step=5, samples=30, seconds=1.5)))
    expected = advance(here, 7)

    there = parts(optimizer, scaler=scaler, seed=9)
    checkpoint = store.load(print)
    assert checkpoint is not None
    state = restore(there, checkpoint, 0)
    assert state == TrainState(step=5, samples=30, seconds=1.5)
    assert advance(there, 7) == expected
    final = [held(take(each, state)) for each in (here, there)]
    assert final[0] == final[1]


def test_a_checkpoint_of_another_torch_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(tmp_path / "c", Ranks(0, 1), claimed(tmp_path), 0, 2)
    store.save(5, take(parts()))
    checkpoint = store.load(print)
    assert checkpoint is not None
    assert foreign(checkpoint) == ""
    monkeypatch.setattr(torch, "__version__", "3.0.1")
    assert foreign(checkpoint).startswith("step_000000005 was written with torch 2.")
    assert "this is 3.0.1: the last bits may differ from here on" in foreign(checkpoint)


def test_equal_to_the_last_bit_is_promised_on_a_gpu_only_where_it_is_asked_for() -> None:
    assert inexact(CPU, False) == inexact(CPU, True) == inexact(torch.device("cuda"), True) == ""
    assert inexact(torch.device("cuda", 1), False).startswith("train.deterministic=false: ")


def test_saving_copies_so_that_training_on_does_not_change_what_was_saved() -> None:
    here = parts()
    advance(here, 2)
    files = take(here)
    before = held(files)
    advance(here, 1)
    assert held(files) == before
    assert held(take(here)) != before


def test_only_rank_0_writes_what_is_the_same_on_all_ranks() -> None:
    assert sorted(Snapshot().take(parts(), TrainState(), 3)) == ["rank_3.json", "rank_3.safetensors"]


def test_a_mask_of_infinities_is_no_part_of_an_average() -> None:
    model = torch.nn.Linear(2, 2)
    model.register_buffer("mask", torch.full((2, 2), float("-inf")).triu(1))
    ema = Ema(model, 0.9)
    ema.update(0)
    assert ema.names == ["weight", "bias"]
    with ema.applied():
        assert not model.mask.isnan().any()


def test_buffers_that_no_state_dict_has_are_saved(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "c", Ranks(0, 1), claimed(tmp_path), 0, 2)
    here, there = parts(), parts(seed=5)
    advance(here, 3)
    store.save(3, take(here))
    checkpoint = store.load(print)
    assert checkpoint is not None
    restore(there, checkpoint, 0)
    assert there.model.seen.item() == 18


@pytest.mark.parametrize(("other", "words"), [({"width": 16}, "another model"), ({"average": True}, "another model")])
def test_another_model_is_refused_by_name(tmp_path: Path, other: dict[str, Any], words: str) -> None:
    store = CheckpointStore(tmp_path / "c", Ranks(0, 1), claimed(tmp_path), 0, 2)
    store.save(1, take(parts(average=False)))
    checkpoint = store.load(print)
    assert checkpoint is not None
    with pytest.raises(CheckpointError, match=words):
        restore(parts(**other), checkpoint, 0)


def test_another_world_gets_the_mean_of_the_buffers_and_the_sum_of_the_totals(tmp_path: Path) -> None:
    ranks = [parts(), parts()]
    for number, each in enumerate(ranks):
        each.coordinate = Mesh(2).at(number)
        each.model.seen.fill_(10.0 + number)
        each.meter.add(Step(torch.tensor(3.0 + number), 6))
    files = {name: content for number, each in enumerate(ranks) for name, content in Snapshot().take(each, TrainState(), number).items()}
    path = tmp_path / "step_000000001"
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(b"".join(content))
    entries = {each.name: {"bytes": each.stat().st_size, "sha256": sha256(each.read_bytes()).hexdigest()} for each in path.iterdir()}
    checkpoint = Checkpoint(path, 1, entries, world=2)
    for rank, total, samples in ((0, 7.0, 12), (1, 0.0, 0), (2, 0.0, 0)):
        there = parts(seed=5)
        there.coordinate = Mesh(3).at(rank)
        restore(there, checkpoint, rank)
        assert there.model.seen.item() == 10.5
        totals, weight = there.meter.take()
        assert Totals.of(totals.value().tolist()).loss == total
        assert weight == samples


@pytest.mark.parametrize(
    "fault", [torch.OutOfMemoryError("CUDA out of memory"), torch.AcceleratorError("CUDA error: hardware stack error")]
)
def test_a_device_that_fails_as_a_checkpoint_is_read_is_no_fault_of_the_checkpoint(fault: Exception) -> None:
    checkpoint: Any = SimpleNamespace(path="step_000000004")
    with pytest.raises(type(fault)), as_written(checkpoint):
        raise fault
    with pytest.raises(CheckpointError), as_written(checkpoint):
        raise RuntimeError("The size of tensor a (3) must match the size of tensor b (4)")

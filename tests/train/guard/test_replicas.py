"""A bit that flips in the weights of one rank, in its optimizer's state or its averages: the rank is named, and the run goes on from before
it as if it had not happened."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import events, finish, losses, toy_words
from torch import nn

from launcher.train.checkpoint.state import Parts, Snapshot, TrainState, replicated
from launcher.train.ema import Ema
from launcher.train.guard.guard import BadNumbers
from launcher.train.guard.replicas import Replicas, checksum
from launcher.train.optimizers import Optimizers
from launcher.train.record.meter import Meter

SEED = 20261121
EVERY = 10
WORDS = (
    "cluster.processes_per_node=3",
    "train.batch_size=63",
    f"train.save_every={EVERY}",
    "train.on_bad=rollback",
    "train.max_rollbacks=99",
)


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_the_rank_is_named_and_nothing_of_it_stays(tmp_path: Path, many: Callable[[int, int, int], int]) -> None:
    rng = random.Random(SEED)
    print(f"seed {SEED}")
    kinds = ("weights", "optimizer state", "averages")
    flips = [(20 * number + rng.randint(11, 19), rng.randrange(3), kinds[number % 3]) for number in range(many(3, 30, 50))]
    words = (*WORDS, f"train.steps={20 * len(flips) + 20}", f"train.compare_every={EVERY}")
    whole = finish(tmp_path, toy_words(tmp_path / "runs", "id=whole", *words), timeout=300)
    assert whole.returncode == 0, whole.stderr
    done = finish(tmp_path, toy_words(tmp_path / "runs", "id=a", *words), timeout=600, TOY_FLIPS=json.dumps(flips))
    assert done.returncode == 0, done.stderr
    told = events(tmp_path / "runs" / "toy" / "a", "rolled_back")
    assert len(told) == len(flips)
    for (step, rank, _), event in zip(flips, told, strict=True):
        assert event["why"].startswith(f"rank {rank} on ")
        assert step <= event["step"] < step + EVERY
        assert event["to"] < step
    assert losses(tmp_path / "runs" / "toy" / "a") == losses(tmp_path / "runs" / "toy" / "whole")
    print(f"{len(told)} of {len(flips)} flips named within {EVERY} steps")


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.full
def test_without_the_comparison_another_model_is_trained(tmp_path: Path) -> None:
    """The guard taken out."""
    words = (*WORDS, "train.steps=60")
    assert finish(tmp_path, toy_words(tmp_path / "runs", "id=whole", *words)).returncode == 0
    done = finish(tmp_path, toy_words(tmp_path / "runs", "id=a", *words, "train.compare_every=0"), TOY_FLIPS="[[15, 0], [15, 1]]")
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "runs" / "toy" / "a") != losses(tmp_path / "runs" / "toy" / "whole")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_every_flipped_bit_changes_the_sum(dtype: torch.dtype) -> None:
    tensors = [torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last), torch.randn(17, dtype=dtype)]
    words = tensors[1].view({2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize])
    before = checksum(tensors).item()
    for bit in range(8 * dtype.itemsize - 1):
        words[bit % 17] ^= 1 << bit
        assert checksum(tensors).item() != before
        words[bit % 17] ^= 1 << bit
    assert checksum(tensors).item() == before


class Peer:
    """Another rank, which holds what this one held at first."""

    def __init__(self) -> None:
        self.rank, self.size, self.said = 0, 2, None

    def gather(self, value: Any) -> list[Any]:
        self.said = self.said or copy.deepcopy(value)
        return [value, self.said]


@pytest.mark.parametrize("what", ["weights", "optimizer state", "averages"])
@pytest.mark.parametrize("kind", ["adamw", "fused", "sgd"])
def test_a_checkpoint_vouches_for_all_that_it_holds(kind: str, what: str) -> None:
    """The optimizers of torch, after a step; a bit of each tensor in turn."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = {
        "adamw": lambda: torch.optim.AdamW(model.parameters()),
        "fused": lambda: torch.optim.AdamW(model.parameters(), fused=True),
        "sgd": lambda: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
    }[kind]()
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    device = torch.device("cpu")
    parts = Parts(model, Optimizers([optimizer], model), None, Ema(model, 0.9), Meter(device), device)
    replicas = Replicas(lambda: replicated(parts), Peer(), 10)  # pyright: ignore[reportArgumentType]
    replicas.compare(10)
    files = Snapshot().take(parts, TrainState(), 0)
    shared = {name for name in files if name in ("model.safetensors", "optimizer.safetensors", "ema.safetensors")}
    assert len(shared) == len(replicated(parts)) == 3
    assert len(replicated(parts)[what]) >= 4
    for number, tensor in enumerate(replicated(parts)[what]):
        words = tensor.detach().view(torch.int32)
        at = tuple(size - 1 for size in words.shape)
        words[at] ^= 1 << 7
        with pytest.raises(BadNumbers, match=f"no longer hold the same {what}, after step {10 + number} and by step {11 + number}"):
            replicas.compare(11 + number)
        words[at] ^= 1 << 7
        replicas.compare(11 + number)


def test_two_tensors_that_change_places_change_the_sum() -> None:
    one, two = torch.randn(5), torch.randn(5)
    assert checksum([one, two]).item() != checksum([two, one]).item()

"""A model whose rows lie on several ranks: each piece is written once, and any other split reads it."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
import torch
from torch import nn

from launcher.errors import CheckpointError
from launcher.plan import Mesh
from launcher.strategies.protocol import Piece
from launcher.train.checkpoint.manifest import Checkpoint
from launcher.train.checkpoint.state import Parts, Snapshot, restore
from launcher.train.checkpoint.stored import TrainState
from launcher.train.ema import Ema
from launcher.train.optimizers import Optimizers
from launcher.train.record.meter import Meter
from launcher.trust import reading

CPU = torch.device("cpu")
ROWS = 12


def parts(rank: int, shards: int, replicas: int = 1, seed: int = 0) -> Parts:
    """A layer of 12 rows, of which each of `shards` ranks has some, and `replicas` ranks the same; and a bias that all have."""
    torch.manual_seed(seed)
    whole = nn.Linear(3, ROWS)
    rows, first = ROWS // shards, ROWS // shards * (rank % shards)
    model = nn.Module()
    model.weight = nn.Parameter(whole.weight.detach()[first : first + rows].clone())
    model.bias = nn.Parameter(whole.bias.detach().clone())
    world = shards * replicas
    same = tuple(range(rank % shards, world, shards))
    pieces = {"weight": Piece((ROWS, 3), (first, 0), same), "bias": Piece((ROWS,), (0,), tuple(range(world)))}
    optimizers = Optimizers([torch.optim.AdamW(model.parameters(), lr=0.1)], model)
    return Parts(model, optimizers, None, Ema(model, 0.9), Meter(CPU), CPU, pieces=pieces, coordinate=Mesh(replicas, shards).at(rank))


def trained(here: Parts, seed: int = 0) -> Parts:
    """Gradients of the whole, of which each rank takes its rows."""
    torch.manual_seed(seed + 100)
    for step in range(3):
        weight, bias = torch.randn(ROWS, 3), torch.randn(ROWS)
        offset = here.pieces["weight"].offset[0]
        here.model.weight.grad = weight[offset : offset + len(here.model.weight)]
        here.model.bias.grad = bias
        here.optimizers.step()
        here.ema.update(step)
    return here


def saved(path: Path, ranks: list[Parts]) -> Checkpoint:
    path.mkdir()
    for number, each in enumerate(ranks):
        for name, content in Snapshot().take(each, TrainState(step=3), number).items():
            (path / name).write_bytes(b"".join(content))
    entries = {each.name: {"bytes": each.stat().st_size, "sha256": sha256(each.read_bytes()).hexdigest()} for each in path.iterdir()}
    return Checkpoint(path, 3, entries, world=len(ranks))


def state(here: Parts) -> dict[str, torch.Tensor]:
    known = {
        f"{name}|{key}": value
        for name in ("weight", "bias")
        for key, value in here.optimizers.each[0].state[getattr(here.model, name)].items()
    }
    return {
        **dict(here.model.named_parameters()),
        **known,
        **{f"average {name}": value for name, value in zip(here.ema.names, here.ema.shadow, strict=True)},
    }


@pytest.mark.parametrize(("shards", "replicas"), [(1, 1), (1, 2), (2, 1), (3, 2)])
@pytest.mark.parametrize("there", [(1, 1), (2, 1), (4, 1), (3, 2)])
def test_any_split_reads_what_any_other_wrote(tmp_path: Path, shards: int, replicas: int, there: tuple[int, int]) -> None:
    checkpoint = saved(tmp_path / "step_000000003", [trained(parts(rank, shards, replicas)) for rank in range(shards * replicas)])
    for rank in range(there[0] * there[1]):
        wanted, got = state(trained(parts(rank, *there))), parts(rank, *there, seed=7)
        restore(got, checkpoint, rank)
        assert state(got).keys() == wanted.keys()
        for name, tensor in state(got).items():
            assert torch.equal(tensor, wanted[name]), name


def test_each_piece_is_written_once(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "step_000000003", [parts(rank, 2, 2) for rank in range(4)])
    kinds = sorted(name for name in checkpoint.files if not name.startswith(("rank_", "state")))
    assert kinds == ["ema.1.safetensors", "ema.safetensors", "model.1.safetensors", "model.safetensors", "optimizer.safetensors"]


def test_a_rank_opens_what_it_needs_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own, and what the first of its replicas has written: rank 4 of 3 x 2 holds the rows of rank 1, and the bias of all."""
    checkpoint = saved(tmp_path / "step_000000003", [trained(parts(rank, 3, 2)) for rank in range(6)])
    opened: set[str] = set()
    whole = reading.opened
    monkeypatch.setattr(reading, "opened", lambda path: (opened.add(path.name), whole(path))[1])
    restore(parts(4, 3, 2, seed=7), checkpoint, 4)
    owners = {f"{kind}{number}.safetensors" for kind in ("model", "optimizer", "ema") for number in ("", ".1")}
    assert opened == {"state.json", "rank_4.json", "rank_4.safetensors", "rank_0.json", "rank_1.json", *owners}


def alone(here: Parts) -> Parts:
    """Without the bias: no rank holds anything that rank 0 writes."""
    del here.model.bias
    here.optimizers = Optimizers([torch.optim.AdamW(here.model.parameters(), lr=0.1)], here.model)
    here.ema = Ema(here.model, 0.9)
    here.pieces = {"weight": here.pieces["weight"]}
    return here


def test_a_rank_that_there_was_none_of_finds_what_optimizers_remember(tmp_path: Path) -> None:
    ranks = [alone(parts(rank, 2)) for rank in range(2)]
    for rank, each in enumerate(ranks):
        each.model.weight.grad = torch.full((6, 3), 1.0 + rank)
        each.optimizers.step()
    checkpoint = saved(tmp_path / "step_000000003", ranks)
    for rank in range(4):
        got = alone(parts(rank, 4, seed=7))
        restore(got, checkpoint, rank)
        state = got.optimizers.each[0].state[got.model.weight]
        assert torch.equal(state["exp_avg"], torch.full((3, 3), 0.1 * (1 + rank // 2)))
        assert state["step"] == 1


@pytest.mark.parametrize("shards", [1, 2, 4])
@pytest.mark.parametrize("there", [1, 2])
def test_a_part_of_a_larger_model_is_no_model(tmp_path: Path, shards: int, there: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of twice as many rows the first ones are all there."""
    monkeypatch.setitem(globals(), "ROWS", 2 * ROWS)
    checkpoint = saved(tmp_path / "step_000000003", [trained(parts(rank, shards)) for rank in range(shards)])
    monkeypatch.undo()
    for rank in range(there):
        with pytest.raises(CheckpointError, match=r"weight needs shape \(12, 3\) and it has shape \(24, 3\)"):
            restore(parts(rank, there, seed=7), checkpoint, rank)


def test_a_piece_that_is_missing_is_refused_by_name(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "step_000000003", [trained(parts(rank, 2)) for rank in range(2)])
    del checkpoint.files["model.1.safetensors"]
    with pytest.raises(CheckpointError, match=r"weight needs shape \(12, 3\) and it has shape \(6, 3\)"):
        restore(parts(0, 1, seed=7), checkpoint, 0)

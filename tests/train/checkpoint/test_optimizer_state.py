"""Whatever an optimizer keeps comes back to the last bit, through files, without a pickle."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from launcher.errors import CheckpointError
from launcher.train.checkpoint import nested, optimizer_state
from launcher.train.optim import adafactor, adam, adamw, lamb, lars, lbfgs, lion, muon
from launcher.train.optimizers import Optimizers

VALUES = [
    None, True, 3, -0.0, 0.1 + 0.2, "a text", [], (), {}, [1, (2.5, [None, "x"])], {"a": {"b": (1,)}, 3: "number", None: 1},
    {"tensor": "a name"}, {"tuple": [1], "mapping": 2},
]  # fmt: skip


class Odd(torch.optim.Optimizer):
    """Keeps all sorts of things."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1, "betas": (0.9, 0.99), "sizes": [1, 2], "scale": torch.tensor(1.5)})

    def step(self, closure: Any = None) -> None:
        for number, parameter in enumerate(self.param_groups[0]["params"]):
            wide = torch.full_like(parameter, 1 / 3, dtype=torch.float64, memory_format=torch.preserve_format)
            self.state[parameter] = {"wide": wide, "deep": [{"x": (torch.tensor(number), None)}], "name": "abc", "step": torch.tensor(2.0)}
        self.state["shared|by all"] = {"count": 3, "mean": torch.ones(2)}  # pyright: ignore[reportArgumentType]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 8), nn.Linear(8, 2)).to(memory_format=torch.channels_last)


def trained(made: Any, steps: int = 3) -> Optimizers:
    model = network()
    each = made(model)
    optimizers = Optimizers(each if isinstance(each, list) else [each], model)
    for _ in range(steps):
        advance(optimizers, model)
    optimizers.model = model  # pyright: ignore[reportAttributeAccessIssue]
    return optimizers


def advance(optimizers: Optimizers, model: nn.Module) -> None:
    x = torch.linspace(-1, 1, 5 * 48).reshape(5, 3, 4, 4)

    def closure() -> torch.Tensor:
        optimizers.zero_grad()
        with torch.enable_grad():
            loss = model(x).square().mean()
            loss.backward()
        return loss.detach()

    if optimizers.needs_closure:
        optimizers.step_by(closure)
    else:
        closure()
        optimizers.step()


def written(optimizers: Optimizers) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What files hold of it, read again."""
    tensors, rest = optimizer_state.unfold(optimizers)
    return load(save({name: tensor.contiguous() for name, tensor in tensors.items()})), json.loads(json.dumps(rest))


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return type(one) is type(other) and one.dtype == other.dtype and one.stride() == other.stride() and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(equal, one, other))
    return type(one) is type(other) and repr(one) == repr(other)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_what_is_nested_comes_back_as_it_was(value: Any) -> None:
    tensors: dict[str, torch.Tensor] = {}
    whole = [value, torch.arange(3), (torch.ones(()), {"k": value})]
    text = json.dumps(nested.unfold("top", whole, tensors))
    assert len(tensors) == 2
    assert equal(nested.fold(json.loads(text), tensors.pop), whole)


def test_what_no_file_can_hold_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"the state w\|a/1 is a set, which a checkpoint cannot hold"):
        nested.unfold("w|a", [1, {2}], {})
    with pytest.raises(ValueError, match="pickle is no kind of state"):
        nested.fold({"pickle": "x"}, {}.pop)


def straight_lbfgs(model: nn.Module) -> torch.optim.Optimizer:
    return lbfgs(model.to(memory_format=torch.contiguous_format), max_iter=4, history_size=3)


def lion_by_name(model: nn.Module) -> torch.optim.Optimizer:
    return lion(model, groups={"*.bias": {"betas": [0.5, 0.75]}, "2.*": {"weight_decay": 0.25}})


@pytest.mark.parametrize(
    "made", [adamw, adam, adafactor, lion, lion_by_name, lars, lamb, muon, straight_lbfgs, lambda model: Odd(model.parameters())]
)
def test_state_of_any_nesting_comes_back_and_goes_on_to_the_last_bit(made: Any) -> None:
    here, there = trained(made), trained(made, steps=0)
    tensors, rest = written(here)
    optimizer_state.fold(there, tensors, rest)
    there.model.load_state_dict(here.model.state_dict())  # pyright: ignore[reportAttributeAccessIssue]
    for one, other in zip(here.each, there.each, strict=True):
        states = [
            {each.names.get(id(key), key): state for key, state in one_of.state.items()} for each, one_of in ((here, one), (there, other))
        ]
        assert equal(*states)
        ours, theirs = ([{key: group[key] for key in group if key != "params"} for group in each.param_groups] for each in (one, other))
        assert equal(ours, theirs)
    for each in (here, there):
        advance(each, each.model)  # pyright: ignore[reportAttributeAccessIssue]
    assert all(map(torch.equal, here.parameters, there.parameters))
    assert all(map(torch.equal, optimizer_state.tensors_of(here), optimizer_state.tensors_of(there)))


def test_all_that_is_kept_is_compared() -> None:
    lbfgs_state = trained(straight_lbfgs)
    tensors, _ = optimizer_state.unfold(lbfgs_state)
    assert len(optimizer_state.tensors_of(lbfgs_state)) == len(tensors) > 10
    odd = trained(lambda model: Odd(model.parameters()))
    assert len(optimizer_state.tensors_of(odd)) == 3 * 6 + 1


def test_no_rate_is_written() -> None:
    _, rest = optimizer_state.unfold(trained(muon))
    assert rest["kinds"] == ["Muon", "AdamW"]
    assert all("lr" not in group for group in rest["groups"])


def test_a_checkpoint_of_an_older_launcher_is_loaded() -> None:
    """Flat: tensors, plain values, groups with their rate, and tuples as lists."""
    here, there = trained(adamw), trained(adamw, steps=0)
    tensors, _ = written(here)
    groups = [{key: value for key, value in group.items() if key != "params"} for group in here.param_groups]
    optimizer_state.fold(there, tensors, json.loads(json.dumps({"values": {"0.weight|note": None}, "groups": groups})))
    assert all(map(torch.equal, optimizer_state.tensors_of(here), optimizer_state.tensors_of(there)))
    assert there.param_groups[0]["betas"] == (0.9, 0.999)
    assert there.lr == 1e-3


@pytest.mark.parametrize(
    ("made", "change", "said"),
    [
        (muon, {}, "it has Muon and AdamW, and this run AdamW"),
        (adamw, {"groups": []}, "it has other parameter groups"),
        (adamw, {"values": {"9.weight|step": 1}}, "its optimizer has 9.weight"),
    ],
)
def test_a_checkpoint_of_others_is_refused_in_one_line(made: Any, change: dict[str, Any], said: str) -> None:
    tensors, rest = written(trained(made))
    with pytest.raises(CheckpointError, match=said):
        optimizer_state.fold(trained(adamw, steps=0), tensors, {**rest, **change})


def test_state_under_a_key_without_a_name_is_refused() -> None:
    optimizers = trained(adamw)
    optimizers.each[0].state[network()] = {}  # pyright: ignore[reportArgumentType]
    with pytest.raises(CheckpointError, match="AdamW keeps state under a Sequential"):
        optimizer_state.unfold(optimizers)


def test_the_kernels_are_those_of_where_it_is_loaded() -> None:
    """What a fused SGD has saved goes on in pieces, for which there is no such kernel; and back."""

    def made(fused: bool) -> Any:
        return lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=fused)

    for there, here in ((True, False), (False, True)):
        tensors, rest = optimizer_state.unfold(trained(made(there)))
        optimizers = trained(made(here))
        optimizer_state.fold(optimizers, tensors, rest)
        assert [group["fused"] for group in optimizers.param_groups] == [here]

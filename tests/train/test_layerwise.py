"""LARS and LAMB: what their papers say, number by number; and the same where parameters lie in pieces."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import REPO
from torch import nn

from launcher.train.layerwise import LAMB, LARS
from launcher.train.optim import lamb, lars
from launcher.train.optimizers import Optimizers

SHAPES = ((3, 2), (4,), (2, 3))


def norm(values: list[float]) -> float:
    return math.sqrt(sum(each * each for each in values))


def follows(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], paper: Callable[..., list[float]]) -> None:
    """`paper` makes one update of a matrix or a vector, of its numbers, its gradient's and what it keeps."""
    values = [each.flatten().tolist() for each in parameters]
    kept: list[dict[str, Any]] = [{} for _ in parameters]
    for _ in range(4):
        for number, parameter in enumerate(parameters):
            parameter.grad = torch.randn_like(parameter)
            values[number] = paper(values[number], parameter.grad.flatten().tolist(), kept[number], parameter.ndim > 1)
        optimizer.step()
        for parameter, value in zip(parameters, values, strict=True):
            assert parameter.flatten().tolist() == pytest.approx(value, rel=1e-12)


def made() -> list[nn.Parameter]:
    torch.manual_seed(1)
    return [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in SHAPES]


def groups(parameters: list[nn.Parameter], decay: float) -> list[dict[str, Any]]:
    return [
        {"params": [each for each in parameters if each.ndim > 1], "weight_decay": decay},
        {"params": [each for each in parameters if each.ndim == 1], "weight_decay": 0.0},
    ]


def test_lars_is_algorithm_1_of_its_paper() -> None:
    lr, momentum, beta, eta = 0.5, 0.9, 0.01, 0.02

    def paper(w: list[float], g: list[float], kept: dict[str, Any], is_matrix: bool) -> list[float]:
        decay = beta if is_matrix else 0.0
        rate = eta * norm(w) / (norm(g) + decay * norm(w)) if is_matrix else 1.0
        v = [momentum * old + lr * rate * (dg + decay * dw) for old, dg, dw in zip(kept.get("v", [0.0] * len(w)), g, w, strict=True)]
        kept["v"] = v
        return [one - move for one, move in zip(w, v, strict=True)]

    parameters = made()
    follows(LARS(groups(parameters, beta), lr=lr, momentum=momentum, eta=eta), parameters, paper)


def test_lamb_is_algorithm_2_of_its_paper() -> None:
    lr, (beta1, beta2), eps, decay = 0.1, (0.8, 0.95), 1e-6, 0.3

    def paper(w: list[float], g: list[float], kept: dict[str, Any], is_matrix: bool) -> list[float]:
        kept["t"] = t = kept.get("t", 0) + 1
        kept["m"] = [beta1 * m + (1 - beta1) * x for m, x in zip(kept.get("m", [0.0] * len(w)), g, strict=True)]
        kept["v"] = [beta2 * v + (1 - beta2) * x * x for v, x in zip(kept.get("v", [0.0] * len(w)), g, strict=True)]
        pairs = zip(kept["m"], kept["v"], w, strict=True)
        r = [m / (1 - beta1**t) / (math.sqrt(v / (1 - beta2**t)) + eps) + (decay * x if is_matrix else 0.0) for m, v, x in pairs]
        share = norm(w) / norm(r) if is_matrix else 1.0
        return [one - lr * share * move for one, move in zip(w, r, strict=True)]

    parameters = made()
    follows(LAMB(groups(parameters, decay), lr=lr, betas=(beta1, beta2), eps=eps), parameters, paper)


@pytest.mark.parametrize("kind", [LARS, LAMB])
def test_a_layer_without_norm_moves_as_without_a_share(kind: Any) -> None:
    """A head that begins with zeros would stay there for ever; a gradient of zeros gives no NaN."""
    zeros, still = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = kind([zeros, still], lr=0.1, weight_decay=0.0)
    zeros.grad, still.grad = torch.ones(2, 2), torch.zeros(2, 2)
    optimizer.step()
    torch.testing.assert_close(zeros.detach(), torch.full((2, 2), -0.1))
    assert torch.equal(still.detach(), torch.ones(2, 2))


@pytest.mark.parametrize(("make", "lr"), [(lars, 5.0), (lamb, 0.05)])
def test_it_trains_and_leaves_what_has_no_gradient(make: Any, lr: float) -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    unused = model.add_module("unused", nn.Linear(3, 3)) or model[3].weight.detach().clone()
    optimizers = Optimizers([make(model, lr=lr, groups={"*.bias": {"lr": 0.02}})], model)
    losses: list[float] = []
    for _ in range(60):
        loss = (model[:3](x) - x[:, :1] * x[:, 1:2]).square().mean()
        losses.append(loss.item())
        optimizers.zero_grad()
        loss.backward()
        optimizers.step()
    assert losses[-1] < 0.5 * losses[0]
    assert torch.equal(model[3].weight, unused)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_of_pieces_the_norm_is_that_of_the_whole(tmp_path: Path) -> None:
    words = [sys.executable, str(Path(__file__).with_name("cut_norms.py")), str(tmp_path / "meet")]
    done = subprocess.run(words, cwd=REPO, env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(each["kind"] for each in found) == ["LAMB", "LAMB", "LARS", "LARS"]
    assert max(each[name] for each in found for name in ("off", "norm_off")) < 1e-12

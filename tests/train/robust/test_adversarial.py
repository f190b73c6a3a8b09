"""`train.adversarial`: who is refused, and runs that train on attacked samples are exact as all are."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from helpers import Command, refused
from processes import finish, kill_tree, lines, losses, start, wait_for
from safetensors.torch import load_file
from torch import nn

from launcher.compose.adversarial import is_adversarial
from launcher.train.loss import Shares
from launcher.train.robust.adversary import Adversary, Asked, Pixels, Placed
from launcher.train.tasks.classification import Classification


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["train.adversarial=fgms"], ["train.adversarial=fgms cannot be; type null, fgsm, pgd, or {kind: pgd"]),
        (["train.adversarial={kind:fgsm,steps:3}"], ["train.adversarial={", "steps for pgd alone"]),
        (["train.adversarial={kind:pgd,epsilon:2}"], ["train.adversarial={", "epsilon above 0 to 1"]),
        (["train.adversarial=fgsm", "strategy=fsdp", "cluster.processes_per_node=2"], ["whole model in each process", "type strategy=ddp"]),
        (["train.adversarial=fgsm", "optim=lbfgs", "train.clip_norm=0"], ["LBFGS searches along one loss", "optim=sgd"]),
        (["+exp=regression", "train.adversarial=pgd"], ["images that have a class", "type train.adversarial=null"]),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(words: list[str], parts: list[str], command: Command) -> None:
    refused(command("plan", *words), 2, *parts)


def test_what_may_be_asked_for() -> None:
    assert all(map(is_adversarial, (None, "fgsm", "pgd", {"kind": "pgd", "steps": 1}, {"kind": "fgsm", "epsilon": 0.01})))
    assert not any(
        map(is_adversarial, ("", "off", True, 1, [], {}, {"epsilon": 0.1}, {"kind": "pgd", "steps": 0}, {"kind": "fgsm", "step": 1}))
    )
    assert Asked.of({"kind": "pgd", "epsilon": 0.04}) == (0.04, 0.01, 7)


class _Seen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(48), nn.Dropout(0.5), nn.Linear(48, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.given = images.detach()
        return self.layers(images)


@pytest.mark.parametrize("kind", ["fgsm", "pgd"])
def test_a_task_is_given_what_is_worse_and_else_nothing_is_touched(kind: str) -> None:
    torch.manual_seed(0)
    model, pixels = _Seen(), Pixels((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    images, labels, asked = torch.rand(12, 3, 4, 4) * 2 - 1, torch.arange(12) % 3, Asked.of({"kind": kind, "epsilon": 0.1})
    twin, task, drawn = copy.deepcopy(model), Classification(), torch.get_rng_state()
    adversary = Adversary(task, model, model, pixels, asked, Placed(0, Shares(48, 2, 2), 1, lambda: 1))
    step = adversary.step(model, (images, labels))
    after = torch.get_rng_state()
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert (model.given - images).abs().max() <= 0.1 / 0.25 + 1e-5
    torch.set_rng_state(drawn)
    alone = task.step(twin, (model.given, labels))
    assert torch.equal(torch.get_rng_state(), after)
    assert torch.equal(alone.loss, step.loss)
    assert alone.weight == step.weight == 12
    assert all(torch.equal(one, other) for one, other in zip(model.buffers(), twin.buffers(), strict=True))
    model.eval()
    clean, attacked = (task.step(model, (each, labels)).loss.item() for each in (images, twin.given))
    assert attacked > clean


def test_samples_have_the_numbers_that_a_loader_gives_them() -> None:
    """Two updates of 24 over two ranks in two micro-batches: each number once, whoever has it."""
    update = [0]
    ranks = [
        Adversary(
            Classification(),
            nn.Identity(),
            nn.Identity(),
            Pixels([0], [1]),
            Asked.of("pgd"),
            Placed(0, Shares(24, 2, 2), rank, lambda: update[0]),
        )
        for rank in range(2)
    ]
    seen = []
    for update[0] in range(2):
        seen += [number for _ in range(2) for rank in ranks for number in rank._numbers(6)]
    assert seen == list(range(48))


def _words(folder: Path, *words: str) -> list[str]:
    common = (
        "train.adversarial=pgd",
        "model.width=16",
        "train.epochs=1",
        "train.batch_size=64",
        "train.precision=fp32",
        "train.log_every=1",
    )
    return ["+exp=digits", f"runs_dir={folder}", *common, *words]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_killed_run_and_one_of_two_processes_train_on_the_same_attacked_samples(tmp_path: Path) -> None:
    """To the bit where it was killed; two processes up to the rounding of a sum, which an attack's signs may make more of."""
    runs = tmp_path / "runs" / "digits"
    assert finish(tmp_path, _words(tmp_path / "runs", "id=whole", "train.save_every=5")).returncode == 0
    process = start(tmp_path, _words(tmp_path / "runs", "id=killed", "train.save_every=5", "train.epochs=1"))
    try:
        wait_for(lambda: max(losses(runs / "killed"), default=0) >= 8, what="step 8")
    finally:
        kill_tree(process)
    assert finish(tmp_path, ["resume", str(runs / "killed")]).returncode == 0
    for name in ("model", "ema", "optimizer"):
        one, other = (load_file(max((runs / run / "checkpoints").glob("step_*")) / f"{name}.safetensors") for run in ("whole", "killed"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert losses(runs / "killed") == losses(runs / "whole")
    assert finish(tmp_path, _words(tmp_path / "runs", "id=two", "cluster.processes_per_node=2", "train.accumulate=2")).returncode == 0
    one, two = (losses(runs / name) for name in ("whole", "two"))
    assert one.keys() == two.keys()
    assert all(abs(one[step] - two[step]) < 1e-3 * one[step] for step in one)
    assert lines(runs / "whole" / "metrics.jsonl")

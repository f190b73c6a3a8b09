"""FGSM and PGD: what they do to a linear model is known, and of no sample is PGD the milder one."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from launcher.train.robust.attacks import Pixels, fgsm, pgd
from launcher.train.robust.chance import Chance

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
ROUNDING = 1e-6
"""Of a pixel that is standardised and brought back."""


def _net(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(6 * 36, 4)
    return nn.Sequential(*layers).eval()


def _samples(count: int, pixels: Pixels) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return pixels.standardised(torch.rand(count, 3, 8, 8, generator=generator)), torch.randint(4, (count,), generator=generator)


def test_of_a_linear_model_fgsm_and_pgd_find_what_the_formula_says() -> None:
    """Of two classes the loss grows by w1 - w0 or against it: each pixel goes epsilon by its sign, and nothing is worse than that."""
    pixels, epsilon = Pixels(MEAN, STD), 4 / 255
    images = pixels.standardised(0.1 + 0.8 * torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    labels = torch.arange(16) % 2
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2))
    weights = model[1].weight.detach()
    towards = torch.where(labels[:, None] == 0, weights[1] - weights[0], weights[0] - weights[1]).sign().view(images.shape)
    wanted = pixels.shown(images) + epsilon * towards
    loss = functional.cross_entropy(model(pixels.standardised(wanted)), labels, reduction="none")
    for found in (fgsm(model, images, labels, epsilon, pixels), pgd(model, images, labels, epsilon, pixels, Chance(range(16), 0))):
        assert (pixels.shown(found.images) - wanted).abs().max() < ROUNDING
        assert torch.allclose(found.loss, loss, atol=1e-5)


@pytest.mark.parametrize("epsilon", [0.5 / 255, 2 / 255, 8 / 255, 32 / 255])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pgd_is_never_milder_than_fgsm_of_any_sample(epsilon: float, seed: int) -> None:
    pixels, model = Pixels(MEAN, STD), _net(seed)
    images, labels = _samples(64, pixels)
    one, many = fgsm(model, images, labels, epsilon, pixels), pgd(model, images, labels, epsilon, pixels, Chance(range(64), seed))
    assert not (one.is_wrong & ~many.is_wrong).any()
    alike = one.is_wrong == many.is_wrong
    assert (many.loss >= one.loss)[alike].all()
    assert many.loss.mean() > one.loss.mean()
    assert torch.equal(model(many.images).argmax(1) != labels, many.is_wrong)
    for found in (one, many):
        shown = found.images * pixels.std + pixels.mean
        assert (shown - pixels.shown(images)).abs().max() < epsilon + ROUNDING
        assert shown.min() > -ROUNDING
        assert shown.max() < 1 + ROUNDING


def test_an_attack_leaves_no_gradient_no_statistic_and_no_generator_changed() -> None:
    pixels, model = Pixels(MEAN, STD), _net(0)
    images, labels = _samples(8, pixels)
    given, before, drawn = images.clone(), {name: each.clone() for name, each in model.state_dict().items()}, torch.get_rng_state()
    pgd(model, images, labels, 8 / 255, pixels, Chance(range(8), 0))
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert torch.equal(images, given)
    assert not images.requires_grad


def test_where_a_sample_lies_in_which_batch_changes_nothing() -> None:
    pixels, model = Pixels(MEAN, STD), _net(0)
    images, labels = _samples(8, pixels)
    drawn = Chance(range(8), 3).uniform(images)
    assert torch.equal(Chance(range(5, 8), 3).uniform(images[5:]), drawn[5:])
    assert not torch.equal(Chance(range(8), 4).uniform(images), drawn)
    whole = pgd(model, images, labels, 8 / 255, pixels, Chance(range(8), 3))
    part = pgd(model, images[5:], labels[5:], 8 / 255, pixels, Chance(range(5, 8), 3))
    assert torch.allclose(whole.images[5:], part.images, atol=ROUNDING)

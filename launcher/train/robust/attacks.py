"""Changes of at most epsilon of each pixel that a model errs on: FGSM (Goodfellow et al., 2015, https://arxiv.org/abs/1412.6572, section 4)
and PGD (Madry et al., 2018, https://arxiv.org/abs/1706.06083, section 2.1), of the largest pixel (L-infinity).

Epsilon is in units of a pixel, 0..1, and pixels stay in 0..1; what the model is given is standardised, so mean and std have to be known.
The model has to evaluate (launcher/train/evaluate.py). Gradients are of the images alone: none is left on a parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch.nn import functional

from launcher.train.robust.chance import Chance
from launcher.train.tasks.task import Model

STEPS = 10
"""Of PGD where a model is judged."""
STEP = 0.25
"""Of PGD, as a share of epsilon: 2 of 8 levels in the paper's CIFAR-10 (section 5)."""


class Pixels:
    """What was done to pixels in 0..1 to standardise them, on the device of the images."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device | str = "cpu") -> None:
        """Of each channel."""
        self.mean, self.std = (torch.tensor(list(each), dtype=torch.float32, device=device).view(-1, 1, 1) for each in (mean, std))
        self._low, self._high = (0 - self.mean) / self.std, (1 - self.mean) / self.std

    def shown(self, images: torch.Tensor) -> torch.Tensor:
        """Standardised images as pixels in 0..1."""
        return (images * self.std + self.mean).clamp(0, 1)

    def standardised(self, pixels: torch.Tensor) -> torch.Tensor:
        return (pixels - self.mean) / self.std

    def moved(self, images: torch.Tensor, at: torch.Tensor, by: torch.Tensor, epsilon: float) -> torch.Tensor:
        """`at` moved by `by`, in pixels, and from there to the nearest that is within epsilon of `images` and in 0..1. A pixel that was
        beyond that already, by an augmentation, may stay."""
        most = epsilon / self.std
        low = torch.maximum(images - most, torch.minimum(self._low, images))
        high = torch.minimum(images + most, torch.maximum(self._high, images))
        return (at + by / self.std).clamp(low, high)


class Found(NamedTuple):
    """What an attack came to, of each sample."""

    images: torch.Tensor
    is_wrong: torch.Tensor
    """(N,) bool."""
    loss: torch.Tensor
    """(N,), the cross-entropy."""


def fgsm(model: Model, images: torch.Tensor, labels: torch.Tensor, epsilon: float, pixels: Pixels) -> Found:
    """One step of epsilon along the sign of the gradient."""
    _, uphill = _seen(model, images, labels)
    return _judged(model, pixels.moved(images, images, epsilon * uphill, epsilon), labels)


def pgd(
    model: Model,
    images: torch.Tensor,
    labels: torch.Tensor,
    epsilon: float,
    pixels: Pixels,
    chance: Chance,
    steps: int = STEPS,
    first: Found | None = None,
) -> Found:
    """From a random point, `steps` steps of STEP x epsilon; of each sample the worst point that was met. The sample itself and what FGSM
    found are among them (`first`: it has been made already), so that no sample is better off than under FGSM."""
    clean, _ = _seen(model, images, labels)
    worst = _worse(clean, fgsm(model, images, labels, epsilon, pixels) if first is None else first)

    def uphill(at: torch.Tensor) -> torch.Tensor:
        nonlocal worst
        here, way = _seen(model, at, labels)
        worst = _worse(worst, here)
        return way

    last = climbed(images, started(images, epsilon, pixels, chance), uphill, epsilon, STEP * epsilon, steps, pixels)
    return _worse(worst, _judged(model, last, labels))


def started(images: torch.Tensor, epsilon: float, pixels: Pixels, chance: Chance) -> torch.Tensor:
    """A point of the box around each image, drawn evenly, as far as its pixels are in 0..1."""
    return pixels.moved(images, images, epsilon * (2 * chance.uniform(images) - 1), epsilon)


def climbed(
    images: torch.Tensor,
    at: torch.Tensor,
    uphill: Callable[[torch.Tensor], torch.Tensor],
    epsilon: float,
    step: float,
    steps: int,
    pixels: Pixels,
) -> torch.Tensor:
    """From `at`, by `uphill`, which gives the signs of the gradient at a point."""
    for _ in range(steps):
        at = pixels.moved(images, at, step * uphill(at), epsilon)
    return at


def signs(loss: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor) -> torch.Tensor:
    """Of the gradient of a loss, 0-d, by `at`. 0 where it is no number."""
    with torch.enable_grad():
        here = at.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(here), here)
    return gradient.sign()


def _seen(model: Model, at: torch.Tensor, labels: torch.Tensor) -> tuple[Found, torch.Tensor]:
    """How the model fares there, and which way is uphill, from one forward pass."""
    found: list[Found] = []

    def loss(here: torch.Tensor) -> torch.Tensor:
        found.append(_scored(at, model(here), labels))
        return found[-1].loss.sum()  # a sample's gradient is its own, whoever else is in the batch

    way = signs(loss, at)
    return found[0]._replace(loss=found[0].loss.detach()), way


@torch.no_grad()
def _judged(model: Model, images: torch.Tensor, labels: torch.Tensor) -> Found:
    return _scored(images, model(images), labels)


def _scored(images: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor) -> Found:
    return Found(images, scores.argmax(1) != labels, functional.cross_entropy(scores, labels, reduction="none"))


def _worse(one: Found, other: Found) -> Found:
    """Of each sample: wrong is worse than right, whatever the loss, and then the greater loss is."""
    is_other = torch.where(one.is_wrong == other.is_wrong, other.loss > one.loss, other.is_wrong)
    images = torch.where(is_other.view(-1, *[1] * (one.images.ndim - 1)), other.images, one.images)
    return Found(images, torch.where(is_other, other.is_wrong, one.is_wrong), torch.where(is_other, other.loss, one.loss))

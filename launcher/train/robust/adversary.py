"""`train.adversarial`: a run trains on samples that an attack on its own model has made worse.

fgsm: one step of 1.25 epsilon from a random start (Wong et al., 2020, https://arxiv.org/abs/2001.03994, section 4), for without the start
training on FGSM comes to models that know nothing but FGSM. pgd: 7 steps of epsilon / 4 from one, of which the last point is taken (Madry
et al., 2018, https://arxiv.org/abs/1706.06083, section 5). The model evaluates while it is attacked, as in TRADES (Zhang et al., 2019,
https://arxiv.org/abs/1901.08573, its authors' code), so that neither statistics of norms nor masks of dropout have seen the attack.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from launcher.errors import ConfigError
from launcher.strategies import draws
from launcher.train.evaluate import evaluating
from launcher.train.loss import Shares
from launcher.train.robust.attacks import STEP, Pixels, climbed, signs, started
from launcher.train.robust.chance import Chance
from launcher.train.tasks.task import Model, Step, Task

EPSILON = 2 / 255
FGSM_STEP = 1.25
"""As a share of epsilon (Wong et al., section 4.1)."""
PGD_STEPS = 7
NEAR = 0.02
"""By which a pixel may lie beyond 0..1: rounding."""


class Asked(NamedTuple):
    """`train.adversarial` as it has been checked (launcher/compose/adversarial.py)."""

    epsilon: float
    step: float
    """Of one, in units of a pixel."""
    steps: int

    @classmethod
    def of(cls, written: str | Mapping[str, Any]) -> Asked:
        said: Mapping[str, Any] = {"kind": written} if isinstance(written, str) else written
        epsilon = said.get("epsilon") or EPSILON
        if said["kind"] == "fgsm":
            return cls(epsilon, FGSM_STEP * epsilon, 1)
        return cls(epsilon, STEP * epsilon, said.get("steps") or PGD_STEPS)


class Placed(NamedTuple):
    """Whose samples these are: what is drawn for one is a function of the seed and of its number in the run."""

    seed: int
    shares: Shares
    dp_rank: int
    update: Callable[[], int]
    """Which update's batch is at work."""


class Adversary:
    """Stands in a task's place where the loss of a micro-batch is made (launcher/train/loss.py); evaluations have the task itself."""

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        computing: Model,
        pixels: Pixels,
        asked: Asked,
        place: Placed,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        """`model`: inside what a strategy has made of it, so that no gradient of an attack crosses to other ranks; `computing` calls it in
        the run's precision. `scaler`: of fp16, in which a small gradient would be zero."""
        self._task, self._model, self._computing, self._pixels = task, model, computing, pixels
        self._asked, self._place, self._scaler = asked, place, scaler
        self._micro = 0
        """Which micro-batch of its update is next."""

    def step(self, model: Model, batch: Any) -> Step:
        """The task's, of attacked samples."""
        images, labels = batch
        with draws.kept(images.device), evaluating(self._model):
            worst = self._attacked(images, labels)
        return self._task.step(model, (worst, labels))

    def _attacked(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        def loss(at: torch.Tensor) -> torch.Tensor:
            found = self._task.step(self._computing, (at, labels)).loss
            return found if self._scaler is None else self._scaler.scale(found)

        asked, pixels = self._asked, self._pixels
        at = started(images, asked.epsilon, pixels, Chance(self._numbers(len(images)), self._place.seed))
        return climbed(images, at, lambda here: signs(loss, here), asked.epsilon, asked.step, asked.steps, pixels)

    def _numbers(self, samples: int) -> range:
        """Of this micro-batch's samples in the run, as a loader shares an update out (data/sampling/updates.py)."""
        _, shares, dp_rank, update = self._place
        chunk = self._micro * shares.dp_size + dp_rank
        self._micro = (self._micro + 1) % shares.accumulate
        begin = update() * shares.batch_size + chunk * shares.micro_batch
        return range(begin, begin + samples)


def pixels_of(data: Any, loader: Any, task: Any, device: torch.device) -> Pixels:
    """What the data say of how their images were standardised, seen to be so of a sample. Raises ConfigError where they do not, or where
    there are no images with classes."""
    off = "or train.adversarial=null"
    if getattr(task, "predicts", "classes") != "classes":
        raise ConfigError(f"train.adversarial: {type(task).__name__} finds no classes; type task=classification, {off}")
    name, said = type(data).__name__, getattr(data, "preprocessing", None) or {}
    if said.get("kind") != "image":
        raise ConfigError(
            f"train.adversarial: {name} does not say how its images are standardised; give it a property preprocessing, as data/loader.py "
            f"has it, {off}"
        )
    pixels, batch = Pixels(said["mean"], said["std"], device), loader.evaluation("train").spare()
    is_pair = isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[0], torch.Tensor) and batch[0].ndim == 4
    if not is_pair or len(said["mean"]) != batch[0].shape[1]:
        raise ConfigError(f"train.adversarial: a sample of {name} is no image of {len(said['mean'])} channels and a class; type {off[3:]}")
    shown = batch[0].to(device) * pixels.std + pixels.mean
    low, high = float(shown.min()), float(shown.max())
    if low < -NEAR or high > 1 + NEAR:
        raise ConfigError(
            f"train.adversarial: by mean and std of {name}'s preprocessing its pixels lie in {low:.3g}..{high:.3g} and not in 0..1; mend "
            f"those, {off}"
        )
    return pixels

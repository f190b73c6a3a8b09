"""How many samples of a split a model gets right as they are, under attacks and under corruptions: a table, and curves over its rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from launcher.train.robust import attacks
from launcher.train.robust.attacks import Pixels
from launcher.train.robust.chance import Chance
from launcher.train.robust.corruptions import SEVERITIES, corrupted, kinds
from launcher.train.tasks.task import Model

EPSILONS = (0.5 / 255, 1 / 255, 2 / 255, 4 / 255, 8 / 255)
FGSM, PGD = "fgsm", "pgd"


class Robustness:
    """Metrics (launcher/train/tasks/task.py) of one split: `update` with this rank's batches, `state` across, `merge` into a fresh one.

    Of a sample under an attack or a corruption what is drawn hangs on the seed and the sample's number in the split alone, so that any
    world counts the same. Of PGD no row is above FGSM's at the same epsilon, or above the clean one.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int = 0,
        first: int = 0,
        epsilons: Sequence[float] = EPSILONS,
        corruptions: Sequence[str] | None = None,
        steps: int = attacks.STEPS,
    ) -> None:
        """`mean`, `std`: of each channel, in 0..1. `first`: the number in the split of this rank's first sample; batches follow in order
        (data.sampling.order.share). `epsilons`: in units of a pixel. `corruptions`: None: all that there are for so many channels."""
        self._said, self._seed, self._next, self._steps = (mean, std), seed, first, steps
        self._epsilons = tuple(epsilons)
        self._kinds = kinds(len(mean)) if corruptions is None else tuple(corruptions)
        self.rows = [(kind, each) for kind in (FGSM, PGD) for each in self._epsilons]
        self.rows += [(kind, float(severity)) for kind in self._kinds for severity in SEVERITIES]
        self._counts = torch.zeros(2 + len(self.rows), dtype=torch.int64)
        """Samples; right as they are; right in each row."""

    def update(self, model: Model, batch: Any) -> None:
        """Images (N, C, H, W), standardised, and labels (N,). The model evaluates, and computes in the run's precision."""
        images, labels = batch
        pixels = Pixels(*self._said, device=images.device)
        numbers = range(self._next, self._next + len(labels))
        self._next += len(labels)
        with torch.no_grad():
            right = [(model(images).argmax(1) == labels).sum()]
            right += self._attacked(model, images, labels, pixels, numbers)
            shown = pixels.shown(images)
            for kind in self._kinds:
                for severity in SEVERITIES:
                    made = corrupted(kind, shown, severity, Chance(numbers, self._seed, kind, severity))
                    right.append((model(pixels.standardised(made)).argmax(1) == labels).sum())
        self._counts += torch.stack([torch.tensor(len(labels)), *(each.cpu() for each in right)])

    def state(self) -> Mapping[str, torch.Tensor]:
        return {"counts": self._counts}

    def merge(self, state: Mapping[str, torch.Tensor]) -> None:
        if "counts" in state:
            self._counts = self._counts + state["counts"]

    def result(self) -> dict[str, float]:
        """Raises ValueError where nothing was counted."""
        return {"accuracy": self.table()["clean"], "samples": int(self._counts[0])}

    def table(self) -> dict[str, Any]:
        """{"samples", "clean", "rows": [{"kind", "strength", "accuracy"}, …]}; strength: epsilon in 0..1 of fgsm and pgd, else the
        severity, 1 to 5. A curve is the rows of one kind. Raises ValueError where nothing was counted."""
        samples, clean, *right = self._counts.tolist()
        if not samples:
            raise ValueError("no rank has counted a batch")
        rows = [
            {"kind": kind, "strength": strength, "accuracy": count / samples}
            for (kind, strength), count in zip(self.rows, right, strict=True)
        ]
        return {"samples": samples, "clean": clean / samples, "rows": rows}

    def _attacked(
        self, model: Model, images: torch.Tensor, labels: torch.Tensor, pixels: Pixels, numbers: Sequence[int]
    ) -> list[torch.Tensor]:
        """Right under each attack, in the order of the rows."""
        found = [attacks.fgsm(model, images, labels, epsilon, pixels) for epsilon in self._epsilons]
        worst = [
            attacks.pgd(model, images, labels, epsilon, pixels, Chance(numbers, self._seed, PGD), self._steps, first)
            for epsilon, first in zip(self._epsilons, found, strict=True)
        ]
        return [(~each.is_wrong).sum() for each in (*found, *worst)]


def rows(model: Model, batches: Iterable[Any], mean: Sequence[float], std: Sequence[float], **options: Any) -> dict[str, Any]:
    """The table of one process that has all batches of a split. `model` is called with standardised images and gives scores (N, classes);
    the module behind it has to evaluate (launcher/train/evaluate.py, `evaluating`). `options`: those of `Robustness`, which whoever shares
    a split among ranks uses in this one's place."""
    counted = Robustness(mean, std, **options)
    for batch in batches:
        counted.update(model, batch)
    return counted.table()

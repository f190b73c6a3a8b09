"""Learning-rate schedules: pure functions of the step, as a factor on `optim.lr`. Nothing to save, nothing to restore."""

from __future__ import annotations

import math
from dataclasses import dataclass


def _ramp(start: float, end: float, part: float) -> float:
    return start + (end - start) * part


@dataclass(frozen=True)
class Constant:
    """Linear warm-up over the first `warmup` of the steps, then 1."""

    warmup: float = 0.0

    def __call__(self, step: int, steps: int) -> float:
        warm = self.warmup * steps
        return (step + 1) / warm if step + 1 < warm else 1.0


@dataclass(frozen=True)
class Cosine:
    """Linear warm-up, then half a cosine down to `final` (Loshchilov and Hutter, 2016, https://arxiv.org/abs/1608.03983)."""

    warmup: float = 0.05
    """Fraction of the steps."""
    final: float = 0.0
    """Factor at the end."""

    def __call__(self, step: int, steps: int) -> float:
        warm = self.warmup * steps
        if step + 1 < warm:
            return (step + 1) / warm
        part = (step + 1 - warm) / max(1.0, steps - warm)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * part))


@dataclass(frozen=True)
class OneCycle:
    """Linearly up to 1 at `peak` of the steps, linearly down to `final` (Smith and Topin, 2017, https://arxiv.org/abs/1708.07120)."""

    peak: float = 0.25
    start: float = 0.04
    final: float = 0.0

    def __call__(self, step: int, steps: int) -> float:
        top = max(1.0, self.peak * steps)
        if step < top:
            return _ramp(self.start, 1.0, step / top)
        return _ramp(1.0, self.final, (step - top) / max(1.0, steps - 1 - top))

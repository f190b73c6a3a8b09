"""Learning-rate schedules: pure functions of the step, as a factor on `optim.lr`. Nothing to save, nothing to restore."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


def _warmed(step: int, warm: float, factor: float) -> float:
    """`factor`, or a share of 1 that grows over the first `warm` steps."""
    return (step + 1) / warm if step + 1 < warm else factor


def _ramp(start: float, end: float, part: float) -> float:
    return start + (end - start) * part


@dataclass(frozen=True)
class Constant:
    """Linear warm-up over the first `warmup` of the steps, then 1."""

    warmup: float = 0.0

    def __call__(self, step: int, steps: int) -> float:
        return _warmed(step, self.warmup * steps, 1.0)


@dataclass(frozen=True)
class Cosine:
    """Linear warm-up, then half a cosine down to `final` (Loshchilov and Hutter, 2016, https://arxiv.org/abs/1608.03983)."""

    warmup: float = 0.05
    """Fraction of the steps."""
    final: float = 0.0
    """Factor at the end."""

    def __call__(self, step: int, steps: int) -> float:
        warm = self.warmup * steps
        part = (step + 1 - warm) / max(1.0, steps - warm)
        return _warmed(step, warm, self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * part)))


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


@dataclass(frozen=True)
class Linear:
    """Linear warm-up, then linearly down to `final`."""

    warmup: float = 0.05
    final: float = 0.0

    def __call__(self, step: int, steps: int) -> float:
        warm = self.warmup * steps
        return _warmed(step, warm, _ramp(1.0, self.final, (step + 1 - warm) / max(1.0, steps - warm)))


@dataclass(frozen=True)
class WSD:
    """Warm-up, stable, decay (Hu et al., 2024, https://arxiv.org/abs/2404.06395): linearly up, 1 for most of the run, and over the last
    `decay` of the steps linearly down to `final`. A run that is to go on for longer starts from a checkpoint before the decay."""

    warmup: float = 0.02
    decay: float = 0.2
    final: float = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.decay < 0 or self.warmup < 0 or self.warmup + self.decay > 1:
            raise ValueError(
                f"schedule.decay={self.decay}: with schedule.warmup={self.warmup} they are more than the run; "
                "type shares of 1 together at most"
            )

    def __call__(self, step: int, steps: int) -> float:
        left, tail = steps - step - 1, self.decay * steps
        return _warmed(step, self.warmup * steps, _ramp(self.final, 1.0, left / tail) if left < tail else 1.0)


@dataclass(frozen=True)
class InverseSqrt:
    """Linear warm-up over `warmup_steps`, then as 1 / sqrt(step), whatever the length of the run (Vaswani et al., 2017,
    https://arxiv.org/abs/1706.03762, section 5.3)."""

    warmup_steps: int = 1000

    def __call__(self, step: int, steps: int) -> float:
        warm = max(1, self.warmup_steps)
        return min((step + 1) / warm, math.sqrt(warm / (step + 1)))


@dataclass(frozen=True)
class Step:
    """Linear warm-up; times `gamma` from each of `milestones` on, as shares of the run (He et al., 2015, https://arxiv.org/abs/1512.03385,
    section 4.2)."""

    milestones: Sequence[float] = (0.5, 0.75)
    gamma: float = 0.1
    warmup: float = 0.0

    def __call__(self, step: int, steps: int) -> float:
        return _warmed(step, self.warmup * steps, self.gamma ** sum(step >= share * steps for share in self.milestones))

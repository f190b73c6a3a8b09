"""Updates left out because their gradient is not finite (`train.on_bad=skip`): decided on the device, so that no step waits for it.

The gradient is the same on all ranks once it is reduced, and so is the decision: no message is needed. torch's fused optimizers leave an
update out by a flag on the device, made for its gradient scaler (`found_inf`, https://github.com/pytorch/pytorch/pull/94060).
"""

from __future__ import annotations

import torch
from torch import nn

from launcher.errors import ConfigError
from launcher.train.local import device_of
from launcher.train.optimizers import Optimizers
from launcher.train.record.meter import Meter


class Skipper:
    """Call `before` what an update computes, and `after` its gradient is known. Weights, optimizers, buffers and totals stay as they were;
    `meter` counts what was left out."""

    def __init__(self, model: nn.Module, optimizers: Optimizers, meter: Meter, fp16: bool) -> None:
        """Raises ConfigError where an optimizer has no such flag, or the scaler of fp16 uses it already."""
        if fp16:
            raise ConfigError("train.on_bad=skip: with fp16 the gradient scaler leaves updates out by itself; type stop, or rollback")
        self._optimizers = optimizers.each
        for optimizer in self._optimizers:
            if not getattr(optimizer, "_step_supports_amp_scaling", False):
                raise ConfigError(
                    f"train.on_bad=skip: {type(optimizer).__name__} cannot leave an update out; type optim.fused=true where it has that, "
                    "or train.on_bad=rollback"
                )
        self._meter = meter
        self._where = device_of(optimizers.parameters, meter.device)
        self._live = list(model.buffers())
        self._kept = [torch.empty_like(tensor) for tensor in self._live]

    @torch.no_grad()
    def before(self) -> None:
        """The forward pass changes these: BatchNorm's statistics."""
        for kept, live in zip(self._kept, self._live, strict=True):
            kept.copy_(live)

    @torch.no_grad()
    def after(self, norm: torch.Tensor, micro_batches: int) -> None:
        """`norm`: of the reduced gradient, over all parameters. `micro_batches`: of the update, on this rank."""
        bad = norm.isfinite().logical_not()
        for kept, live in zip(self._kept, self._live, strict=True):
            live.copy_(torch.where(bad, kept, live))
        self._meter.leave_out(bad, micro_batches)
        for optimizer in self._optimizers:
            optimizer.grad_scale = None  # pyright: ignore[reportAttributeAccessIssue]  # what the fused step looks for
            optimizer.found_inf = bad.float().to(self._where)  # pyright: ignore[reportAttributeAccessIssue]

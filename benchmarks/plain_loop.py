"""The plain PyTorch loop our own is compared with: what a competent person writes for one experiment, without any framework.

It shares the model, the loader and the numbers of the experiment with ours, and not one line of launcher/train.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any, TextIO

import torch
from torch import nn


def plain_loop(
    model: nn.Module, loader: Any, *, steps: int, lr: float, momentum: float, weight_decay: float, label_smoothing: float,
    peak: float, start: float, final: float, ema_decay: float, bf16: bool, log_every: int, logs: TextIO | None = None,
) -> Iterator[list[torch.Tensor]]:  # fmt: skip
    """Train `steps` steps; stop after every `log_every` of them for the caller to look at a clock. With `logs` it counts what is right as
    well, and writes a line of JSON each time: the work that the launcher does too.

    Yields the averaged weights, in the order of the model's parameters and then of its floating-point buffers.
    """
    model.train()
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=True, fused=True)
    criterion = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
    live = [*model.parameters(), *(buffer for buffer in model.buffers() if buffer.is_floating_point())]
    average = [tensor.detach().clone() for tensor in live]
    autocast = torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext()
    top = peak * steps
    total, correct = torch.zeros(()), torch.zeros((), dtype=torch.int64)
    step = 0
    while step < steps:
        for images, labels in loader.steps(step // loader.steps_per_epoch):
            factor = start + (1.0 - start) * step / top if step < top else 1.0 + (final - 1.0) * (step - top) / (steps - 1 - top)
            for group in optimizer.param_groups:
                group["lr"] = lr * factor

            with autocast:
                outputs = model(images)
                loss = criterion(outputs, labels)
            loss.backward()
            if logs is not None:
                correct += (outputs.argmax(1) == labels).sum()
            optimizer.step()
            optimizer.zero_grad()
            if ema_decay:
                with torch.no_grad():
                    torch._foreach_lerp_(average, live, 1 - min(ema_decay, (1 + step) / (10 + step)))

            total += loss.detach()
            step += 1
            if step % log_every == 0:
                if logs is not None:
                    seen = log_every * len(labels)
                    line = {"step": step, "loss": total.item() / log_every, "accuracy": correct.item() / seen, "lr": lr * factor}
                    logs.write(json.dumps(line) + "\n")
                    logs.flush()
                    correct.zero_()
                print(f"step {step}  loss {total.item() / log_every:.4f}")
                total.zero_()
                yield average
            if step == steps:
                break
    yield average

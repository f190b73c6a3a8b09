"""The next token of a text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from launcher.answers.texts import continued, written
from launcher.train.device import wide
from launcher.train.tasks.task import Model, Quiet, Step, Sums

Batch = tuple[torch.Tensor, ...]
"""Tokens (B, T) int64, and the one that follows each, (B, T). A third, (B, T) int64, numbers the document of each token: the model is given
it as its second input."""


class NextToken(Quiet):
    """Cross-entropy in nats for each token; perplexity; a text that the model goes on with, in TensorBoard. The first token of a document
    counts as any other: it is what comes behind the last one's end.

    z_loss: times the square of the log of the softmax's denominator, which keeps scores from drifting (Chowdhery et al., 2022,
    https://arxiv.org/abs/2204.02311, section 5). sample: tokens to go on with at each evaluation, behind the first half of its first
    sequence; 0: none.
    """

    unit = predicts = "tokens"

    def __init__(self, z_loss: float = 0.0, sample: int = 200, temperature: float = 0.8) -> None:
        """Raises ValueError naming the key."""
        if z_loss < 0 or sample < 0 or temperature <= 0:
            raise ValueError("task.z_loss and task.sample are 0 or more, task.temperature is more than 0; type other numbers")
        self._z_loss, self._sample, self._temperature = z_loss, sample, temperature
        self.predicting = {"temperature": temperature}

    def step(self, model: Model, batch: Batch) -> Step:
        tokens, targets, *documents = batch
        scores = model(tokens, *documents).flatten(0, 1)
        loss = cross_entropy = F.cross_entropy(scores, targets.flatten(), reduction="sum")
        if self._z_loss:
            loss = cross_entropy + self._z_loss * scores.logsumexp(-1).square().sum()
        return Step(loss, targets.numel(), (cross_entropy.detach(),))

    def train_metrics(self, loss: float, weight: float, statistics: Sequence[float]) -> dict[str, float]:
        """`loss` is the cross-entropy: what is added to it is no property of the text."""
        return _nats(statistics[0] / weight)

    def metrics(self) -> Nats:
        return Nats(self._go_on if self._sample else None)

    def show_evaluation(self, board: Any, metrics: Nats, split: str, names: Sequence[str], step: int) -> None:
        """`names`: what each token stands for, but for those that a model has and no text; without them they are bytes."""
        if metrics.text is not None:
            tokens, given = metrics.text.tolist(), len(metrics.text) - self._sample
            parts = {"[given]": tokens[:given], "[the model goes on]": tokens[given:]}
            lines = [line for what, part in parts.items() if part for line in (what, *written(part, names).splitlines())]
            board.text(f"{split}/text", "\n".join(f"    {line}" for line in lines), step)

    def _go_on(self, model: Model, batch: Batch) -> torch.Tensor:
        length = batch[0].shape[1]
        tokens, _, *rest = (each[:1, : max(1, length // 2)] for each in batch)
        return continued(model, tokens, self._sample, length, self._temperature, documents=rest[0] if rest else None)[0]


class Nats(Sums):
    """Sums over the tokens of a split, and the first rank's text."""

    def __init__(self, go_on: Callable[[Model, Batch], torch.Tensor] | None) -> None:
        super().__init__(_sums, _result)
        self._go_on = go_on
        self.text: torch.Tensor | None = None

    def update(self, model: Model, batch: Batch) -> None:
        super().update(model, batch)
        if self._go_on is not None and self.text is None:
            self.text = self._go_on(model, batch)

    def state(self) -> Mapping[str, torch.Tensor]:
        return {**super().state(), **({} if self.text is None else {"text": self.text})}

    def merge(self, state: Mapping[str, torch.Tensor]) -> None:
        super().merge(state)
        if self.text is None:
            self.text = state.get("text")


def _sums(model: Model, batch: Batch) -> torch.Tensor:
    """(sum of losses, tokens, sequences), float64."""
    tokens, targets, *documents = batch
    loss = wide(F.cross_entropy(model(tokens, *documents).flatten(0, 1), targets.flatten(), reduction="sum"))
    return torch.stack((loss, loss.new_tensor(targets.numel()), loss.new_tensor(len(targets))))


def _result(total: torch.Tensor) -> dict[str, float]:
    loss, tokens, sequences = total.tolist()
    return {**_nats(loss / tokens), "samples": int(sequences)}


def _nats(loss: float) -> dict[str, float]:
    """exp of more than 700 is no number: a perplexity like that says nothing."""
    return {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}

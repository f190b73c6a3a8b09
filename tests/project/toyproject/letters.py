"""A task whose weight the host does not know: the next token, where it is a letter."""

from __future__ import annotations

from torch.nn import functional as F

from launcher.train.tasks.language import Batch, NextToken
from launcher.train.tasks.task import Model, Step


class Letters(NextToken):
    def step(self, model: Model, batch: Batch) -> Step:
        tokens, targets, *documents = batch
        known = targets != ord(" ")
        losses = F.cross_entropy(model(tokens, *documents).flatten(0, 1), targets.flatten(), reduction="none") * known.flatten()
        return Step(losses.sum(), known.sum(), (losses.detach().sum(),))

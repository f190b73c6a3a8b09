"""A task that draws, in every generator, and whose weight no host knows: its losses are those of the plain one."""

from __future__ import annotations

import random

import numpy as np
import torch

from launcher.train.tasks.classification import Batch, Classification
from launcher.train.tasks.task import Model, Step


class Drawn(Classification):
    def step(self, model: Model, batch: Batch) -> Step:
        images, labels = batch
        order = torch.randperm(len(labels))[torch.as_tensor(np.random.permutation(len(labels)))].roll(random.randrange(len(labels)))
        step = super().step(model, (images[order], labels[order]))
        return Step(step.loss, torch.tensor(float(len(labels))), step.statistics)

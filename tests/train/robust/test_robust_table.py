"""The table of a split: whatever shares it is counted in, and PGD's rows never above FGSM's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from launcher.train.robust.table import FGSM, PGD, Robustness, rows

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def test_two_ranks_count_what_one_counts() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 49, 3)).eval()
    images = torch.randn(30, 3, 16, 16).clamp(-2, 2)
    labels = model(images + 0.1 * torch.randn_like(images)).argmax(1)
    asked = {"seed": 5, "epsilons": (1 / 255, 8 / 255), "corruptions": ("shot_noise", "contrast"), "steps": 3}
    whole = rows(model, [(images, labels)], MEAN, STD, **asked)
    ranks = Robustness(MEAN, STD, **asked), Robustness(MEAN, STD, first=13, **asked)
    for rank, share in zip(ranks, (range(13), range(13, 30)), strict=True):
        for part in torch.tensor(list(share)).split(7):
            rank.update(model, (images[part], labels[part]))
    merged = Robustness(MEAN, STD, **asked)
    for rank in ranks:
        merged.merge(rank.state())
    assert merged.table() == whole
    assert merged.result() == {"accuracy": whole["clean"], "samples": 30}
    found = {(row["kind"], row["strength"]): row["accuracy"] for row in whole["rows"]}
    assert len(found) == 2 * 2 + 2 * 5
    for epsilon in asked["epsilons"]:
        assert found[PGD, epsilon] <= min(found[FGSM, epsilon], whole["clean"])
    assert found[FGSM, 8 / 255] < whole["clean"]


def test_a_table_of_nothing_is_none() -> None:
    with pytest.raises(ValueError, match="no rank has counted"):
        Robustness(MEAN, STD).table()

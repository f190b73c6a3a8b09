"""A detector's shapes, where its points are, and what its constructor refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models import detector
from models.detector import PRIOR, Detector
from models.fpn import Pyramid

SMALL: dict[str, Any] = {"depths": (1, 1, 1, 1), "width": 8, "channels": 16, "num_classes": 5}


@pytest.mark.parametrize(("size", "more", "sizes"), [((64, 64), 0, (8, 4, 2)), ((64, 64), 2, (8, 4, 2, 1, 1))])
def test_points_of_all_levels_lie_in_the_picture(size: tuple[int, int], more: int, sizes: tuple[int, ...]) -> None:
    model = Detector(**SMALL, more_levels=more)
    found = model(torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)))
    count = sum(side * side for side in sizes)
    shapes = {"scores": (2, count, 5), "distances": (2, count, 4), "centres": (2, count), "points": (count, 2), "strides": (count,)}
    assert {name: tuple(each.shape) for name, each in found.items()} == shapes
    assert found["strides"].unique().tolist() == [8 * 2**level for level in range(len(sizes))]
    assert found["points"][:9].tolist() == [[4.0 + 8 * x, 4.0] for x in range(8)] + [[4.0, 12.0]]
    assert (found["distances"] > 0).all()


def test_a_picture_says_nothing_of_the_one_beside_it_and_sides_need_no_common_divisor() -> None:
    model = Detector(**SMALL)
    images = torch.randn(2, 3, 72, 104, generator=torch.Generator().manual_seed(0))
    both, alone = model(images), model(images[1:])
    torch.testing.assert_close(both["scores"][1:], alone["scores"], atol=1e-5, rtol=1e-5)
    assert both["points"].amax(0).tolist() == [112.0, 80.0], "of 1/32, rounded up"


def test_what_a_point_says_goes_with_its_place() -> None:
    """A map that says where it is, row by row as the points are."""
    y, x = torch.meshgrid(torch.arange(3.0), torch.arange(5.0), indexing="ij")
    where = torch.stack((x, y))[None] * 16 + 8
    assert torch.equal(detector._rows(where)[0], detector._points(3, 5, 16, torch.device("cpu")))


def test_at_first_a_class_is_as_rare_as_it_is_said() -> None:
    scores = Detector(**SMALL)(torch.zeros(1, 3, 64, 64))["scores"].sigmoid()
    assert abs(scores.mean() - PRIOR) < PRIOR / 2


def test_every_parameter_has_a_part_in_the_result() -> None:
    model = Detector(**SMALL, more_levels=1)
    found = model(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    sum(found[name].square().sum() for name in ("scores", "distances", "centres")).backward()
    dead = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert dead == set(), "ddp would wait for them"


def test_maps_of_a_bottleneck_network() -> None:
    maps = Pyramid((1, 1, 1, 1), 8, True, 8, 16, 1)(torch.zeros(1, 3, 64, 96))
    assert [tuple(each.shape) for each in maps] == [(1, 16, 8, 12), (1, 16, 4, 6), (1, 16, 2, 3), (1, 16, 1, 2)]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"depths": (2, 2, 2)}, r"model\.depths=\[2, 2, 2\]: a ResNet has four stages"),
        ({"num_classes": 0}, r"model\.num_classes=0"),
        ({"channels": 20}, r"model\.channels=20: each of 8 groups"),
        ({"width": 12}, r"model\.groups=8"),
        ({"more_levels": -1}, r"model\.more_levels=-1"),
    ],
)
def test_a_number_that_cannot_be_is_one_line(asked: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}"):
        Detector(**{**SMALL, **asked})

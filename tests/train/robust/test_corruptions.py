"""Common corruptions: in 0..1, of the sample and the seed alone, and the farther the severer."""

from __future__ import annotations

import pytest
import torch

from launcher.train.robust.chance import Chance
from launcher.train.robust.corruptions import SEVERITIES, corrupted, kinds


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Smooth, with an edge: what blurs and blocks can be seen in. One pixel is black, one grey."""
    across = torch.linspace(0, 1, 32)
    one = torch.stack([across.expand(32, 32), across.square().expand(32, 32).T, 0.5 + 0.4 * torch.sin(9 * across).expand(32, 32)])
    one[:, 8:20, 10:25] = torch.tensor([0.9, 0.2, 0.4]).view(3, 1, 1)
    one[:, 0, 0], one[:, 0, 1] = 0.0, 0.5
    return torch.stack([one, one.flip(2), one.flip(0), one.flip(1)])


@pytest.mark.parametrize("kind", kinds(3))
def test_a_corruption_stays_in_range_and_grows_and_hangs_on_seed_and_sample(kind: str, images: torch.Tensor) -> None:
    made = [corrupted(kind, images, severity, Chance(range(4), 7)) for severity in SEVERITIES]
    for each in made:
        assert (each.shape, each.dtype) == (images.shape, images.dtype)
        assert each.min() >= 0
        assert each.max() <= 1
    away = [float((each - images).square().mean()) for each in made]
    parts = [away[:2], away[2:]] if kind == "saturate" else [away]  # of which two take colour away, and three add some
    alike = 1 if kind == "motion_blur" else 0  # its severities 3 and 4
    assert all(part[0] > 0 and part == sorted(part) and len(set(part)) == len(part) - alike for part in parts), away
    again = corrupted(kind, images[2:], 3, Chance(range(2, 4), 7))
    assert torch.allclose(again, made[2][2:], atol=1e-6)


@pytest.mark.parametrize(("channels", "without"), [(1, {"saturate"}), (2, {"saturate", "pixelate", "jpeg"})])
def test_images_of_other_channels_have_those_that_there_are_for_them(channels: int, without: set[str], images: torch.Tensor) -> None:
    assert set(kinds(3)) - set(kinds(channels)) == without
    for kind in kinds(channels):
        assert corrupted(kind, images[:, :channels], 5, Chance(range(4), 0)).shape == (4, channels, 32, 32)


def test_noise_has_the_strength_that_it_is_said_to_have() -> None:
    grey = torch.full((8, 3, 32, 32), 0.5)
    assert abs(float(corrupted("gaussian_noise", grey, 5, Chance(range(8), 0)).std()) - 0.1) < 0.003
    assert abs(float(corrupted("shot_noise", grey, 5, Chance(range(8), 0)).std()) - 0.1) < 0.003  # sqrt(0.5 / 50)
    hit = corrupted("impulse_noise", grey, 5, Chance(range(8), 0)) != 0.5
    assert abs(float(hit.float().mean()) - 0.07) < 0.005

"""Each operation beside Pillow's, or the paper's equation; and in twice the precision, in place of another device."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from data.augment import colour, mix, randaugment, shape
from data.augment.chance import Augmentation, Chance
from data.augment.randaugment import RandAugment

FILL = torch.tensor((0.5, 0.4, 0.3)).view(3, 1, 1)


def smooth(count: int = 4, side: int = 24) -> np.ndarray:
    """Pictures with edges and slopes, (n, side, side, 3) uint8: of noise a tenth of a pixel's shift would be anything."""
    draw = np.random.default_rng(0)
    small = draw.integers(0, 256, (count, 5, 5, 3), dtype=np.uint8)
    made = [np.asarray(Image.fromarray(each).resize((side, side), Image.Resampling.BICUBIC)) for each in small]
    pictures = np.stack(made)
    pictures[:, 5:12, 8:15] = (10, 200, 90)
    return pictures


def batch(pictures: np.ndarray, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).to(dtype) / 255


def chance(count: int, *, seed: int = 0, epoch: int = 0, first: int = 0, classes: int = 5) -> Chance:
    return Chance(np.arange(first, first + count), (seed, epoch, 0), torch.device("cpu"), FILL, classes)


def levels(images: torch.Tensor) -> np.ndarray:
    return (images * 255).permute(0, 2, 3, 1).numpy()


def amount(value: float) -> torch.Tensor:
    return torch.full((4, 1, 1, 1), value)


PILLOW: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], Callable[[Image.Image], Image.Image]]] = {
    "brightness 1.4": (lambda x: colour.brightness(x, amount(1.4)), lambda image: ImageEnhance.Brightness(image).enhance(1.4)),
    "contrast 0.5": (lambda x: colour.contrast(x, amount(0.5)), lambda image: ImageEnhance.Contrast(image).enhance(0.5)),
    "contrast 1.9": (lambda x: colour.contrast(x, amount(1.9)), lambda image: ImageEnhance.Contrast(image).enhance(1.9)),
    "saturation 0": (lambda x: colour.saturation(x, amount(0.0)), lambda image: ImageEnhance.Color(image).enhance(0.0)),
    "saturation 1.8": (lambda x: colour.saturation(x, amount(1.8)), lambda image: ImageEnhance.Color(image).enhance(1.8)),
    "sharpness 0.1": (lambda x: colour.sharpness(x, amount(0.1)), lambda image: ImageEnhance.Sharpness(image).enhance(0.1)),
    "sharpness 1.9": (lambda x: colour.sharpness(x, amount(1.9)), lambda image: ImageEnhance.Sharpness(image).enhance(1.9)),
    "auto-contrast": (colour.autocontrast, ImageOps.autocontrast),
    "equalize": (colour.equalize, ImageOps.equalize),
    "posterize 4": (lambda x: colour.posterize(x, 4), lambda image: ImageOps.posterize(image, 4)),
    "solarize 128": (lambda x: colour.solarize(x, 128), lambda image: ImageOps.solarize(image, 128)),
}


@pytest.mark.parametrize("name", PILLOW)
def test_a_change_of_colour_is_pillows_to_two_levels(name: str) -> None:
    ours, theirs = PILLOW[name]
    pictures = np.random.default_rng(1).integers(30, 220, (4, 24, 24, 3), dtype=np.uint8)
    wanted = np.stack([np.asarray(theirs(Image.fromarray(each))) for each in pictures]).astype(float)
    assert np.abs(levels(ours(batch(pictures))) - wanted).max() <= 2
    assert np.abs(wanted - pictures).max() > 14  # it does something


@pytest.mark.parametrize(
    ("name", "map_of"),
    [
        ("rotate", lambda image: image.rotate(27, Image.Resampling.BILINEAR, fillcolor=(128, 102, 76))),
        ("shear-x", lambda image: warped(image, (1, 0.27, 0, 0, 1, 0))),
        ("shear-y", lambda image: warped(image, (1, 0, 0, 0.27, 1, 0))),
        ("translate-x", lambda image: warped(image, (1, 0, 0.9 * 150 / 331 * 24, 0, 1, 0))),
        ("translate-y", lambda image: warped(image, (1, 0, 0, 0, 1, 0.9 * 150 / 331 * 24))),
    ],
)
def test_what_is_turned_sheared_and_moved_lies_where_pillow_lays_it(name: str, map_of: Callable[[Image.Image], Image.Image]) -> None:
    """Both ways; at the edge of what is seen Pillow does not blend with what lies beyond, so pixels within one of it are not compared."""
    pictures, operation = smooth(), RandAugment(1, 9, [name])
    maps = operation._maps(np.array([name] * 4), np.array([1.0, 1, 1, 1]), torch.Size((4, 3, 24, 24)))
    found = levels(shape.warped(batch(pictures), maps, chance(4)))
    wanted = np.stack([np.asarray(map_of(Image.fromarray(each))) for each in pictures]).astype(float)
    white = np.asarray(map_of(Image.new("RGB", (24, 24), (255, 255, 255))))[..., 0] == 255
    inner = np.zeros_like(white)
    inner[1:-1, 1:-1] = np.lib.stride_tricks.sliding_window_view(white, (3, 3)).all((2, 3))
    outer = np.zeros_like(white)
    outer[1:-1, 1:-1] = ~np.lib.stride_tricks.sliding_window_view(white, (3, 3)).any((2, 3))
    assert inner.sum() > 150
    assert np.abs(found - wanted)[:, inner].max() <= 2
    assert np.abs(found - wanted)[:, outer].max(initial=0) <= 1
    assert np.abs(found - pictures)[:, inner].max() > 20


def warped(image: Image.Image, data: tuple[float, ...]) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR, fillcolor=(128, 102, 76))


def test_a_turn_of_hue_is_that_of_colorsys() -> None:
    images = torch.rand((4, 3, 6, 6), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    images[0, :, 0] = images[0, :1, 0]  # grey has no hue
    turned = colour.hue(images, torch.full((4, 1, 1, 1), -0.37, dtype=torch.float64))
    for before, after in zip(images.movedim(1, 3).reshape(-1, 3).tolist(), turned.movedim(1, 3).reshape(-1, 3).tolist(), strict=True):
        tone, strength, value = colorsys.rgb_to_hsv(*before)
        assert after == pytest.approx(colorsys.hsv_to_rgb((tone - 0.37) % 1, strength, value), abs=1e-12)


def test_of_one_value_and_of_one_channel_there_is_nothing_to_stretch() -> None:
    flat, grey = torch.full((4, 3, 8, 8), 0.25), torch.rand((4, 1, 8, 8))
    for change in (colour.autocontrast, colour.equalize):
        assert torch.allclose(change(flat), flat, atol=0.5 / 255)
    assert torch.equal(colour.saturation(grey, amount(0.1)), grey)
    assert torch.equal(colour.hue(grey, amount(0.1)), grey)
    drawn = Chance(np.arange(4), (0, 0, 0), grey.device, torch.zeros(1, 1, 1), 5)
    assert RandAugment(3)(grey, torch.zeros(4), drawn)[0].shape == grey.shape


def test_randaugment_draws_every_operation_alike_and_gives_each_image_what_it_drew() -> None:
    drawn = chance(7000).below(len(randaugment.OPERATIONS))
    counts = np.bincount(drawn, minlength=14)
    assert len(counts) == 14
    assert abs(counts - 500).max() < 5 * math.sqrt(500)
    pictures = batch(smooth(64))
    made, _ = RandAugment(1, 9)(pictures, torch.zeros(64), chance(64))
    alone = torch.cat([RandAugment(1, 9)(pictures[each : each + 1], torch.zeros(1), chance(1, first=each))[0] for each in range(64)])
    assert torch.allclose(made, alone, atol=1e-6)
    for one, other, which in zip(made, pictures, chance(64).below(14), strict=True):
        name = randaugment.OPERATIONS[which]
        assert name == "auto-contrast" or torch.equal(one, other) == (name == "identity")  # some are stretched already


# ---------------------------------------------------------------- crop, mirror, cutout


def test_crop_mirror_and_cutout_do_what_was_drawn() -> None:
    pictures = batch(smooth(16))
    drawn = chance(16)
    down, right = drawn.below(9) - 4, drawn.below(9) - 4
    padded = torch.nn.functional.pad(pictures, (4, 4, 4, 4), "reflect")
    wanted = torch.stack([padded[n, :, 4 + d : 28 + d, 4 + r : 28 + r] for n, (d, r) in enumerate(zip(down, right, strict=True))])
    assert torch.equal(shape.Crop(4)(pictures, torch.zeros(16), chance(16))[0], wanted)

    mirrored = chance(16).uniform() < 0.5
    assert 0 < mirrored.sum() < 16
    wanted = torch.stack([each.flip(2) if flip else each for each, flip in zip(pictures, mirrored, strict=True)])
    assert torch.equal(shape.Flip()(pictures, torch.zeros(16), chance(16))[0], wanted)

    drawn = chance(16)
    rows, columns = drawn.below(24), drawn.below(24)
    wanted = pictures.clone()
    for n, (row, column) in enumerate(zip(rows, columns, strict=True)):
        wanted[n, :, max(0, row - 4) : row + 4, max(0, column - 4) : column + 4] = FILL
    assert torch.equal(shape.Cutout(8)(pictures, torch.zeros(16), chance(16))[0], wanted)


# ---------------------------------------------------------------- mixtures


def test_mixup_is_the_papers_equation_and_both_of_a_pair_are_mixed() -> None:
    pictures, labels = batch(smooth(6)), torch.tensor([0, 1, 2, 2, 4, 0])
    made, soft = mix.Mix(0.4)(pictures, labels, chance(6))
    drawn = chance(6)
    drawn.uniform()
    drawn.below(2)
    kept = torch.from_numpy(mix.quantiles(0.4)[drawn.below(mix.QUANTILES)]).float()
    hot = torch.nn.functional.one_hot(labels, 5).float()
    for n, partner in enumerate((1, 0, 3, 2, 5, 4)):
        assert torch.allclose(made[n], kept[n] * pictures[n] + (1 - kept[n]) * pictures[partner], atol=1e-6)
        assert torch.allclose(soft[n], kept[n] * hot[n] + (1 - kept[n]) * hot[partner], atol=1e-6)
    assert soft.dtype == torch.float32
    scores = torch.randn(6, 5)
    by_hand = -(soft * scores.log_softmax(1)).sum()
    assert torch.allclose(torch.nn.functional.cross_entropy(scores, soft, reduction="sum"), by_hand, atol=1e-5)


def test_cutmix_takes_a_box_of_the_partner_and_as_much_of_its_label() -> None:
    pictures, labels = torch.zeros((200, 3, 60, 90)), torch.tensor([0, 1] * 100)
    pictures[1::2] = 1
    made, soft = mix.Mix(0, 1.0)(pictures, labels, chance(200))
    taken = torch.where(labels.bool(), 1 - made[:, 0].mean((1, 2)), made[:, 0].mean((1, 2)))
    assert torch.allclose(soft.gather(1, 1 - labels[:, None])[:, 0], taken, atol=1e-6)
    assert torch.allclose(soft.sum(1), torch.ones(200), atol=1e-6)
    for image, label in zip(made[:, 0], labels, strict=True):
        other = image != label
        rows, columns = other.any(1).nonzero(), other.any(0).nonzero()
        if len(rows):  # it is a box, and whole
            assert other[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert taken.mean() == pytest.approx(0.32, abs=0.05)  # 1/2 on average, less what is cut at the edge


def test_with_both_a_coin_says_which_and_a_share_stays_as_it_is() -> None:
    pictures, labels = torch.rand((400, 3, 8, 8)), torch.zeros(400, dtype=torch.int64)
    made, _ = mix.Mix(1.0, 1.0, share=0.5)(pictures, labels, chance(400))
    stays = (made == pictures).flatten(1).all(1)
    is_cut = ((made == pictures) | (made == pictures[torch.arange(400) ^ 1])).flatten(1).all(1) & ~stays
    assert 160 < stays.sum() < 270  # a box may be of no pixel
    assert 60 < is_cut.sum() < 130


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.7, 1, 3, 100])
def test_the_shares_are_of_the_beta_distribution(alpha: float) -> None:
    """Its first even moments: the mean is 1/2, the variance 1 / (4 (2 alpha + 1)), and the fourth central one by its kurtosis."""
    table = mix.quantiles(alpha)
    variance = 1 / (4 * (2 * alpha + 1))
    assert (np.diff(table) >= 0).all()
    assert table.mean() == pytest.approx(0.5, abs=1e-6)
    assert table.var() == pytest.approx(variance, rel=2e-3)
    assert ((table - 0.5) ** 4).mean() == pytest.approx(variance**2 * (3 - 6 / (2 * alpha + 3)), rel=2e-3)


# ---------------------------------------------------------------- the same anywhere


STEPS: dict[str, tuple[Augmentation, float]] = {
    "RandAugment": (RandAugment(2, 9), 1e-2),
    "RandAugment, no steps": (
        RandAugment(3, 9, [each for each in randaugment.OPERATIONS if each not in ("equalize", "posterize", "solarize")]),
        0,
    ),
    "Colour": (colour.Colour(0.4, 0.4, 0.4, 0.1), 0),
    "Crop": (shape.Crop(4), 0),
    "Flip": (shape.Flip(), 0),
    "Cutout": (shape.Cutout(8), 0),
    "Mix": (mix.Mix(0.2, 1.0), 0),
}


@pytest.mark.parametrize("name", STEPS)
def test_twice_the_precision_gives_the_same_to_float_tolerance(name: str) -> None:
    """In place of another device, which rounds otherwise. Where colours are cut into levels a value at the edge of one may fall into the
    next: of what was read as bytes none does, of what has been turned or blended since a few."""
    step, share = STEPS[name]
    pictures, labels = smooth(128), torch.zeros(128, dtype=torch.int64)
    before = batch(pictures)
    kept = before.clone()
    (single, _), (double, _) = (step(batch(pictures, dtype), labels, chance(128)) for dtype in (torch.float32, torch.float64))
    assert double.dtype == torch.float64
    far = (single.double() - double).abs() > 2e-5
    assert far.double().mean() <= share
    step(before, labels, chance(128))
    assert torch.equal(before, kept)  # what was given stays


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: RandAugment(0), "loader.augment: n=0"),
        (lambda: RandAugment(2, 11), "loader.augment: magnitude=11"),
        (lambda: RandAugment(2, 9, ["turn"]), "loader.augment: operations=turn: not known"),
        (lambda: RandAugment(2, 9, []), r"operations=\[\] has none"),
        (lambda: colour.Colour(hue=0.6), "loader.augment: hue=0.6"),
        (lambda: colour.Colour(brightness=-1), "loader.augment: brightness=-1"),
        (lambda: shape.Crop(-1), "loader.augment: pad=-1"),
        (lambda: shape.Cutout(0), "loader.augment: size=0"),
        (lambda: shape.Flip(1.5), "loader.augment: share=1.5"),
        (lambda: mix.Mix(-1), "loader.augment: mixup=-1"),
        (lambda: mix.Mix(0, 0), "mixup=0 and cutmix=0 mix nothing"),
        (lambda: shape.Crop(8).check((3, 8, 9)), "pad=8: images of 8x9 reflect 7 pixels"),
        (lambda: RandAugment().check((4, 8, 8)), "needs images of 1 or 3 channels, and these have 4"),
    ],
)
def test_what_cannot_be_meant_is_one_line(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()

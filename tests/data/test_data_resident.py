"""The resident technique on images: against a plain loop over samples, and against itself in other worlds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from data.resident import Resident
from data.sampling.order import epoch_order
from data.sampling.updates import Evaluation
from data.vision.augment import CropFlip, draws
from data.vision.images import Images, ImageSource, Recipe

N = 50
MEAN, STD = np.array([120.0, 110.0, 100.0]), np.array([60.0, 50.0, 40.0])
PART = np.random.Generator(np.random.PCG64(9)).permutation(N)[:43].astype(np.int64)
FULL = Recipe(pad=4, flip=True, cutout=9)


@pytest.fixture
def pixels(images: Callable[..., np.ndarray]) -> np.ndarray:
    return images(N, 5)


@pytest.fixture
def data(pixels: np.ndarray) -> Images:
    return Images(pixels, np.arange(N, dtype=np.int64), MEAN, STD, "cpu")


class Pictures:
    """PART to train on and to test on, and nothing to validate on."""

    def __init__(self, images: Images, recipe: Recipe) -> None:
        self.images, self.recipe = images, recipe

    def part(self, split: str, device: torch.device) -> ImageSource | None:
        return None if split == "val" else ImageSource(self.images, PART, self.recipe)


def loader(data: Images, recipe: Recipe = FULL, rank: int = 0, world: int = 1, accumulate: int = 1, batch: int = 8) -> Resident:
    made = Resident(Pictures(data, recipe), batch_size=batch, accumulate=accumulate, seed=3)
    made.open(SimpleNamespace(dp_rank=rank, dp_size=world), "cpu")
    return made


def by_hand(image: np.ndarray, i: int, recipe: Recipe, epoch: int) -> np.ndarray:
    """One sample as the papers say it: pad by reflection, crop, mirror, standardise, cut out."""
    table = draws(3, epoch, N, pad=recipe.pad, flip=recipe.flip, height=32, width=32)
    top, left, flip, y, x = (int(column[i]) for column in table)
    edge = (recipe.pad, recipe.pad)
    image = np.pad(image, (edge, edge, (0, 0)), mode="reflect")[top : top + 32, left : left + 32]
    if flip:
        image = image[:, ::-1]
    result = (image.astype(np.float64) - MEAN) / STD
    if recipe.cutout:
        low = recipe.cutout // 2
        rows = slice(max(0, y - low), max(0, y - low + recipe.cutout))
        result[rows, max(0, x - low) : max(0, x - low + recipe.cutout)] = 0
    return result.transpose(2, 0, 1)


@pytest.mark.parametrize(
    "recipe", [Recipe(), Recipe(pad=4), Recipe(flip=True), Recipe(pad=31, flip=True), Recipe(cutout=8), Recipe(cutout=32), FULL]
)
def test_batches_are_what_a_loop_over_samples_makes(data: Images, pixels: np.ndarray, recipe: Recipe) -> None:
    order = PART[epoch_order(3, 1, len(PART))]
    for step, (images, labels) in enumerate(loader(data, recipe).steps(1)):
        wanted = order[8 * step : 8 * step + 8]
        assert labels.tolist() == wanted.tolist()
        expected = np.stack([by_hand(pixels[i], i, recipe, 1) for i in wanted])
        np.testing.assert_allclose(images.numpy(), expected, atol=2e-6)


def test_batches_have_the_form_that_a_model_wants(data: Images) -> None:
    training = loader(data)
    assert (training.samples, training.steps_per_epoch) == (43, 5)
    images, labels = next(training.steps(0, 0))
    assert (images.shape, images.dtype, labels.dtype) == ((8, 3, 32, 32), torch.float32, torch.int64)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert not images.requires_grad


@pytest.mark.parametrize(("world", "accumulate"), [(1, 2), (2, 1), (2, 2), (4, 1), (4, 2)])
def test_another_world_sees_the_same_samples_and_the_same_bits(data: Images, world: int, accumulate: int) -> None:
    alone = list(loader(data).steps(2))
    ranks = [list(loader(data, rank=rank, world=world, accumulate=accumulate).steps(2)) for rank in range(world)]
    for step, (images, labels) in enumerate(alone):
        chunks = [ranks[rank][step * accumulate + turn] for turn in range(accumulate) for rank in range(world)]
        assert torch.equal(torch.cat([chunk[0] for chunk in chunks]), images)
        assert torch.equal(torch.cat([chunk[1] for chunk in chunks]), labels)
    assert {len(batches) for batches in ranks} == {5 * accumulate}


def test_a_micro_batch_is_made_when_it_is_asked_for(data: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    batch = ImageSource.epoch

    def counting(self: ImageSource, seed: int, epoch: int) -> Callable[[torch.Tensor], Any]:
        inner = batch(self, seed, epoch)
        return lambda places: made.append(len(places)) or inner(places)

    monkeypatch.setattr(ImageSource, "epoch", counting)
    steps: Iterator[Any] = loader(data, accumulate=4).steps(0)
    assert made == []
    for number in range(1, 6):
        next(steps)
        assert made == [2] * number


def test_an_epoch_can_begin_at_any_step_and_epochs_differ(data: Images) -> None:
    whole = list(loader(data).steps(1))
    for start in range(6):
        rest = list(loader(data).steps(1, start))
        assert len(rest) == 5 - start
        for (images, labels), (wanted, wanted_labels) in zip(rest, whole[start:], strict=True):
            assert torch.equal(images, wanted)
            assert torch.equal(labels, wanted_labels)
    assert not torch.equal(whole[0][1], next(loader(data).steps(2))[1])


def test_an_epoch_visits_no_sample_twice(data: Images) -> None:
    seen = [int(label) for _, labels in loader(data).steps(0) for label in labels]
    assert len(seen) == len(set(seen)) == 40
    assert set(seen) <= set(PART.tolist())


@pytest.mark.parametrize(("batch", "world", "accumulate"), [(9, 2, 1), (8, 3, 1), (6, 2, 2), (0, 1, 1), (-8, 2, 1)])
def test_a_batch_that_cannot_be_shared_is_refused(data: Images, batch: int, world: int, accumulate: int) -> None:
    with pytest.raises(ValueError, match=rf"^train\.batch_size={batch}: .* multiple of {world * accumulate};"):
        loader(data, batch=batch, world=world, accumulate=accumulate)


def test_a_part_smaller_than_one_step_is_refused_with_the_size_that_fits(data: Images) -> None:
    with pytest.raises(ValueError, match=r"^train\.batch_size=44: .* 43 samples.*train\.batch_size=42 or smaller$"):
        loader(data, batch=44, world=2)


@pytest.mark.parametrize("world", [1, 2, 3, 7, 60])
def test_evaluation_sees_every_sample_once_and_unchanged(data: Images, pixels: np.ndarray, world: int) -> None:
    images, labels = [], []
    for rank in range(world):
        part = Evaluation(torch.from_numpy(PART), rank, world, 5, partial(map, ImageSource(data, PART, FULL).batch))
        assert part.samples == 43
        batches = list(part)
        assert len(part) == len(batches) == len(list(part)), "re-iterable"
        assert all(0 < len(batch[1]) <= 5 for batch in batches)
        images += [batch[0] for batch in batches]
        labels += [batch[1] for batch in batches]
    assert torch.cat(labels).tolist() == PART.tolist()
    wanted = ((pixels[PART] - MEAN) / STD).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(torch.cat(images).numpy(), wanted, atol=2e-6)
    assert all(batch.is_contiguous(memory_format=torch.channels_last) for batch in images)


def test_the_cpu_works_on_the_cache_itself(data: Images, pixels: np.ndarray) -> None:
    assert data.images.data_ptr() == pixels.ctypes.data, "a copy per process would cost 150 MB each"


@pytest.mark.parametrize("pad", [-1, 32])
def test_a_border_wider_than_a_reflection_is_refused(pad: int) -> None:
    with pytest.raises(ValueError, match=rf"^data\.pad={pad}: .* 0 to 31"):
        CropFlip(32, 40, 3, pad, "cpu")


def test_images_need_not_be_square(images: Callable[..., np.ndarray]) -> None:
    batch = torch.from_numpy(images(4, 1)[:, :, :20].copy())
    draw = [torch.tensor(values) for values in ([0, 1, 2, 4], [4, 3, 0, 2], [0, 1, 0, 1])]
    got = CropFlip(32, 20, 3, 2, "cpu")(batch, *draw)
    for i, (top, left, flip) in enumerate(zip(*[column.tolist() for column in draw], strict=True)):
        crop = np.pad(batch[i].numpy(), ((2, 2), (2, 2), (0, 0)), mode="reflect")[top : top + 32, left : left + 20]
        assert (got[i].numpy() == (crop[:, ::-1] if flip else crop)).all()

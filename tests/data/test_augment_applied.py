"""`loader.augment` with each kind of set under both techniques: the same images whoever makes them, in whatever world, from wherever."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data.augment.chance import Chance
from data.augment.colour import Colour
from data.augment.mix import Mix
from data.augment.randaugment import RandAugment
from data.augment.shape import Crop, Cutout, Flip
from data.cifar10 import CIFAR10
from data.imagefolder import ImageFolder
from data.resident import Resident
from data.workers import Workers

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
ALL = (Crop(2), Flip(), RandAugment(), Colour(), Cutout(4), Mix(0.4, 1.0))


class Pictures:
    """A user's own: standardised, and it says by what."""

    mean, std, num_classes = MEAN, STD, 3

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        pixels = np.random.default_rng(index).integers(0, 256, (3, 12, 12))
        image = (pixels / 255 - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None]
        return torch.from_numpy(image).float(), index % 3


class Of(Pictures):
    """Samples of another kind."""

    def __init__(self, make: Callable[[int], Any], **said: Any) -> None:
        self.make = make
        self.mean = self.std = self.num_classes = None
        self.__dict__.update(said)

    def __getitem__(self, index: int) -> Any:
        return self.make(index)


def opened(kind: Any, data: Any, rank: int = 0, size: int = 1, **asked: Any) -> Any:
    more = {"num_workers": 0} if kind is Workers else {}
    loader = kind(data, **{"batch_size": 8, "accumulate": 1, "seed": 3, "augment": list(ALL), **more, **asked})
    mesh: Any = SimpleNamespace(dp_rank=rank, dp_size=size)
    loader.open(mesh, "cpu")
    return loader


def joined(batches: Any) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for label in ("cats", "dogs"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for each in range(12):
            pixels = np.random.default_rng(each).integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / label / f"{each}.png")
    return tmp_path / "pictures"


@contextlib.contextmanager
def closing(*loaders: Any) -> Iterator[None]:
    try:
        yield
    finally:
        for loader in loaders:
            loader.close()


def test_both_techniques_and_any_number_of_workers_make_the_same_batches(no_process_left: None) -> None:
    resident, alone, crew = (opened(Resident, Pictures()), opened(Workers, Pictures()), opened(Workers, Pictures(), num_workers=2))
    with closing(resident, alone, crew):
        for epoch in (0, 1):
            made = [joined(loader.steps(epoch)) for loader in (resident, alone, crew)]
            assert made[0][1].shape == (48, 3)
            for images, labels in made[1:]:
                assert torch.equal(images, made[0][0])
                assert torch.equal(labels, made[0][1])
        later, whole = joined(crew.steps(1, 3)), joined(resident.steps(1))
        assert torch.equal(later[0], whole[0][24:])  # a run that goes on in the middle of an epoch
        assert not torch.equal(whole[0], joined(resident.steps(0))[0])


@pytest.mark.parametrize("kind", [Resident, Workers])
@pytest.mark.parametrize(("size", "accumulate"), [(2, 1), (1, 2), (2, 2), (4, 1)])
def test_an_update_has_the_same_images_in_every_world(kind: Any, size: int, accumulate: int) -> None:
    """Partners too: a micro-batch of two is one pair."""
    alone, wanted = opened(kind, Pictures()), opened(kind, Pictures())
    ranks = [opened(kind, Pictures(), rank, size, accumulate=accumulate) for rank in range(size)]
    streams = [rank.steps(1) for rank in ranks]
    for images, labels in wanted.steps(1):
        parts = [next(stream) for _ in range(accumulate) for stream in streams]
        assert torch.allclose(torch.cat([part[0] for part in parts]), images, atol=1e-5)
        assert torch.equal(torch.cat([part[1] for part in parts]), labels)
    alone.close()


def test_an_evaluation_and_a_loader_without_augmentations_give_samples_as_they_are() -> None:
    plain, loader = opened(Resident, Pictures(), augment=None), opened(Resident, Pictures())
    assert plain._augmented is None
    assert opened(Workers, Pictures(), augment=[])._augmented is None
    for split in ("train", "val"):
        assert torch.equal(joined(loader.evaluation(split))[0], joined(plain.evaluation(split))[0])
    with pytest.raises(AssertionError):
        assert torch.equal(joined(loader.steps(0))[0], joined(plain.steps(0))[0])


def test_what_a_sample_draws_hangs_on_its_number_its_epoch_and_the_seed() -> None:
    def draws(*places: int, seed: int = 0, epoch: int = 0, which: int = 0) -> np.ndarray:
        chance = Chance(np.array(places), (seed, epoch, which), torch.device("cpu"), torch.zeros(()), 0)
        return np.stack([chance.uniform(), chance.uniform()], 1)

    some, others = draws(5, 9, 10**12), draws(9, 5)
    assert (some[:2] == others[::-1]).all()
    every = np.concatenate([some, draws(5, seed=1), draws(5, epoch=1), draws(5, which=1)])
    assert len(set(every.ravel().tolist())) == every.size
    many = draws(*range(20000))
    assert np.abs(np.histogram(many, 20, (0, 1))[0] - 2000).max() < 5 * 2000**0.5
    assert abs(np.corrcoef(many[:-1, 0], many[1:, 0])[0, 1]) < 0.03
    assert abs(np.corrcoef(many[:, 0], many[:, 1])[0, 1]) < 0.03


def test_the_words_are_splitmix64s_and_stay_those() -> None:
    from data.sampling.order import CHANCE, words, words_of

    def mixed(word: int) -> int:
        word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        word = (word ^ word >> 27) * 0x94D049BB133111EB % 2**64
        return word ^ word >> 31

    odd, first = 0x9E3779B97F4A7C15, words(1, CHANCE, 3, 1, 0)
    for place, column in ((0, 1), (7, 2), (2**40, 31)):
        wanted = mixed((mixed((place * odd + int(first[0])) % 2**64) + (column + 1) * odd) % 2**64)
        assert int(words_of(np.array([place]), column, first)[0]) == wanted


def test_a_set_of_images_in_device_memory_and_a_folder_say_their_own_colours(root: Path, folder: Path) -> None:
    """In 0..1 for what comes before, standardised for the model: an augmentation that changes nothing changes nothing."""

    def seen(images: torch.Tensor, labels: torch.Tensor, chance: Chance) -> tuple[torch.Tensor, torch.Tensor]:
        spans.append((float(images.min()), float(images.max())))
        return images, labels

    for data in (CIFAR10(root=str(root), validation=10, pad=0, flip=False), ImageFolder(str(folder), size=16, crop=1.0, flip=False)):
        spans: list[tuple[float, float]] = []
        (images, labels), (plain, same) = (
            next(opened(Resident, data, augment=augment).steps(0)) for augment in ([Colour(0, 0, 0), seen], None)
        )
        assert torch.allclose(images, plain, atol=1e-5)
        assert torch.equal(labels, same)
        assert images.stride() == plain.stride()
        assert all(-1e-5 <= low < 0.1 and 0.9 < high <= 1 + 1e-5 for low, high in spans)


def test_pictures_in_0_to_1_need_say_nothing() -> None:
    data = Of(lambda index: (Image.fromarray(np.full((8, 8, 3), index * 4, np.uint8)), index % 2))
    loader = opened(Resident, data, augment=RandAugment())
    images, labels = next(loader.steps(0))
    assert images.min() >= 0
    assert images.max() <= 1
    assert labels.dtype == torch.int64


def failing(images: torch.Tensor, labels: torch.Tensor, chance: Chance) -> Any:
    raise ZeroDivisionError("on purpose")


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "rows": (Of(lambda index: (np.zeros(4), index % 2), num_classes=2), {}, r"Of has \(4,\) float32, \(\) int64; type loader.augment=null"),
    "boxes": (Of(lambda index: (torch.zeros(3, 8, 8), {"boxes": torch.zeros(2, 4)})), {}, r"Of has \(3, 8, 8\) float32, a dict; type"),
    "text": (Of(lambda index: (torch.zeros(9, dtype=torch.int64),) * 2), {}, r"Of has \(9,\) int64, \(9,\) int64; type"),
    "bytes": (Of(lambda index: (torch.zeros(3, 8, 8, dtype=torch.uint8), 1)), {}, r"Of has \(3, 8, 8\) uint8, \(\) int64; type"),
    "no classes": (Of(Pictures().__getitem__, mean=MEAN, std=STD), {}, "give it an attribute num_classes"),
    "no colours": (Of(Pictures().__getitem__, num_classes=3), {}, "says neither mean nor std; give it attributes mean and std"),
    "other colours": (Of(Pictures().__getitem__, num_classes=3, mean=MEAN, std=(1, 1, 1)), {}, "says another mean and std than it"),
    "half": (Of(Pictures().__getitem__, num_classes=3, mean=MEAN), {}, r"\.mean and \.std are not 3 number\(s\) each"),
    "odd": (Pictures(), {"batch_size": 6, "accumulate": 2}, "train.batch_size=6 makes some of 3; type train.batch_size=8"),
    "large": (Pictures(), {"augment": Crop(12)}, "pad=12: images of 12x12 reflect 11 pixels; type pad=11"),
    "user": (Pictures(), {"augment": [Flip(), failing]}, r"loader.augment \(Flip, function\) failed: ZeroDivisionError: on purpose"),
    "no call": (Pictures(), {"augment": {"mixup": 0.2}}, "type calls of classes"),
}  # fmt: skip


@pytest.mark.parametrize("kind", [Resident, Workers])
@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_one_line_before_anything_is_trained(kind: Any, name: str) -> None:
    data, asked, says = REFUSED[name]
    with pytest.raises(ValueError, match=says) as refused:
        opened(kind, data, **asked)
    assert str(refused.value).startswith("loader.augment")
    assert "\n" not in str(refused.value)


def test_pairs_alone_need_no_colours_and_flips_no_pairs() -> None:
    data = Of(Pictures().__getitem__, num_classes=3)
    assert next(opened(Resident, data, augment=Mix()).steps(0))[1].shape == (8, 3)
    assert next(opened(Resident, data, augment=[Flip(), Cutout(4)], batch_size=7).steps(0))[1].shape == (7,)

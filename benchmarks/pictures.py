"""A folder of pictures, and the data set that most people write for one. In a file of its own, so that worker processes can import it."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset


class Pictures(Dataset):
    """Decoded, cut out at random and mirrored at random: what most people do to pictures."""

    def __init__(self, folder: str, cut: int) -> None:
        self.paths, self.cut = sorted(Path(folder).iterdir()), cut

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.paths[index]) as image:
            left, top = (random.randint(0, side - self.cut) for side in image.size)
            image = image.crop((left, top, left + self.cut, top + self.cut))
            if random.random() < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            pixels = np.asarray(image, np.float32)
        return torch.from_numpy(pixels).div_(255).permute(2, 0, 1).contiguous(), index % 10


class Planted(Dataset):
    """The same, with draws that hang on the sample."""

    def __init__(self, data: Pictures) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        random.seed(index)
        np.random.seed(index)
        torch.default_generator.manual_seed(index)
        return self.data[index]


def draw(folder: Path, kind: str, count: int, size: int) -> None:
    """Smooth noise, as photographs are: JPEG and PNG make of it what they make of those."""
    generator = np.random.default_rng(0)
    for number in range(count):
        small = generator.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        image = Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)
        noisy = np.asarray(image, np.int16) + generator.integers(-6, 7, (size, size, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05}.{kind}", quality=90)

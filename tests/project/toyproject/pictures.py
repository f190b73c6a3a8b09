"""A folder of pictures, LABEL_NUMBER.png, read when they are needed and changed at random: what people have."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image


class Pictures(torch.utils.data.Dataset):
    def __init__(self, folder: str) -> None:
        self.paths = sorted(Path(folder).glob("*.png"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.paths[index]) as image:
            if random.random() < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            left, top = np.random.randint(0, 5, 2)
            pixels = np.asarray(image.crop((left, top, left + 16, top + 16)), np.float32) / 255
        return torch.from_numpy(pixels).permute(2, 0, 1) + 0.1 * torch.randn(1), int(self.paths[index].name.split("_")[0])

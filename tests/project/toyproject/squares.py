"""What a newcomer writes: numbers, and their squares to be found. Some nobody knows: NaN."""

from __future__ import annotations

import numpy as np


class Squares:
    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        x = np.random.default_rng(index).uniform(-1, 1, 4)
        return x, np.where(x > 0.9, np.nan, x**2)

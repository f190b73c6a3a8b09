"""y = A x: rows x that are drawn, and their products with a matrix that is drawn too, which a linear model can find again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data.numbers.rows import RowSource
from data.options import one_of, share, whole
from data.sampling.order import PRODUCT, stratified, words

if TYPE_CHECKING:
    import torch


class Product:
    def __init__(
        self, inputs: int = 16, outputs: int = 8, samples: int = 1250, validation: float = 0.1, test: float = 0.1, seed: int = 0
    ) -> None:
        """A is (outputs, inputs), with numbers from -1 to 1; those of x have deviation 1. `validation`, `test`: shares that are held out;
        `seed` decides A, x and which. Raises ValueError naming the option."""
        for key, value in (("inputs", inputs), ("outputs", outputs), ("samples", samples)):
            whole(f"data.{key}", value, 1)
        share("data.validation", validation)
        share("data.test", test, beside=validation)
        whole("data.seed", seed, 0)
        self.in_features, self.out_features = inputs, outputs
        self._samples, self._held_out, self._seed = samples, (validation, test), seed

    @property
    def matrix(self) -> NDArray[np.float64]:
        """A, which is to be found."""
        return _drawn(self._seed, 0, self.out_features, self.in_features)

    @property
    def preprocessing(self) -> dict[str, object]:
        return {"kind": "array", "shape": [self.in_features], "mean": None, "std": None, "fill": None}

    def part(self, split: str, device: torch.device | str) -> RowSource | None:
        import torch

        one_of("split", split, ("train", "val", "test"))
        val, test, train = stratified(np.zeros(self._samples, np.int64), self._held_out, self._seed)
        places = {"train": train, "val": val, "test": test}[split]
        x = _drawn(self._seed, 1, self._samples, self.in_features) * np.sqrt(3)
        rows, products = (torch.from_numpy(each.astype(np.float32)).to(device) for each in (x, x @ self.matrix.T))
        none = [0.0] * self.in_features, [1.0] * self.in_features
        return RowSource(rows, products, places, *none) if len(places) else None


def _drawn(seed: int, which: int, rows: int, columns: int) -> NDArray[np.float64]:
    """From -1 to 1, evenly: a function of its arguments under every NumPy."""
    drawn = (words(rows * columns, PRODUCT, seed, which) >> np.uint64(11)).astype(np.float64)
    return (drawn * 2.0**-52 - 1.0).reshape(rows, columns)

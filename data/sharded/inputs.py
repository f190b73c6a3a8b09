"""What a model is given of a row: a picture, or numbers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from data.vision.picture import Picture


class Inputs:
    """Of the columns of a row."""

    def __init__(self, columns: Sequence[str], picture: Picture) -> None:
        """Raises ValueError naming the option."""
        if not columns or len(set(columns)) < len(columns):
            raise ValueError(
                f"data.columns={list(columns)}: not possible; type the names of one column with pictures, or of some with numbers"
            )
        self.columns, self.picture = tuple(columns), picture

    def of(self, values: Sequence[Any]) -> torch.Tensor:
        """`values`: of each column bytes of a picture, a number, or a list of numbers. (3, size, size) float32, standardised; or the
        numbers (…) float32, those of several columns one behind the other. Raises ValueError, in a few words."""
        import torch

        if isinstance(values[0], bytes):
            if len(values) > 1:
                raise ValueError(
                    f"has a picture in {self.columns[0]}, which goes with no other column: type data.columns=[{self.columns[0]}]"
                )
            return self.picture.of(io.BytesIO(values[0]))
        numbers = [_numbers(name, value) for name, value in zip(self.columns, values, strict=True)]
        return torch.from_numpy(numbers[0] if len(numbers) == 1 and numbers[0].ndim else np.concatenate([each.ravel() for each in numbers]))

    def preprocessing(self, made: torch.Tensor) -> dict[str, object]:
        """How a model is given a row, as an export says it (docs/after-training.md). `made`: what `of` made of one."""
        if len(self.columns) == 1 and made.shape == (3, self.picture.size, self.picture.size):
            return self.picture.preprocessing
        return {"kind": "array", "shape": [*made.shape], "mean": None, "std": None, "fill": None}


def _numbers(name: str, value: Any) -> np.ndarray:
    """Raises ValueError."""
    try:
        found = np.asarray(value)
        if found.dtype.kind not in "iufb":
            raise ValueError
        found = found.astype(np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"has {value!r:.40} in {name}, which is neither a picture nor numbers") from error
    if not found.size:
        raise ValueError(f"has no number in {name}")
    if not np.isfinite(found).all():
        raise ValueError(f"has a number in {name} that is not finite")
    return found

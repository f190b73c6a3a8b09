"""One part of every sample: from what a data set returns to a tensor, and from the tensor of all to that of a batch."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np
import torch

from data.store.files import first_line
from data.vision.fitted import rgb

_WIDER = {"uint16": np.int32, "uint32": np.int64, "float64": np.float32}
"""NumPy's types that a model has no use for; float64 is what NumPy makes of everything unless it is told otherwise."""


class Leaf(NamedTuple):
    values: torch.Tensor
    """Of some samples, or all that there are, (samples, …)."""
    is_image: bool
    """uint8 (samples, height, width, channels), a quarter of the floats that it becomes."""

    def batch(self, places: torch.Tensor) -> torch.Tensor:
        """(b, …) of them, for a model."""
        return Leaf(self.values.index_select(0, places), self.is_image).whole()

    def whole(self) -> torch.Tensor:
        """All of them; of images float32 (b, channels, height, width) in 0..1, in channels_last memory."""
        return self.values.to(torch.float32).div_(255).permute(0, 3, 1, 2) if self.is_image else self.values


def leaf_of(value: Any) -> tuple[torch.Tensor, bool]:
    """The tensor of one sample's part, and whether it is an image.

    A whole number becomes int64, a fraction float32; an array keeps its type but float64; a tensor is as it is; an image of Pillow's is
    uint8 (height, width, channels). Arrays of other packages (CuPy, JAX) come by DLPack (https://dmlc.github.io/dlpack), from whatever
    device, and are taken as NumPy's are. Raises ValueError that says what it is instead.
    """
    if isinstance(value, torch.Tensor):
        return value.detach(), False
    if isinstance(value, bool | int):
        return torch.tensor(value), False
    if isinstance(value, float):
        return torch.tensor(float(value), dtype=torch.float32), False
    if isinstance(value, np.ndarray | np.generic):
        return _of_array(np.asarray(value)), False
    pillow = sys.modules.get("PIL.Image")  # who returns an image of Pillow's has imported it
    if pillow is not None and isinstance(value, pillow.Image):
        array = np.asarray(value if value.mode in ("L", "RGB", "RGBA") else rgb(value), np.uint8)
        return torch.from_numpy(np.array(array.reshape(*array.shape[:2], -1))), True
    if hasattr(value, "__dlpack__"):
        return _of_array(_by_dlpack(value)), False
    raise ValueError(f"{value!r:.40} ({type(value).__name__})" if isinstance(value, str | bytes) else f"a {type(value).__name__}")


def _of_array(array: np.ndarray) -> torch.Tensor:
    if array.dtype.kind not in "biuf":
        raise ValueError(f"an array of {array.dtype}")
    kind = np.int64 if array.ndim == 0 and array.dtype.kind in "iu" else _WIDER.get(array.dtype.name, array.dtype)
    return torch.from_numpy(np.array(array, kind))


def _by_dlpack(value: Any) -> np.ndarray:
    try:
        return torch.from_dlpack(value).cpu().numpy()
    except (BufferError, RuntimeError, TypeError, ValueError, AssertionError) as error:  # a type, or a device, that torch here has not
        raise ValueError(f"a {type(value).__name__}, of which DLPack gives nothing ({first_line(error)})") from error

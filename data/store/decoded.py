"""Images decoded once: what data/store/cache.py keeps of a data set of images.

Its arrays, of each split:

    train.images  train.labels    uint8 (n, height, width, channels); int64 (n,)
    train.sums    train.squares   int64 (n, channels): per image, so that the statistics of any part are exact
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.store import cache as kept
from data.store.corrupt import Corrupt
from data.store.duplicates import Duplicates

FIELDS: dict[str, type[np.generic]] = {"images": np.uint8, "labels": np.int64, "sums": np.int64, "squares": np.int64}

Chunks = Iterable[tuple[NDArray[np.uint8], NDArray[np.int64]]]
"""Images (b, height, width, channels) and labels (b,), some at a time, so that decoding needs little memory."""


class Split(NamedTuple):
    """One file of a dataset, mapped into memory. Nobody may write to it: pages are shared."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    sums: NDArray[np.int64]
    squares: NDArray[np.int64]

    def statistics(self, part: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and (population) standard deviation per channel over the images `part`, in pixel units 0..255.

        The sums are integers, so that the result is the correctly rounded one whatever the order of `part`. A constant
        channel has 1 as its deviation: it is then only shifted.
        """
        count = len(part) * self.images.shape[1] * self.images.shape[2]
        total = [int(value) for value in self.sums[part].sum(axis=0)]
        squares = [int(value) for value in self.squares[part].sum(axis=0)]
        mean = np.array([value / count for value in total])
        spread = [(count * square - value * value) / count**2 for value, square in zip(total, squares, strict=True)]
        return mean, np.sqrt(np.array([value or 1.0 for value in spread]))


def stretched(mode: str, size: Sequence[int], mean: NDArray[np.float64], std: NDArray[np.float64]) -> dict[str, object]:
    """How a model of such images is given one, as an export says it (docs/after-training.md): brought to their size, (height,
    width). `mode`: Pillow's; `mean`, `std`: as `statistics` has them."""
    return {
        "kind": "image",
        "mode": mode,
        "size": list(size),
        "fit": "stretch",
        "mean": (mean / 255).tolist(),
        "std": (std / 255).tolist(),
    }


def open_or_build(
    cache: Path,
    name: str,
    fingerprint: str,
    sources: Callable[[], Mapping[str, Chunks]],
    corrupt: Corrupt,
    known: str | None = None,
    duplicates: Duplicates | None = None,
) -> dict[str, Split]:
    """The splits of the dataset `name` with `fingerprint`; built from `sources()` where they are not in `cache` yet.

    Raises what `sources` and its chunks raise, and what data/store/cache.py does. `corrupt` learns what was left out when it was built, and
    raises where that was too much; `duplicates` learns it too, and is None where all are kept. `known`: the checksum of the manifest that
    these data have.
    """

    def decode(_: int, arrays: kept.Arrays) -> dict[str, object]:
        parts = sources()
        for split, chunks in parts.items():
            _write(arrays, split, chunks if duplicates is None else duplicates.without(split, chunks))
        more = {} if duplicates is None else {"duplicates": duplicates.found}
        return {
            "splits": list(parts),
            "corrupt": corrupt.found,
            **more,
            **({"unlabelled": corrupt.unlabelled} if corrupt.unlabelled else {}),
        }

    doing = f"decoding {name} into {cache}"
    ((manifest, arrays),) = kept.open_or_build(cache, [name], fingerprint, FIELDS, decode, doing, known)
    corrupt.accept(manifest["corrupt"])
    corrupt.unlabelled = manifest.get("unlabelled", 0)
    if duplicates is not None:
        duplicates.accept(manifest["duplicates"])
    return {split: Split(*(arrays[f"{split}.{field}"] for field in FIELDS)) for split in manifest["splits"]}


def _write(arrays: kept.Arrays, split: str, chunks: Chunks) -> None:
    """The four arrays of one split, as they come."""
    samples = 0
    for images, labels in chunks:
        # float64 holds these sums exactly (up to 2^53), and is four times faster here than int64.
        pixels = images.reshape(len(images), -1, images.shape[-1]).astype(np.float64)
        sums, squares = np.einsum("bpc->bc", pixels), np.einsum("bpc,bpc->bc", pixels, pixels)
        for field, array in zip(FIELDS, (images, labels, sums, squares), strict=True):
            arrays.append(f"{split}.{field}", array)
        samples += len(images)
    if not samples:
        raise ValueError(f"the {split} part holds no samples; point data.root at a complete copy")

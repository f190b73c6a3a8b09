"""Rows of numbers and what is to be found of each, on a device: read once, shared out by seed, standardised by the training part alone.

A data set is a class that inherits `Rows`, has a constructor of its own and reads its rows (data/table.py, arrays.py, bundled.py). What was
read lies in the cache and is mapped from there by all processes of a node; `manifest.json` there has the names of the columns, the classes,
and by how much each column is shifted and divided, so that a trained model can be used on other rows.
"""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.numbers.targets import Targets
from data.options import cache_of, one_of, share, whole
from data.sampling import memory
from data.sampling.order import stratified
from data.store import cache as kept
from data.store.files import notice

if TYPE_CHECKING:
    import torch

TYPES: dict[str, type[np.generic]] = {
    **dict.fromkeys(("features", "numbers"), np.float32),
    **dict.fromkeys(("labels", "train", "val", "test"), np.int64),
}
_SPLITS = ("val", "test", "train")
_AT_ONCE = 1 << 14
"""Rows."""


class Read(NamedTuple):
    features: NDArray[Any]
    """(n, columns, …), of any type of numbers."""
    targets: Targets
    columns: Sequence[str]
    """Names, or none."""
    kinds: Sequence[str | None] | None = None
    """Of each column the text for which it is 1, and 0 for others, `column=text` by name; those without are standardised. None: all are."""
    fill: bool = False
    """Whether a NaN is to be the mean of its column."""


class Rows(ABC):
    def __init__(
        self, name: str, cache: str | None, validation: float, test: float, seed: int, standardise: bool, fingerprint: str | None
    ) -> None:
        """`name`: in the cache. `cache`: default $LAUNCHER_CACHE or ~/.cache/launcher. `validation`, `test`: shares that are held out, of
        each class alike; `seed` decides which. `standardise`: each column to mean 0 and deviation 1 in the training part. `fingerprint`:
        refuse other rows. Raises ValueError naming the option."""
        share("data.validation", validation)
        share("data.test", test, beside=validation)
        whole("data.seed", seed, 0)
        self.cache, self.fingerprint = cache_of(cache), fingerprint
        self._name, self._held_out, self._seed, self._standardise = name, (validation, test), seed, standardise
        self._kept: kept.Kept | None = None
        self._on_device: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    # ------------------------------------------------------------ what each has of its own

    @abstractmethod
    def _read(self) -> Read:
        """Raises ValueError, OSError."""

    @abstractmethod
    def _identity(self) -> list[Any]:
        """What decides what `_read` returns: checksums, options. Raises ValueError, OSError."""

    def _mapped(self) -> NDArray[Any] | None:
        """Features that lie in a file of their own, of which the cache has no copy."""
        return None

    def _pinned(self) -> dict[str, object]:
        """Keywords beside the fingerprint."""
        return {}

    # ------------------------------------------------------------ what a data set says

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self._opened().manifest["classes"] or ())

    @property
    def num_classes(self) -> int | None:
        return len(self.class_names) or None

    @property
    def in_features(self) -> int:
        return math.prod(self._opened().manifest["shape"])

    @property
    def channels(self) -> int | None:
        """Of rows that are images (channels, height, width)."""
        shape = self._opened().manifest["shape"]
        return shape[0] if len(shape) == 3 else None

    @property
    def out_features(self) -> int | None:
        arrays = self._opened().arrays
        return arrays["numbers"].shape[1] if "numbers" in arrays else None

    @property
    def statistics(self) -> Mapping[str, tuple[float, float]]:
        """Of each column, what is taken away and what then divides it."""
        told = self._opened().manifest
        return {name: (mean, std) for name, mean, std in zip(told["columns"], told["mean"], told["std"], strict=True)}

    @property
    def preprocessing(self) -> dict[str, object]:
        """How a row becomes what a model is given, as an export says it (docs/after-training.md)."""
        told = self._opened().manifest
        mean, std, fill = told["mean"], told["std"], told["fill"]
        if len(told["shape"]) > 1 or not told.get("is_named", True):
            return {"kind": "array", "shape": [*told["shape"]], "mean": mean, "std": std, "fill": fill}
        names: list[str] = told["columns"]
        kinds: list[str | None] = told.get("kinds") or [name.partition("=")[2] or None for name in names]  # a cache of an older launcher
        columns = [
            {"column": name if kind is None else name.removesuffix(f"={kind}"), "equals": kind, "mean": mean[at], "std": std[at]}
            for at, (name, kind) in enumerate(zip(names, kinds, strict=True))
        ]
        return {"kind": "table", "columns": [{**each, "fill": fill and fill[at]} for at, each in enumerate(columns)]}

    def prepare(self) -> dict[str, object]:
        """Read the rows into the cache, and return the keywords that pin them. Raises ValueError, FileNotFoundError for what is wrong with
        them; OSError, with its errno, where the cache cannot be written."""
        found = self._fingerprint()
        self._refuse_other(found)
        self.fingerprint = found
        told = self._opened().manifest
        names: list[str] = told["classes"] or []
        what = f"{len(names)} classes ({', '.join(names[:8])}{', …' if len(names) > 8 else ''})" if names else "numbers"
        notice(f"data: {told['rows']:,} rows of {self.in_features:,} numbers; to be found: {what}")
        return {**self._pinned(), "fingerprint": found}

    def part(self, split: str, device: torch.device | str) -> RowSource | None:
        """train, val or test; None where there is no row of it."""
        import torch

        one_of("split", split, _SPLITS)
        place = torch.device(device)
        opened = self._opened()
        if not len(opened.arrays[split]):
            return None
        if str(place) not in self._on_device:
            features, targets = self._arrays()
            if place.type != "cpu":
                memory.check(len(features), features[:1].nbytes + targets[:1].nbytes, place)
            self._on_device[str(place)] = torch.from_numpy(features).to(place), torch.from_numpy(targets).to(place)
        told = opened.manifest
        return RowSource(*self._on_device[str(place)], opened.arrays[split], told["mean"], told["std"], told["fill"])

    # ------------------------------------------------------------ the cache

    def _arrays(self) -> tuple[NDArray[Any], NDArray[Any]]:
        arrays = self._opened().arrays
        mapped = self._mapped()
        return arrays["features"] if mapped is None else mapped, arrays["labels"] if "labels" in arrays else arrays["numbers"]

    def _opened(self) -> kept.Kept:
        if self._kept is None:
            fingerprint = self.fingerprint or self._fingerprint()
            doing = f"reading {self._name} into {self.cache}"
            (self._kept,) = kept.open_or_build(self.cache, [self._name], fingerprint, TYPES, self._build, doing)
        return self._kept

    def _build(self, _: int, arrays: kept.Arrays) -> Mapping[str, object]:
        self._refuse_other(self._fingerprint())  # a node with a cache of its own comes here with what is there now
        read = self._read()
        labels = read.targets.values if read.targets.classes else np.zeros(len(read.features), np.int64)
        parts = dict(zip(_SPLITS, stratified(labels, self._held_out, self._seed), strict=True))
        if not len(parts["train"]):
            raise ValueError(
                f"data: {len(read.features)} rows are too few to share out; give it more, or type data.validation=0 data.test=0"
            )
        mean, std = statistics(read.features, np.sort(parts["train"]))
        is_shifted = self._standardise & np.array([kind is None for kind in read.kinds or [None] * len(mean)])
        if self._mapped() is None:
            arrays.append("features", read.features)
        arrays.append("labels" if read.targets.classes else "numbers", read.targets.values)
        for split, places in parts.items():
            arrays.append(split, places)
        return {
            "rows": len(read.features),
            "shape": read.features.shape[1:],
            "kinds": None if read.kinds is None else list(read.kinds),
            "is_named": bool(read.columns),
            "columns": list(read.columns) or [str(number) for number in range(len(mean))],
            "mean": np.where(is_shifted, mean, 0.0).tolist(),
            "std": np.where(is_shifted, std, 1.0).tolist(),
            "fill": mean.tolist() if read.fill else None,
            "classes": read.targets.classes,
        }

    def _fingerprint(self) -> str:
        own = [self._name, *self._identity(), *self._held_out, self._seed, self._standardise]
        return hashlib.sha256(json.dumps(own).encode()).hexdigest()

    def _refuse_other(self, found: str) -> None:
        if self.fingerprint not in (None, found):
            raise ValueError(
                f"data.fingerprint={str(self.fingerprint)[:16]}…: {self._name} has other rows now ({found[:16]}…), or is read in another "
                "way; put back what the run began with, or start a new run with data.fingerprint=null"
            )


class RowSource:
    """A part, as a loader technique asks for it (data/loader.py): the same in every epoch."""

    def __init__(
        self,
        features: torch.Tensor,
        targets: torch.Tensor,
        places: NDArray[np.int64],
        mean: Sequence[float],
        std: Sequence[float],
        fill: Sequence[float] | None = None,
    ) -> None:
        """`features` (n, columns, …), `targets` (n, …); `mean`, `std` and `fill`, what a NaN becomes, of each column."""
        self.places = np.asarray(places)
        self._features, self._targets = features, targets
        self._mean, self._scale = self._of_columns(mean), self._of_columns([1 / each for each in std])
        self._fill = None if fill is None else self._of_columns(fill)

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """None where numbers are to be found."""
        return None if self._targets.is_floating_point() else self._targets.cpu().numpy()[self.places]

    def _of_columns(self, values: Sequence[float]) -> torch.Tensor:
        import torch

        return torch.tensor(values, dtype=torch.float32, device=self._features.device).view(-1, *[1] * (self._features.ndim - 2))

    def batch(self, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """float32 (b, columns, …), and int64 (b,) or float32 (b, numbers). What a row becomes does not depend on the batch around it."""
        rows = self._features.index_select(0, places).float()
        if self._fill is not None:
            rows = rows.where(~rows.isnan(), self._fill)
        return rows.sub_(self._mean).mul_(self._scale), self._targets.index_select(0, places)

    def epoch(self, seed: int, epoch: int) -> Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
        return self.batch


def statistics(features: NDArray[Any], places: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and (population) deviation of each column over the rows `places`, in two passes, without NaN. One that is constant there has 1
    as its deviation: it is then only shifted."""
    axes = (0, *range(2, features.ndim))
    pieces = [places[begin : begin + _AT_ONCE] for begin in range(0, len(places), _AT_ONCE)]
    total = count = np.zeros(features.shape[1])
    for piece in pieces:
        rows = np.asarray(features[piece], np.float64)
        total, count = total + np.nansum(rows, axes), count + np.sum(~np.isnan(rows), axes)
    mean = total / np.maximum(count, 1)
    squares = np.zeros_like(mean)
    for piece in pieces:
        rows = np.asarray(features[piece], np.float64) - mean.reshape(-1, *[1] * (features.ndim - 2))
        squares = squares + np.nansum(rows * rows, axes)
    std = np.sqrt(squares / np.maximum(count, 1))
    return mean, np.where(std > 0, std, 1.0)

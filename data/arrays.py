"""Arrays in NumPy's files: features and targets of two .npy, which are mapped into memory, or of one .npz, which is read."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.numbers import targets as wanted
from data.numbers.rows import Read, Rows
from data.options import one_of
from data.store.files import first_line, sha256_file

_FEW_OPERATIONS = ("uint16", "uint32", "uint64")
"""Types that torch can do little with."""


class Arrays(Rows):
    def __init__(
        self,
        features: str | None = None,
        targets: str | None = None,
        kind: str = "auto",
        validation: float = 0.1,
        test: float = 0.1,
        seed: int = 0,
        standardise: bool = True,
        cache: str | None = None,
        fingerprint: str | None = None,
    ) -> None:
        """`features`: (n, columns, …), of which the second axis is standardised; `targets`: (n,) or (n, numbers). Each: path of a .npy,
        or of a .npz and in it the array of that name; without `targets` both are in one .npz. `kind`: auto, classes or number. The others
        are those of `Rows`. Raises ValueError naming the option."""
        one_of("data.kind", kind, wanted.KINDS)
        if features is None:
            raise ValueError("data.features is null: no array; type data.features=/path/to/a.npy data.targets=/path/to/b.npy, or one .npz")
        if targets is None and not features.endswith(".npz"):
            raise ValueError(f"data.targets is null: {features} has the features alone; type data.targets=/path/to/a.npy")
        super().__init__("arrays", cache, validation, test, seed, standardise, fingerprint)
        self._paths = {"features": _whole(features), "targets": _whole(targets or features)}
        self._kind, self._are_two = kind, targets is not None
        self._loaded: dict[str, NDArray[Any]] = {}

    def _pinned(self) -> dict[str, object]:
        return {"features": str(self._paths["features"]), "targets": str(self._paths["targets"]) if self._are_two else None}

    def _identity(self) -> list[Any]:
        for key, path in self._paths.items():
            if not path.is_file():
                raise FileNotFoundError(f"data.{key}={path}: there is no such file; type that of a .npy or a .npz")
        return [*(sha256_file(path) for path in self._paths.values()), self._kind]

    def _mapped(self) -> NDArray[Any] | None:
        return None if self._paths["features"].suffix == ".npz" else self._array("features")

    def _read(self) -> Read:
        features, found = self._array("features"), self._array("targets")
        if len(features) != len(found):
            raise ValueError(f"data.targets: there are {len(found):,} for {len(features):,} rows of features; name arrays of one length")
        if not features.size:
            what = "columns" if len(features) else "rows"
            raise ValueError(f"data.features={self._paths['features']}: it has no {what}; name an array that has some")
        for key, array in (("features", features), ("targets", found)):
            if array.dtype.kind == "f" and (bad := _first_not_finite(array)) is not None:
                raise ValueError(f"data.{key}={self._paths[key]}: row {bad} has a number that is not finite; leave it out of the file")
        return Read(features, wanted.of(np.asarray(found), self._kind, f"data.targets={self._paths['targets']}"), ())

    def _array(self, key: str) -> NDArray[Any]:
        """(n, …); of features (n, columns, …). Raises ValueError where there is no array of numbers."""
        if key not in self._loaded:
            opened, path = self._opened_file(key, self._paths[key]), self._paths[key]
            is_text = key == "targets" and opened.dtype.kind == "U"
            if opened.ndim < 1 or (opened.dtype.kind not in "biuf" and not is_text):
                raise ValueError(f"data.{key}={path}: it has {opened.dtype} {opened.shape}, not numbers of rows; write it with numpy.save")
            if opened.dtype.name in _FEW_OPERATIONS or not opened.dtype.isnative:
                opened = opened.astype(np.str_ if is_text else np.float32 if key == "features" else np.float64)
            self._loaded[key] = opened[:, None] if key == "features" and opened.ndim == 1 else opened
        return self._loaded[key]

    @staticmethod
    def _opened_file(key: str, path: Path) -> NDArray[Any]:
        try:
            # Nothing in either is run: no pickle.
            if path.suffix != ".npz":
                # "c" (copy on write) shares pages as "r" does; but torch warns of memory that may not be written to.
                return np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))
            with path.open("rb") as file, np.load(file, allow_pickle=False) as opened:
                if key not in opened.files:
                    raise ValueError(f"it has {', '.join(opened.files) or 'nothing'} and no {key}")
                return opened[key]
        except (ValueError, EOFError, KeyError, OverflowError, MemoryError, zipfile.BadZipFile) as error:
            why = "it holds Python's objects" if re.search("pickle|Python objects", str(error)) else first_line(error)
            raise ValueError(f"data.{key}={path}: is no array of numbers ({why}); write it with numpy.save") from error


def _whole(path: str) -> Path:
    return Path(path).expanduser().absolute()


def _first_not_finite(array: NDArray[Any], at_once: int = 1 << 14) -> int | None:
    for begin in range(0, len(array), at_once):
        is_bad = ~np.isfinite(array[begin : begin + at_once]).reshape(min(at_once, len(array) - begin), -1).all(1)
        if is_bad.any():
            return begin + int(is_bad.argmax())
    return None

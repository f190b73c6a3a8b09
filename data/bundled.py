"""The small tables that scikit-learn brings: no file, no network. Its digits are images (data/digits.py)."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from data.digits import INSTALL
from data.numbers import targets
from data.numbers.rows import Read, Rows
from data.options import one_of

NAMES = ("breast_cancer", "diabetes", "iris", "wine")


class Bundled(Rows):
    def __init__(
        self,
        name: str = "iris",
        validation: float = 0.1,
        test: float = 0.2,
        seed: int = 0,
        standardise: bool = True,
        cache: str | None = None,
        fingerprint: str | None = None,
    ) -> None:
        """`name`: one of NAMES; to be found are classes, of diabetes a number. The others are those of `Rows`. Raises ValueError naming the
        option."""
        one_of("data.name", name, NAMES)
        super().__init__(name, cache, validation, test, seed, standardise, fingerprint)
        self._loaded: Any = None

    def _identity(self) -> list[Any]:
        read = self._read()
        return [hashlib.sha256(np.ascontiguousarray(each).tobytes()).hexdigest() for each in (read.features, read.targets.values)]

    def _read(self) -> Read:
        if self._loaded is None:
            try:
                from sklearn import datasets  # pyright: ignore[reportMissingImports]  # an extra
            except ImportError as error:
                raise ValueError(f"data=sklearn: the tables come with scikit-learn, which is not installed; {INSTALL}") from error
            # Of diabetes the numbers as they were measured: what is standardised over all rows has seen those that are held out.
            self._loaded = getattr(datasets, f"load_{self._name}")(**({"scaled": False} if self._name == "diabetes" else {}))
        features, values, names = self._loaded.data.astype(np.float32), self._loaded.target, getattr(self._loaded, "target_names", None)
        found = targets.of(
            values if names is None else np.asarray(names, np.str_)[values], "number" if names is None else "classes", "data.name"
        )
        return Read(features, found, [str(name) for name in self._loaded.feature_names])

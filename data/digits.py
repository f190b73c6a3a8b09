"""scikit-learn's digits: 1,797 handwritten digits of 8x8 pixels, the test part of UCI's Optical Recognition of Handwritten Digits (Alpaydin
and Kaynak, 1998, https://doi.org/10.24432/C50P49). They come with the package: no file, no network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.options import cache_of, one_of, share, whole
from data.sampling.order import stratified
from data.store.corrupt import Corrupt
from data.store.decoded import Chunks, Split, open_or_build, stretched

if TYPE_CHECKING:
    import torch

    from data.vision.images import ImageSource

SIZE, LEVELS = 8, 16
INSTALL = "pip install scikit-learn"


class Digits:
    """Each class is shared out alike among the parts, by seed. They lie in the cache as images do that were decoded, so that a process that
    trains imports no scikit-learn."""

    class_names = tuple("0123456789")
    num_classes, channels, in_features = len(class_names), 1, SIZE * SIZE

    def __init__(
        self,
        cache: str | None = None,
        validation: float = 0.1,
        test: float = 0.2,
        seed: int = 0,
        pad: int = 0,
        fingerprint: str | None = None,
    ) -> None:
        """`cache`: where they are kept; default $LAUNCHER_CACHE or ~/.cache/launcher. `validation`, `test`: shares that are held out;
        `seed` decides which. `pad`: largest crop shift in pixels. `fingerprint`: refuse other data. Raises ValueError naming the option."""
        share("data.validation", validation)
        share("data.test", test, beside=validation)
        whole("data.seed", seed, 0)
        whole("data.pad", pad, 0, SIZE - 1)
        self.cache, self.seed, self.pad, self.fingerprint = cache_of(cache), seed, pad, fingerprint
        self._held_out = (validation, test)
        self._made: Split | None = None

    @property
    def preprocessing(self) -> dict[str, object]:
        return stretched("L", (SIZE, SIZE), *self._open().statistics(self._parts()["train"]))

    def prepare(self) -> dict[str, object]:
        """Raises ValueError where scikit-learn is not installed, or has other digits than `fingerprint`; OSError, with its errno, where the
        cache cannot be written."""
        found = _fingerprint(*_read())
        if self.fingerprint not in (None, found):
            raise ValueError(
                f"data.fingerprint={str(self.fingerprint)[:16]}…: scikit-learn's digits are others here ({found[:16]}…); install the "
                "version that the run began with, or start a new run with data.fingerprint=null"
            )
        self.fingerprint = found
        self._open()
        return {"fingerprint": found}

    def part(self, split: str, device: torch.device | str) -> ImageSource | None:
        """train, val or test, None where there is no sample of it."""
        from data.vision.images import Images, ImageSource, Recipe

        one_of("split", split, ("train", "val", "test"))
        digits, parts = self._open(), self._parts()
        if not len(parts[split]):
            return None
        images = Images(digits.images, digits.labels, *digits.statistics(parts["train"]), device)
        return ImageSource(images, parts[split], Recipe(self.pad))

    def _parts(self) -> dict[str, NDArray[np.int64]]:
        val, test, train = stratified(self._open().labels, self._held_out, self.seed)
        return {"train": train, "val": val, "test": test}

    def _open(self) -> Split:
        if self._made is None:
            if self.fingerprint is None:
                self.prepare()
            assert self.fingerprint is not None
            self._made = open_or_build(self.cache, "digits", self.fingerprint, self._sources, Corrupt(0))["all"]
        return self._made

    def _sources(self) -> Mapping[str, Chunks]:
        images, labels = _read()
        return {"all": [(images, labels)]}


def _read() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (1797, 8, 8, 1), 0 to 255; labels (1797,). Raises ValueError where scikit-learn is not installed."""
    try:
        from sklearn.datasets import load_digits  # pyright: ignore[reportMissingImports]  # an extra
    except ImportError as error:
        raise ValueError(f"data=digits: the images come with scikit-learn, which is not installed; {INSTALL}") from error
    found: Any = load_digits()
    pixels = np.rint(found.data * (255 / LEVELS)).astype(np.uint8).reshape(-1, SIZE, SIZE, 1)
    return pixels, found.target.astype(np.int64)


def _fingerprint(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> str:
    return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()

"""MNIST (LeCun et al., 1998): 60,000 + 10,000 handwritten digits, 28x28 in one channel, in the Hugging Face schema (`ylecun/mnist`) or
as idx files, in gzip or not.

Looked for in `data.root`, then `$LAUNCHER_DATA/mnist`; where it is in neither, one line says how to fetch it.
"""

from __future__ import annotations

from data.vision.hf_images import HubImages, Published
from data.vision.layouts import Idx

IDX = tuple(Idx(folder, (28, 28), 10, suffix) for folder in ("MNIST/raw", "") for suffix in ("", ".gz"))
"""As torchvision keeps them, and as they are published."""
PUBLISHED = Published("MNIST", "mnist", "ylecun/mnist", "mnist", (28, 28), tuple("0123456789"), image="image", others=IDX, mode="L")


class MNIST(HubImages):
    """A mirrored digit is none: there is no flip."""

    def __init__(
        self,
        root: str | None = None,
        cache: str | None = None,
        validation: int = 2000,
        seed: int = 0,
        pad: int = 2,
        cutout: int = 0,
        train_samples: int | None = None,
        fingerprint: str | None = None,
        max_corrupt: int = 0,
        duplicates: str = "keep",
        unlabelled: str = "refuse",
    ) -> None:
        """As `HubImages` has them. Raises ValueError naming the option."""
        super().__init__(
            PUBLISHED, root, cache, validation, seed, pad, False, cutout, train_samples, fingerprint, max_corrupt, duplicates, unlabelled
        )

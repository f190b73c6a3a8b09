"""CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 colour images of 32x32 in ten classes, in the Hugging Face schema or
as its author publishes them: batches in pickles, of which none is run, or binary, in their folder or packed.

Looked for in `data.root`, then `$LAUNCHER_DATA/cifar10`, then downloaded from the hub at a pinned revision. Without a network
a drawn stand-in takes its place, so that the first command of a new user trains something; it says so, and everything that the
run writes says so too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from data.options import one_of
from data.store import hub
from data.store.decoded import Chunks
from data.store.files import notice
from data.vision import standin
from data.vision.hf_images import HubImages, Published
from data.vision.layouts import Binary, Pickles

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PICKLES = Pickles("cifar-10-batches-py", (32, 32), 10)
BINARY = Binary("cifar-10-batches-bin", (32, 32), 10, tuple(f"{name}.bin" for name in PICKLES.train), ("test_batch.bin",))
PACKED = (replace(PICKLES, archive="cifar-10-python.tar.gz"), replace(BINARY, archive="cifar-10-binary.tar.gz"))
PUBLISHED = Published(
    "CIFAR-10", "cifar10", "uoft-cs/cifar10", "plain_text", (32, 32), CLASSES, others=(PICKLES, BINARY, *PACKED), is_downloaded=True
)
REVISION = "0b2714987fa478483af9968de7c934580d0bb9a2"
FILES = PUBLISHED.files
SHA256 = {
    FILES["train"]: "8428b53a88a11ac374111006708df51469e315a22ac6d66470afd9c78d2ae883",
    FILES["test"]: "841389e6f2d64f28bf17310e430aebac20ec3ba611a3c5e231dc93c645ce84de",
}
DECODED = {
    "29adafc2c722663ca5cef0893faa30999b30520227ebec072fec8e7d771a2394": "ad7d7b4f3765b242b809a8497b093edb2033ebe6bccaba15bf65b19b7acde8be",
    standin.FINGERPRINT: "0ff3fd10078507594da6de8ea13c88e56c363adc3d43ebfa480b2bede484c836",
}
"""Fingerprint -> checksum of the manifest, of the files of REVISION and of the stand-in: by it a colleague's copy is taken."""


class CIFAR10(HubImages):
    """The data set, or the stand-in."""

    def __init__(
        self,
        root: str | None = None,
        source: str = "auto",
        offline: str = "standin",
        cache: str | None = None,
        validation: int = 2000,
        seed: int = 0,
        pad: int = 4,
        flip: bool = True,
        cutout: int = 0,
        train_samples: int | None = None,
        fingerprint: str | None = None,
        max_corrupt: int = 0,
        duplicates: str = "keep",
        unlabelled: str = "refuse",
    ) -> None:
        """`source`: auto, files (never the stand-in) or standin. `offline`: what to do where nothing is found and there is no network:
        standin or error. The others are those of `HubImages`. Raises ValueError naming the option."""
        one_of("data.source", source, ("auto", "files", "standin"))
        one_of("data.offline", offline, ("standin", "error"))
        super().__init__(
            PUBLISHED, root, cache, validation, seed, pad, flip, cutout, train_samples, fingerprint, max_corrupt, duplicates, unlabelled
        )
        self.source, self.offline = source, offline

    @property
    def standin(self) -> bool:
        """Whether this is the drawn stand-in; certain once `prepare()` has decided."""
        return self.source == "standin"

    @property
    def class_names(self) -> tuple[str, ...]:
        return standin.CLASSES if self.standin else CLASSES

    @property
    def _is_pinned(self) -> bool:
        return self.fingerprint is not None and self.source != "auto"

    def prepare(self) -> dict[str, object]:
        """As `HubImages` has it; the files are downloaded where they are not here, and the stand-in takes their place where that fails."""
        root = self._find()
        fingerprint = standin.FINGERPRINT if root is None else self._fingerprint_of(root)
        self._refuse_other(fingerprint, root)
        self.source = "standin" if root is None else "files"
        self._pin(root, fingerprint)
        if root is not None:
            self._tell_layout(root)
        return {"root": None if root is None else str(root), "source": self.source, "fingerprint": fingerprint}

    def _find(self) -> Path | None:
        if self.source != "standin":
            return super()._find()
        if self.root is not None:
            notice(f"WARNING: data.root={self.root} is ignored: data.source=standin draws its images")
        return None

    def _elsewhere(self) -> Path | None:
        try:
            return hub.download(PUBLISHED.repo, REVISION, SHA256, self.cache / f"cifar10-hub-{REVISION[:12]}")
        except ConnectionError as error:
            missing = f"CIFAR-10 is not here and cannot be downloaded ({error})"
            advice = "type data.root=/path/to/cifar10 (the directory that holds plain_text/ or cifar-10-batches-py/), or set LAUNCHER_DATA"
            if self.source == "files" or self.offline == "error":
                asked = "data.source=files" if self.source == "files" else "data.offline=error"
                raise FileNotFoundError(f"{asked}: {missing}; {advice}") from error
            notice(
                f"WARNING: {missing}: training on the built-in stand-in, 10 drawn classes. Accuracies are NOT CIFAR-10's. "
                f"For CIFAR-10, {advice}; to refuse instead, data.offline=error"
            )
            return None

    def _drawn(self) -> tuple[str, str, Mapping[str, Chunks]] | None:
        return ("standin", standin.FINGERPRINT, standin.draw()) if self.standin else None

    def _known(self) -> str | None:
        return DECODED.get(self.fingerprint or "")

"""CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 colour images of 32x32 in ten classes, in the Hugging Face schema.

Looked for in `data.root`, then `$LAUNCHER_DATA/cifar10`, then downloaded from the hub at a pinned revision. Without a network
a drawn stand-in takes its place, so that the first command of a new user trains something; it says so, and everything that the
run writes says so too.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data import hub, pages, standin
from data.corrupt import Corrupt
from data.decoded import Chunks, Split, open_or_build
from data.files import notice, sha256_file
from data.order import split
from data.parquet import read_images

if TYPE_CHECKING:
    import torch

    from data.images import Images, ImageSource

REPO, REVISION = "uoft-cs/cifar10", "0b2714987fa478483af9968de7c934580d0bb9a2"
FILES = {"train": "plain_text/train-00000-of-00001.parquet", "test": "plain_text/test-00000-of-00001.parquet"}
SHA256 = {
    FILES["train"]: "8428b53a88a11ac374111006708df51469e315a22ac6d66470afd9c78d2ae883",
    FILES["test"]: "841389e6f2d64f28bf17310e430aebac20ec3ba611a3c5e231dc93c645ce84de",
}
DECODED = {
    "29adafc2c722663ca5cef0893faa30999b30520227ebec072fec8e7d771a2394": "ad7d7b4f3765b242b809a8497b093edb2033ebe6bccaba15bf65b19b7acde8be",
    standin.FINGERPRINT: "0ff3fd10078507594da6de8ea13c88e56c363adc3d43ebfa480b2bede484c836",
}
"""Fingerprint -> checksum of the manifest, of the files of REVISION and of the stand-in: by it a colleague's copy is taken."""
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIZE = (32, 32)


class CIFAR10:
    """The data set. Construct, `prepare()` once where the user can see it, construct again with what it returns."""

    num_classes: int = 10

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
    ) -> None:
        """Check the options and touch nothing.

        `root`: directory that holds plain_text/. `source`: auto, files (never the stand-in) or standin. `offline`: what to do
        where nothing is found and there is no network: standin or error. `cache`: where decoded and downloaded data go;
        default $LAUNCHER_CACHE or ~/.cache/launcher. `validation`: samples held out of the training file; `seed`: decides
        which. `pad`: largest crop shift in pixels; `flip`; `cutout`: side of the square in pixels, 0 for none.
        `train_samples`: train on the first N of the shuffled training part only. `fingerprint`: refuse other data.
        `max_corrupt`: images or labels that cannot be read and may be left out; one more is refused.
        Raises ValueError naming the option.
        """
        _one_of("data.source", source, ("auto", "files", "standin"))
        _one_of("data.offline", offline, ("standin", "error"))
        edge = min(SIZE)
        for key, value, most in (("validation", validation, None), ("seed", seed, None), ("pad", pad, edge - 1), ("cutout", cutout, edge)):
            _whole(f"data.{key}", value, 0, most)
        _whole("data.max_corrupt", max_corrupt, 0)
        if train_samples is not None:
            _whole("data.train_samples", train_samples, 1)
        self.root = None if root is None else Path(root).expanduser().absolute()
        self.source, self.offline, self.fingerprint = source, offline, fingerprint
        self.cache = Path(cache or os.environ.get("LAUNCHER_CACHE") or "~/.cache/launcher").expanduser().absolute()
        self.validation, self.seed, self.train_samples = validation, seed, train_samples
        self.pad, self.flip, self.cutout = pad, flip, cutout
        self.corrupt = Corrupt(max_corrupt)
        self._splits: dict[str, Split] | None = None
        self._on_device: dict[tuple[str, str], Images] = {}

    @property
    def standin(self) -> bool:
        """Whether this is the drawn stand-in; certain once `prepare()` has decided."""
        return self.source == "standin"

    @property
    def class_names(self) -> tuple[str, ...]:
        return standin.CLASSES if self.standin else CLASSES

    def prepare(self) -> dict[str, object]:
        """Find or download the files, decode them into the cache, and return the keywords that pin what was found.

        Raises FileNotFoundError where the files asked for are not there; ValueError where they are torn, of another schema,
        or not those of `fingerprint`; OSError, with its errno, where the cache cannot be written.
        """
        root = self._find()
        fingerprint = standin.FINGERPRINT if root is None else _fingerprint(root)
        self._refuse_other(fingerprint, root)
        self.root, self.source, self.fingerprint = root, "standin" if root is None else "files", fingerprint
        self._open()
        self.corrupt.tell()
        return {"root": None if root is None else str(root), "source": self.source, "fingerprint": fingerprint}

    def part(self, split: str, device: torch.device | str) -> ImageSource | None:
        """train (the training part), val or test on a device, as a loader technique asks for it (data/loader.py); None where there is no
        sample of it. Raises ValueError."""
        from data.images import ImageSource, Recipe

        _one_of("split", split, ("train", "val", "test"))
        places = self._parts()[split]
        images = self._images("test" if split == "test" else "train", device)
        return ImageSource(images, places, Recipe(self.pad, self.flip, self.cutout)) if len(places) else None

    def _find(self) -> Path | None:
        """The directory that holds the files, None for the stand-in."""
        if self.source == "standin":
            if self.root is not None:
                notice(f"WARNING: data.root={self.root} is ignored: data.source=standin draws its images")
            return None
        if self.root is not None:
            return _checked(self.root, "data.root")
        shelf = os.environ.get("LAUNCHER_DATA")
        if shelf:
            root = Path(shelf).expanduser().absolute() / "cifar10"
            if (root / "plain_text").is_dir():
                return _checked(root, "LAUNCHER_DATA")
            notice(f"LAUNCHER_DATA={shelf} has no cifar10/plain_text; looking for CIFAR-10 on the Hugging Face hub")
        try:
            return hub.download(REPO, REVISION, SHA256, self.cache / f"cifar10-hub-{REVISION[:12]}")
        except ConnectionError as error:
            missing = f"CIFAR-10 is not here and cannot be downloaded ({error})"
            advice = "type data.root=/path/to/cifar10 (the directory that holds plain_text/), or set LAUNCHER_DATA"
            if self.source == "files" or self.offline == "error":
                asked = "data.source=files" if self.source == "files" else "data.offline=error"
                raise FileNotFoundError(f"{asked}: {missing}; {advice}") from error
            notice(
                f"WARNING: {missing}: training on the built-in stand-in, 10 drawn classes. Accuracies are NOT CIFAR-10's. "
                f"For CIFAR-10, {advice}; to refuse instead, data.offline=error"
            )
            return None

    def _open(self) -> dict[str, Split]:
        if self._splits is None:
            if self.fingerprint is None or self.source == "auto":
                self.prepare()
            assert self.fingerprint is not None
            name = "standin" if self.standin else "cifar10"
            self._splits = open_or_build(self.cache, name, self.fingerprint, self._sources, self.corrupt, DECODED.get(self.fingerprint))
        return self._splits

    def _sources(self) -> Mapping[str, Chunks]:
        """What the cache is built from. A node with a cache of its own comes here again, with the files as they are now."""
        if self.standin:
            self._refuse_other(standin.FINGERPRINT, None)
            return standin.draw()
        root = self._find()
        assert root is not None, "only source=auto may end at the stand-in, and prepare() has pinned the source"
        self._refuse_other(_fingerprint(root), root)
        columns = {"image": "img", "label": "label", "classes": self.num_classes, "size": SIZE, "corrupt": self.corrupt}
        parts = {part: read_images(root, name, **columns) for part, name in FILES.items()}
        return {"train": self._announced(root, parts["train"]), "test": self._unchanged(root, parts["test"])}

    def _announced(self, root: Path, chunks: Chunks) -> Chunks:
        """Say what takes so long, once it is known to go well."""
        for number, chunk in enumerate(chunks):
            if number == 0:
                notice(f"Decoding CIFAR-10 from {root} into {self.cache}, once")
            yield chunk

    def _unchanged(self, root: Path, chunks: Chunks) -> Chunks:
        """Files that are another's can be others once they are hashed."""
        yield from chunks
        self._refuse_other(_fingerprint(root), root)

    def _refuse_other(self, fingerprint: str, root: Path | None) -> None:
        if self.fingerprint not in (None, fingerprint):
            found = "the built-in stand-in" if root is None else f"the data in {root}"
            raise ValueError(
                f"data.fingerprint={str(self.fingerprint)[:16]}…: {found} is other data ({fingerprint[:16]}…); point data.root at "
                "the data the run began with, or start a new run with data.fingerprint=null"
            )

    def _parts(self) -> dict[str, Any]:
        """Sample indices of train and val (into the training file) and test (into the test file)."""
        splits = self._open()
        train, val = split(len(splits["train"].labels), self.validation, self.seed)
        if self.train_samples is not None and self.train_samples > len(train):
            raise ValueError(
                f"data.train_samples={self.train_samples}: the training part has {len(train)} samples; "
                "type a smaller number, or null for all of them"
            )
        return {"train": train[: self.train_samples], "val": val, "test": np.arange(len(splits["test"].labels))}

    def _images(self, name: str, device: torch.device | str) -> Images:
        """One of the two files on the device; training and validation part share it."""
        from data.images import Images

        key = (name, str(device))
        if key not in self._on_device:
            splits = self._open()
            mean, std = splits["train"].statistics(self._parts()["train"])
            self._on_device[key] = Images(splits[name].images, splits[name].labels, mean, std, device)
        return self._on_device[key]


def _checked(root: Path, origin: str) -> Path:
    missing = [name for name in FILES.values() if not (root / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{origin}: {root} has no {' and no '.join(missing)}; name the directory that holds plain_text/, "
            "or leave data.root out to download CIFAR-10"
        )
    return root


def _fingerprint(root: Path) -> str:
    """One sha256 for the two files as they are, which takes as long as they are large. Raises ValueError where they are no parquet."""
    for name in FILES.values():
        try:
            pages.check_footer(root / name)
        except ValueError as error:
            raise ValueError(f"data.root={root}: {name} {error}; download it again or point data.root at a good copy") from error
    return hashlib.sha256("\n".join(sha256_file(root / name) for name in FILES.values()).encode()).hexdigest()


def _one_of(key: str, value: object, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise ValueError(f"{key}={value}: not known; type one of {', '.join(valid)}")


def _whole(key: str, value: object, least: int, most: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        span = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{key}={value}: not possible; type a whole number {span}")

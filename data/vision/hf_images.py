"""A set of small labelled images, in Hugging Face's parquet or as its authors publish it: found, checked, decoded once, standardised.

A data set is a class that inherits `HubImages`, says what it is by a `Published`, and has a constructor of its own; its options are read
from that one's source. data/cifar10.py, data/cifar100.py and data/mnist.py are three.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from data.options import cache_of, one_of, whole
from data.sampling.order import split
from data.store.corrupt import Corrupt
from data.store.decoded import Chunks, Split, open_or_build, stretched
from data.store.duplicates import Duplicates
from data.store.files import notice, sha256_file
from data.vision.layouts import Layout, Parquet

if TYPE_CHECKING:
    import torch

    from data.vision.images import Images, ImageSource


class Published(NamedTuple):
    """What a set is called, and what its files hold."""

    title: str
    name: str
    """Of its directory in $LAUNCHER_DATA."""
    repo: str
    """On the Hugging Face hub."""
    folder: str
    """That of the two files, in the repository and below data.root."""
    size: tuple[int, int]
    """(height, width) in pixels."""
    classes: tuple[str, ...]
    image: str = "img"
    """The columns."""
    label: str = "label"
    mode: str = "RGB"
    """Pillow's: RGB, or L for one channel."""
    others: tuple[Layout, ...] = ()
    """How else it may lie on the disk; what is there first is taken."""
    is_downloaded: bool = False
    """Whether its class fetches what is not here."""
    kept: str = ""
    """What it is called in the cache, where that is not its name: the same files, read in another way."""

    @property
    def parquet(self) -> Parquet:
        return Parquet(self.folder, self.size, len(self.classes), self.image, self.label, self.mode)

    @property
    def layouts(self) -> tuple[Layout, ...]:
        return (self.parquet, *self.others)

    @property
    def files(self) -> dict[str, str]:
        return {part: name for part, (name,) in self.parquet.parts.items()}


class HubImages:
    """Construct, `prepare()` once where the user can see it, construct again with what it returns."""

    def __init__(
        self,
        published: Published,
        root: str | None,
        cache: str | None,
        validation: int,
        seed: int,
        pad: int,
        flip: bool,
        cutout: int,
        train_samples: int | None,
        fingerprint: str | None,
        max_corrupt: int,
        duplicates: str,
        unlabelled: str,
    ) -> None:
        """Check the options and touch nothing.

        `root`: directory that holds the folder. `cache`: where decoded and downloaded data go; default $LAUNCHER_CACHE or
        ~/.cache/launcher. `validation`: samples held out of the training file; `seed`: decides which. `pad`: largest crop shift in
        pixels; `flip`; `cutout`: side of the square in pixels, 0 for none. `train_samples`: train on the first N of the shuffled training
        part only. `fingerprint`: refuse other data. `max_corrupt`: images or labels that cannot be read and may be left out; one more is
        refused. `duplicates`: the same pixels again: keep, drop or refuse. `unlabelled`: a label of null or -1: refuse, as what cannot be
        read, or drop. Raises ValueError naming the option.
        """
        edge = min(published.size)
        for key, value, most in (("validation", validation, None), ("seed", seed, None), ("pad", pad, edge - 1), ("cutout", cutout, edge)):
            whole(f"data.{key}", value, 0, most)
        whole("data.max_corrupt", max_corrupt, 0)
        if train_samples is not None:
            whole("data.train_samples", train_samples, 1)
        self.published = published
        self.root = None if root is None else Path(root).expanduser().absolute()
        self.fingerprint, self.cache = fingerprint, cache_of(cache)
        self.validation, self.seed, self.train_samples = validation, seed, train_samples
        self.pad, self.flip, self.cutout = pad, flip, cutout
        self.corrupt, self.duplicates = Corrupt(max_corrupt, unlabelled), Duplicates(duplicates)
        self._splits: dict[str, Split] | None = None
        self._on_device: dict[tuple[str, str], Images] = {}

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.published.classes

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def channels(self) -> int:
        return 1 if self.published.mode == "L" else 3

    @property
    def in_features(self) -> int:
        return self.channels * self.published.size[0] * self.published.size[1]

    @property
    def preprocessing(self) -> dict[str, object]:
        mean, std = self._open()["train"].statistics(self._parts()["train"])
        return stretched(self.published.mode, self.published.size, mean, std)

    @property
    def _is_pinned(self) -> bool:
        """Whether it is known which data these are."""
        return self.fingerprint is not None

    def prepare(self) -> dict[str, object]:
        """Find the files, decode them into the cache, and return the keywords that pin what was found.

        Raises FileNotFoundError where the files asked for are not there; ValueError where they are torn, of another schema,
        or not those of `fingerprint`; OSError, with its errno, where the cache cannot be written.
        """
        root = self._find()
        assert root is not None
        self._pin(root, self._fingerprint_of(root))
        self._tell_layout(root)
        return {"root": str(root), "fingerprint": self.fingerprint}

    def part(self, split: str, device: torch.device | str) -> ImageSource | None:
        """train (the training part), val or test on a device, as a loader technique asks for it (data/loader.py); None where there is no
        sample of it. Raises ValueError."""
        from data.vision.images import ImageSource, Recipe

        one_of("split", split, ("train", "val", "test"))
        places = self._parts()[split]
        images = self._images("test" if split == "test" else "train", device)
        return ImageSource(images, places, Recipe(self.pad, self.flip, self.cutout)) if len(places) else None

    # ------------------------------------------------------------ what a set may have otherwise

    def _elsewhere(self) -> Path | None:
        """Where the files are if neither data.root nor LAUNCHER_DATA has them. Raises FileNotFoundError."""
        of = self.published
        raise FileNotFoundError(
            f"data.root is null and LAUNCHER_DATA has no {of.name}/{of.folder}: {of.title} is not here; fetch it with "
            f"hf download {of.repo} --repo-type dataset --local-dir {of.name}, and type data.root=/path/to/{of.name}"
        )

    def _drawn(self) -> tuple[str, str, Mapping[str, Chunks]] | None:
        """Of a set that is drawn instead: its name in the cache, its fingerprint, its parts. None where files are read."""
        return None

    def _known(self) -> str | None:
        """The checksum of the cache's manifest, where these data are known."""
        return None

    # ------------------------------------------------------------ files

    def _find(self) -> Path | None:
        """The directory that holds the files, None for a drawn set."""
        of = self.published
        if self.root is not None:
            return self._checked(self.root, "data.root")
        shelf = os.environ.get("LAUNCHER_DATA")
        if shelf:
            root = Path(shelf).expanduser().absolute() / of.name
            if any(len(layout.missing(root)) < len(layout.files) for layout in of.layouts) or (root / of.folder).is_dir():
                return self._checked(root, "LAUNCHER_DATA")
            if of.is_downloaded:
                notice(f"LAUNCHER_DATA={shelf} has no {of.name}/{of.folder}; looking for {of.title} on the Hugging Face hub")
        return self._elsewhere()

    def _checked(self, root: Path, origin: str) -> Path:
        """Raises FileNotFoundError where no layout is all there."""
        self._layout(root, origin)
        return root

    def _layout(self, root: Path, origin: str = "data.root") -> Layout:
        """How the files lie in `root`. Raises FileNotFoundError."""
        of = self.published
        missing = {layout: layout.missing(root) for layout in of.layouts}
        if whole := [layout for layout in of.layouts if not missing[layout]]:
            return whole[0]
        otherwise = f", or leave data.root out to download {of.title}" if of.is_downloaded else ""
        if begun := [layout for layout in of.layouts if len(missing[layout]) < len(layout.files)]:
            absent = " and no ".join(missing[begun[0]])
            raise FileNotFoundError(
                f"{origin}: {root} has no {absent} beside the rest of {begun[0].place}; copy it there, or name another directory{otherwise}"
            )
        looked_for = ", ".join(layout.place for layout in of.layouts)
        raise FileNotFoundError(f"{origin}: {root} has none of {looked_for}; name the directory that holds one of them{otherwise}")

    def _tell_layout(self, root: Path) -> None:
        """Of what is not the schema that everybody has."""
        layout = self._layout(root)
        if layout != self.published.parquet:
            notice(f"data: {self.published.title} in {root / layout.place}: {layout.title}")

    def _fingerprint_of(self, root: Path) -> str:
        """One sha256 for the files as they are, which takes as long as they are large. Raises ValueError where they cannot be what they are
        called."""
        layout = self._layout(root)
        layout.check(root)
        said = [sha256_file(root / name) for name in layout.files]
        if self.duplicates.matters or self.corrupt.drops_unlabelled:  # other samples of the same files
            said.append(f"duplicates={self.duplicates.policy} unlabelled={'drop' if self.corrupt.drops_unlabelled else 'refuse'}")
        return hashlib.sha256("\n".join(said).encode()).hexdigest()

    def _pin(self, root: Path | None, fingerprint: str) -> None:
        """These data and no other from now on, decoded."""
        self._refuse_other(fingerprint, root)
        self.root, self.fingerprint = root, fingerprint
        self._open()
        self.corrupt.tell()
        self.duplicates.tell()

    def _refuse_other(self, fingerprint: str, root: Path | None) -> None:
        if self.fingerprint not in (None, fingerprint):
            found = "the built-in stand-in" if root is None else f"the data in {root}"
            raise ValueError(
                f"data.fingerprint={str(self.fingerprint)[:16]}…: {found} is other data ({fingerprint[:16]}…); point data.root at "
                "the data the run began with, or start a new run with data.fingerprint=null"
            )

    # ------------------------------------------------------------ images

    def _open(self) -> dict[str, Split]:
        if self._splits is None:
            if not self._is_pinned:
                self.prepare()
            assert self.fingerprint is not None
            drawn, of = self._drawn(), self.duplicates if self.duplicates.matters else None
            name = (self.published.kept or self.published.name) if drawn is None else drawn[0]
            self._splits = open_or_build(self.cache, name, self.fingerprint, self._sources, self.corrupt, self._known(), of)
        return self._splits

    def _sources(self) -> Mapping[str, Chunks]:
        """What the cache is built from. A node with a cache of its own comes here again, with the files as they are now."""
        if (drawn := self._drawn()) is not None:
            self._refuse_other(drawn[1], None)
            return drawn[2]
        root = self._find()
        assert root is not None, "only a set that is not pinned may end at a drawn one"
        self._refuse_other(self._fingerprint_of(root), root)
        layout = self._layout(root)
        parts = {part: layout.read(root, part, self.corrupt) for part in layout.parts}
        return {"train": self._announced(root, parts["train"]), "test": self._unchanged(root, parts["test"])}

    def _announced(self, root: Path, chunks: Chunks) -> Chunks:
        """Say what takes so long, once it is known to go well."""
        for number, chunk in enumerate(chunks):
            if number == 0:
                notice(f"Decoding {self.published.title} from {root} into {self.cache}, once")
            yield chunk

    def _unchanged(self, root: Path, chunks: Chunks) -> Chunks:
        """Files that are another's can be others once they are hashed."""
        yield from chunks
        self._refuse_other(self._fingerprint_of(root), root)

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
        from data.vision.images import Images

        key = (name, str(device))
        if key not in self._on_device:
            splits = self._open()
            mean, std = splits["train"].statistics(self._parts()["train"])
            self._on_device[key] = Images(splits[name].images, splits[name].labels, mean, std, device)
        return self._on_device[key]

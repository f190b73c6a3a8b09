"""A data set of pictures with boxes: read, checked, brought to one size once, and shared out. Its formats are classes that inherit
`Detection` and say how annotations are read: data/voc.py and data/coco.py.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.options import cache_of, one_of, share, whole
from data.sampling.order import SPLIT, shuffled
from data.store import cache as kept
from data.store.corrupt import Corrupt
from data.store.files import notice
from data.vision.annotated import FILL, Row, Sample, row

if TYPE_CHECKING:
    import torch

    from data.vision.boxes import BoxSource, Pictures

PARTS = ("train", "val", "test")
STEP = 32
"""What a picture's side is a multiple of: detectors halve it five times."""
CHUNK = 64
FIELDS: dict[str, type[np.generic]] = {"images": np.uint8, "boxes": np.float32, "labels": np.int64, "ignored": np.uint8}
TYPES: dict[str, type[np.generic]] = {**FIELDS, "places": np.int64}


class Read(NamedTuple):
    """What a reader found."""

    samples: Mapping[str, Sample]
    """By a name of its own each."""
    parts: Mapping[str, Sequence[str]]
    """train, and val and test where there are lists of them: names, also of samples that were left out."""
    classes: Sequence[str]
    """In their order, where the annotations say one; else none."""
    remarks: Sequence[str]
    """What its user should hear, a line each."""


class Detection(ABC):
    """Construct, `prepare()` once where the user can see it, construct again with what it returns. A format has two methods: `_fingerprint`
    and `_read`."""

    def __init__(
        self,
        root: str | None,
        classes: Sequence[str] | None,
        size: int,
        outside: str,
        validation: float,
        test: float,
        seed: int,
        flip: bool,
        scale: float,
        colour: float,
        train_samples: int | None,
        cache: str | None,
        fingerprint: str | None,
        max_corrupt: int,
    ) -> None:
        """Check the options and touch nothing.

        `root`: directory of the set. `classes`: their names in the order of labels; default those that the annotations have. `size`: side
        in pixels of the square that each picture is brought to. `outside`: of boxes beyond the edge, clip or refuse. `validation`, `test`:
        shares of the training samples that are held out where there is no list of them; `seed` decides which. `flip`, `scale`, `colour`:
        boxes.py. `train_samples`: the first N of the training part only. `cache`: where the pictures go; default $LAUNCHER_CACHE or
        ~/.cache/launcher. `fingerprint`: refuse other data. `max_corrupt`: samples with a fault that may be left out. Raises ValueError
        naming the option.
        """
        share("data.validation", validation)
        share("data.test", test, beside=validation)
        whole("data.seed", seed, 0)
        whole("data.max_corrupt", max_corrupt, 0)
        whole("data.size", size, STEP, 4096)
        if size % STEP:
            raise ValueError(
                f"data.size={size}: not possible; type a multiple of {STEP}, e.g. data.size={max(1, round(size / STEP)) * STEP}"
            )
        one_of("data.outside", outside, ("clip", "refuse"))
        for key, value, most in (("scale", scale, 4), ("colour", colour, 1)):
            if not 0 <= value <= most:
                raise ValueError(f"data.{key}={value}: not possible; type a number from 0 to {most}")
        if train_samples is not None:
            whole("data.train_samples", train_samples, 1)
        if classes is not None and not _are_names(classes):
            raise ValueError(f"data.classes={classes}: not possible; type a name for each class, as data.classes=[cat,dog]; null for all")
        if root is None:
            raise ValueError("data.root=null: there is nothing to read; type data.root=/path/to/the/set")
        self.root, self.cache, self.fingerprint = Path(root).expanduser().absolute(), cache_of(cache), fingerprint
        self.size, self.seed, self.train_samples = size, seed, train_samples
        self.corrupt = Corrupt(max_corrupt)
        self._asked_classes, self._clips, self._recipe = classes, outside == "clip", (flip, float(scale), float(colour))
        self._held_out = {"val": validation, "test": test}
        self._kept: kept.Kept | None = None
        self._on_device: dict[str, Pictures] = {}

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self._open().manifest["classes"])

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def preprocessing(self) -> dict[str, object]:
        """How a model is given a picture, as an export says it (docs/after-training.md)."""
        from data.vision.boxes import DEVIATION, MEAN

        mean, std = ([each / 255 for each in of] for of in (MEAN, DEVIATION))
        size = [self.size, self.size]
        return {"kind": "image", "mode": "RGB", "size": size, "fit": "upper_left", "fill": [*FILL], "mean": mean, "std": std}

    def prepare(self) -> dict[str, object]:
        """Find the files, bring the pictures into the cache, and return the keywords that pin what was found.

        Raises FileNotFoundError where the files asked for are not there; ValueError where one has a fault; OSError, with its errno, where
        the cache cannot be written.
        """
        found = self._fingerprint()
        self._refuse_other(found)
        self.fingerprint = found
        manifest = self._open().manifest
        self.corrupt.tell()
        for remark in manifest["remarks"]:
            notice(f"WARNING: data.root={self.root}: {remark}")
        if manifest["clipped"]:
            notice(
                f"data.root={self.root}: {manifest['clipped']} boxes go beyond their pictures and are cut at the edge (data.outside=clip)"
            )
        for part in manifest["held_out"]:
            if self._held_out[part]:
                key = "validation" if part == "val" else part
                notice(
                    f"data.root={self.root}: no {part} of its own: {self._held_out[part]:.0%} of the training samples (data.{key}) by seed"
                )
        return {"root": str(self.root), "fingerprint": found}

    def part(self, split: str, device: torch.device | str) -> BoxSource | None:
        """train, val or test on a device, as a loader technique asks for it (data/loader.py); None where there is no sample of it. Raises
        ValueError."""
        from data.vision.boxes import BoxSource, Recipe

        one_of("split", split, PARTS)
        places = self._places()[split]
        if split == "train" and self.train_samples is not None:
            if self.train_samples > len(places):
                raise ValueError(
                    f"data.train_samples={self.train_samples}: the training part has {len(places)}; type a smaller number, or null for all"
                )
            places = places[: self.train_samples]
        return BoxSource(self._pictures(device), places, Recipe(*self._recipe)) if len(places) else None

    # ------------------------------------------------------------ what a format has

    @abstractmethod
    def _fingerprint(self) -> str:
        """Of annotations what they say, of pictures their names and sizes. Raises FileNotFoundError where the layout is another's."""

    @abstractmethod
    def _read(self) -> Read:
        """Those with a fault are for `corrupt` to leave out. Raises ValueError or OSError."""

    # ------------------------------------------------------------ kept

    def _refuse_other(self, found: str) -> None:
        if self.fingerprint not in (None, found):
            raise ValueError(
                f"data.fingerprint={str(self.fingerprint)[:16]}…: the data in {self.root} are others ({found[:16]}…); point data.root at "
                "the data the run began with, or start a new run with data.fingerprint=null"
            )

    def _open(self) -> kept.Kept:
        if self._kept is None:
            if self.fingerprint is None:
                self.prepare()
            # Other boxes come of the same files by other options.
            asked = json.dumps([2, self.fingerprint, self.size, self._asked_classes, self._clips])
            key, name = hashlib.sha256(asked.encode()).hexdigest(), type(self).__name__.lower()
            doing = f"decoding {self.root} into {self.cache}"
            (self._kept,) = kept.open_or_build(self.cache, [name], key, TYPES, self._build, doing)
            self.corrupt.accept(self._kept.manifest["corrupt"])
        return self._kept

    def _build(self, _: int, arrays: kept.Arrays) -> dict[str, object]:
        self._refuse_other(self._fingerprint())  # on a node with a cache of its own the files may be others
        notice(f"Reading {self.root} into {self.cache}, once")
        read = self._read()
        classes = self._classes(read)
        places: dict[str, int] = {}
        clipped = 0
        rows = self._rows(read.samples, {name: label for label, name in enumerate(classes)}, places)
        while chunk := [each for _, each in zip(range(CHUNK), rows, strict=False)]:
            for field, column in zip(FIELDS, zip(*(each[: len(FIELDS)] for each in chunk), strict=True), strict=True):
                arrays.append(f"all.{field}", np.stack(column))
            clipped += sum(each.clipped for each in chunk)
        for part in PARTS:
            found = [places[name] for name in read.parts.get(part, ()) if name in places]
            if part == "train" and not found:
                raise self._nothing("there is no training sample that can be read; point data.root at a complete copy")
            arrays.append(f"{part}.places", np.array(found, np.int64))
        held_out = [part for part in PARTS if part not in read.parts]
        return {"classes": classes, "corrupt": self.corrupt.found, "clipped": clipped, "held_out": held_out, "remarks": [*read.remarks]}

    def _classes(self, read: Read) -> list[str]:
        """Raises ValueError where there is none."""
        classes = self._asked_classes or read.classes or sorted({box.name for sample in read.samples.values() for box in sample.boxes})
        if not classes:
            raise self._nothing("no annotation has a box; point data.root at annotated data")
        return list(classes)

    def _nothing(self, why: str) -> ValueError:
        """Where all that there is may have been left out."""
        found = self.corrupt.found
        return ValueError(f"data.root={self.root}: {why}" + (f" ({len(found)} samples are left out: {found[0]})" if found else ""))

    def _rows(self, samples: Mapping[str, Sample], labels: Mapping[str, int], places: dict[str, int]) -> Iterator[Row]:
        """`places`: where each has come to lie, by name."""
        most = max([1, *(len(sample.boxes) for sample in samples.values())])
        for name, sample in samples.items():
            try:
                made = row(sample, self.size, most, labels, self._clips)
            except ValueError as error:
                self._leave_out(error)
                continue
            places[name] = len(places)
            yield made

    def _leave_out(self, error: ValueError) -> None:
        """Raises ValueError where it is one too many."""
        self.corrupt.leave_out(ValueError(f"data.root={self.root}: {str(error).replace(f'{self.root}/', '')}"))

    def _known(self, sample: Sample) -> Sample:
        """Raises ValueError where a box is of another class than those asked for."""
        if self._asked_classes is not None:
            for box in sample.boxes:
                if box.name not in self._asked_classes:
                    raise ValueError(
                        f"{sample.where} has a box of the class {box.name!r:.40}, and data.classes has {', '.join(self._asked_classes)}; "
                        "add it there, or mend the file"
                    )
        return sample

    def _places(self) -> dict[str, NDArray[np.int64]]:
        found = {part: np.array(self._open().arrays[f"{part}.places"]) for part in PARTS}
        wanting = self._open().manifest["held_out"]
        train = found["train"][shuffled(len(found["train"]), SPLIT, self.seed)]
        for part in wanting:
            count = round(self._held_out[part] * len(found["train"]))
            found[part], train = train[:count], train[count:]
        return {**found, "train": train}

    def _pictures(self, device: torch.device | str) -> Pictures:
        import torch

        from data.sampling import memory
        from data.vision.boxes import Pictures

        if str(device) not in self._on_device:
            arrays = [self._open().arrays[f"all.{field}"] for field in FIELDS]
            if torch.device(device).type != "cpu":  # there it is the memory map itself
                memory.check(len(arrays[0]), arrays[0][0].nbytes, torch.device(device))
            images, boxes, labels, ignored = (torch.from_numpy(each).to(device) for each in arrays)
            self._on_device[str(device)] = Pictures(images, boxes, labels, ignored.bool())
        return self._on_device[str(device)]


def _are_names(classes: object) -> bool:
    """Texts, all different; a single text is none, for it is a sequence of its letters."""
    return (
        isinstance(classes, list | tuple)
        and bool(classes)
        and all(isinstance(each, str) for each in classes)
        and len({*classes}) == len(classes)
    )

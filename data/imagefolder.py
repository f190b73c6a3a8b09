"""A folder of one's own pictures: each folder in it is a class (`cats/`, `dogs/`), as torchvision's ImageFolder has it and ImageNet comes.

Where there are folders `train` and `val` (or `valid`, `validation`), and `test`, with the classes in them, those are the splits, in
capitals or not; what there is none of is held out of the training pictures, of each class the same share.

Of an animation the first frame counts. What a camera noted of how it was held (EXIF) is not applied, as torchvision does not.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data.options import cache_of, one_of, share, whole
from data.sampling.order import stratified
from data.store.corrupt import Corrupt
from data.store.duplicates import Duplicates
from data.store.files import notice
from data.vision.picture import MEAN, STD, Picture
from data.vision.pictures import SUFFIXES, Pictures, pictures
from data.vision.readable import glance, in_folders, said
from data.vision.unique import loose, unique

if TYPE_CHECKING:
    import torch

SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
"""What the folder of a split may be called."""
ADVICE = "each class is a folder of its own with its pictures: cats/1.jpg, dogs/2.jpg"


class ImageFolder:
    """Map-style: a picture is decoded when it is asked for, so it goes with `loader=workers`; a small folder with `loader=resident` too."""

    channels = 3

    def __init__(
        self,
        root: str | None = None,
        split: str = "train",
        size: int = 224,
        val: float = 0.1,
        test: float = 0.1,
        seed: int = 0,
        crop: float = 0.35,
        flip: bool = True,
        mean: tuple[float, ...] = MEAN,
        std: tuple[float, ...] = STD,
        decoder: str = "pillow",
        cache: str | None = None,
        fingerprint: str | None = None,
        duplicates: str = "keep",
        unlabelled: str = "drop",
        max_corrupt: int = 0,
    ) -> None:
        """List the pictures, or take what was listed before.

        `root`: the folder. `size`: of a side of what the model is given, in pixels. `val`, `test`: shares of each class to hold out where
        there is no such folder, by `seed`; 0: none here. `crop`, `flip`, `mean`, `std`, `decoder`: as Picture has them;
        evaluations have the middle. `cache`: where the list of names is kept; default $LAUNCHER_CACHE or ~/.cache/launcher.
        `fingerprint`: refuse other names.
        `duplicates`: files of the same bytes: keep, drop (the first stays) or refuse. `unlabelled`: pictures that lie in no class's folder:
        drop or refuse. `max_corrupt`: pictures that cannot be read and may be left out, for which all are looked at, once; 0: the
        first that is met stops the run.
        Raises ValueError naming the option, KeyError for a split that there is none of, FileNotFoundError.
        """
        if not root:
            raise ValueError(f"data.root=null: no folder; type data.root=/path/to/pictures: {ADVICE}")
        whole("data.seed", seed, 0)
        whole("data.max_corrupt", max_corrupt, 0)
        share("data.val", val)
        share("data.test", test, beside=val)
        self.root = Path(root).expanduser().absolute()
        picture = Picture(size, crop, flip, mean, std, decoder)
        self.mean, self.std = mean, std
        self._picture = picture if split == "train" else picture.plain()
        self._cache, self._pinned = cache_of(cache), fingerprint
        one_of("data.unlabelled", unlabelled, ("drop", "refuse"))
        self._duplicates, self._unlabelled = Duplicates(duplicates), unlabelled
        self._corrupt = Corrupt(max_corrupt)
        self._held_out, self._seed = (val, test), seed
        if not self.root.is_dir():
            raise FileNotFoundError(f"data.root={self.root}: no such folder; {ADVICE}")
        if split not in SPLITS:
            raise KeyError(split)
        self._places = self._chosen(split)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def preprocessing(self) -> dict[str, object]:
        return self._picture.preprocessing

    @property
    def labels(self) -> NDArray[np.int64]:
        return self._pictures.labels[self._places]

    def prepare(self) -> dict[str, object]:
        """Where the pictures are, and their names: a run goes on with no others. Raises ValueError where one has no class and may not,
        or cannot be read."""
        self._tell_unlabelled()
        if not self._corrupt.limit:
            try:
                glance(self._all(), self._picture.plain())
            except ValueError as error:
                raise self._fault(error) from error
        self._corrupt.tell()
        self._duplicates.tell()
        return {"root": str(self.root), "fingerprint": self._fingerprint(), "decoder": self._picture.decoder}

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """(3, size, size) float32, standardised; its class. Raises ValueError where the file is no picture."""
        place = int(self._places[index])
        path = self._below / self._pictures.names[place]
        try:
            return self._picture.of(path), int(self._pictures.labels[place])
        except ValueError as error:
            raise self._fault(said(self._below, self._pictures.names[place], error)) from error

    def _chosen(self, split: str) -> NDArray[np.int64]:
        """Which of the pictures are this split's; finds them all first. Raises KeyError where there are none of such."""
        folders = self._folders = self._of_splits()
        trained = self._listed(folders["train"])
        self.class_names = trained.classes
        stay = self._stay = self._staying()
        if split != "train" and (own := folders[split]):
            self._below, self._pictures = self.root / own, self._as_trained(self._listed(own), own)
            return stay.get(split, np.arange(len(self._pictures.names)))
        self._below, self._pictures = self.root / folders["train"], trained
        if self._pinned is not None and self._pinned != self._fingerprint():
            raise ValueError(
                f"data.fingerprint={str(self._pinned)[:16]}…: {self.root} has other pictures now ({len(trained.names):,} to train on); "
                "bring back what the run began with, or start a new run with data.fingerprint=null"
            )
        shares = [0.0 if folders[each] else part for each, part in zip(("val", "test"), self._held_out, strict=True)]
        places = stay.get("train", np.arange(len(trained.names)))
        val, test, train = (places[part] for part in stratified(trained.labels[places], shares, self._seed))
        parts = {"val": val, "test": test, "train": train}
        if not len(parts[split]):
            raise KeyError(split)
        return parts[split]

    def _of_splits(self) -> dict[str, str]:
        """The folder of each, empty where there is none. Raises ValueError where splits lie beside what is none."""
        there = sorted(entry.name for entry in self.root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        found = {split: [name for name in there if name.lower() in names] for split, names in SPLITS.items()}
        if not found["train"]:
            return dict.fromkeys(SPLITS, "")
        strange = [name for name in there if not any(name in names for names in found.values())]
        if strange and not found["val"] and not found["test"]:
            return dict.fromkeys(SPLITS, "")  # a class that is called train, beside bus and tram
        if strange or (strange := [names[1] for names in found.values() if len(names) > 1]):
            splits = ", ".join(name for names in found.values() for name in names)
            raise ValueError(
                f"data.root={self.root}: there are {splits}, and {strange[0]}, which is no split beside them; take it away, or type "
                "data.root= with the folder in which the classes are"
            )
        return {split: "".join(names) for split, names in found.items()}

    def _fingerprint(self) -> str:
        """Of the pictures of all splits."""
        own = [folder for split, folder in self._folders.items() if folder or split == "train"]
        found = [self._listed(folder).fingerprint for folder in own]
        found += [hashlib.sha256(places.tobytes()).hexdigest() for places in self._stay.values()]
        return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()

    def _all(self) -> dict[str, tuple[Path, Pictures]]:
        """Each part that has a folder, with the numbers that its classes have in training."""
        own = {split: folder for split, folder in self._folders.items() if folder or split == "train"}
        listed = {split: self._listed(folder) for split, folder in own.items()}
        return {
            split: (self.root / own[split], found if split == "train" else self._as_trained(found, own[split]))
            for split, found in listed.items()
        }

    def _staying(self) -> dict[str, NDArray[np.int64]]:
        """Of each part that has a folder, the places of pictures that can be read and are not there before; nothing where all stay. Raises
        ValueError."""
        stay: dict[str, NDArray[np.int64]] = {}
        if self._corrupt.limit:
            stay = in_folders(self._all(), self._picture.plain(), self._corrupt, self._cache)
        if self._duplicates.matters:
            some = {part: (below, found.at(stay[part]) if stay else found) for part, (below, found) in self._all().items()}
            new = unique(some, self._duplicates, self._cache)
            stay = {part: stay[part][places] for part, places in new.items()} if stay else new
        if stay:
            counts = np.bincount(self._listed(self._folders["train"]).labels[stay["train"]], minlength=len(self.class_names))
            if bare := [name for name, count in zip(self.class_names, counts, strict=True) if not count]:
                raise ValueError(
                    f"data.root={self.root}: no picture of the class {bare[0]!r} stays (data.max_corrupt, data.duplicates); put some "
                    "there, or take the folder away"
                )
        return stay

    def _fault(self, error: ValueError) -> ValueError:
        if self._corrupt.limit:
            return ValueError(f"{error} and start a new run: it could be read when all were looked at")
        return ValueError(f"{error}, or leave such pictures out: data.max_corrupt=10")

    def _tell_unlabelled(self) -> None:
        found = loose([self.root, *(self.root / folder for folder in self._folders.values() if folder)])
        if found and self._unlabelled == "refuse":
            raise ValueError(
                f"data.unlabelled=refuse: {len(found):,} pictures lie in no class's folder, first {found[0]}; move them into one, or type "
                "data.unlabelled=drop"
            )
        if found:
            notice(f"data: {len(found):,} pictures lie in no class's folder and are left out (data.unlabelled=drop), first {found[0]}")

    def _listed(self, folder: str) -> Pictures:
        """Raises ValueError where that is nothing to learn from."""
        below = self.root / folder
        found = pictures(below, self._cache)
        counts = np.bincount(found.labels, minlength=len(found.classes))
        if not len(found.names) or (folder == self._folders["train"] and len(found.classes) < 2):
            raise ValueError(
                f"data.root={below}: {len(found.classes)} classes with {len(found.names)} pictures are nothing to learn; {ADVICE}"
            )
        if empty := [name for name, count in zip(found.classes, counts, strict=True) if not count]:
            raise ValueError(
                f"data.root={below}: the folder {empty[0]!r} has no picture; take it away, or put some there "
                f"({', '.join(sorted(SUFFIXES))})"
            )
        return found

    def _as_trained(self, found: Pictures, folder: str) -> Pictures:
        """With the numbers that its classes have in training."""
        places = {name: place for place, name in enumerate(self.class_names)}
        if strange := [name for name in found.classes if name not in places]:
            raise ValueError(
                f"data.root={self.root}: {folder}/{strange[0]} is a class that train has not; rename it ({', '.join(self.class_names[:9])})"
            )
        return found._replace(labels=np.array([places[name] for name in found.classes])[found.labels])

"""Pictures in shards as WebDataset has them: tars of `000.jpg` beside `000.cls`, a sample being the files with one name
(https://github.com/webdataset/webdataset).

Where each sample lies is found once, from the headers, and kept; from then on any of them is one read of its bytes. So the order may be
any, a resumed run reads what comes next and nothing before it, and each process reads its own samples alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.options import cache_of, one_of
from data.store import cache
from data.store.files import notice
from data.store.tar import Cut, members
from data.vision.picture import MEAN, STD, Picture

if TYPE_CHECKING:
    import torch

PICTURES = ("jpg", "jpeg", "png", "webp")
_TYPES: cache.Types = {"int64": np.int64, "uint8": np.uint8}
_MOST_LABEL = 1 << 16
"""Bytes of a label, or of the JSON that has it."""


class WebDataset:
    """Map-style. `shards`: how many samples each shard has, for an order that goes shard by shard."""

    channels = 3

    def __init__(
        self,
        root: str | None = None,
        split: str = "train",
        train: str = "*train*.tar",
        val: str | None = "*val*.tar",
        test: str | None = "*test*.tar",
        label: str = "cls",
        damaged: str = "refuse",
        size: int = 224,
        crop: float = 0.35,
        flip: bool = True,
        mean: tuple[float, ...] = MEAN,
        std: tuple[float, ...] = STD,
        cache: str | None = None,
        fingerprint: str | None = None,
    ) -> None:
        """`root`: the folder of the shards. `train`, `val`, `test`: which of them, by a pattern of names below it; null: none. `label`: the
        kind of file that has a sample's label, a whole number or a word; `json:key` for one that has it under that key. `damaged`: what to
        do with a shard that is cut, and a sample without label: refuse, or skip what cannot be read. `size`, `crop`, `flip`, `mean`,
        `std`: as Picture has them. `cache`: where it is kept which sample lies where; default $LAUNCHER_CACHE or
        ~/.cache/launcher. `fingerprint`: refuse other shards. Raises ValueError naming the option, KeyError for a split that there is none
        of, FileNotFoundError; OSError, with its errno, where the cache cannot be written."""
        if not root:
            raise ValueError("data.root=null: no folder; type data.root=/path/to/shards, where train-000.tar and the others are")
        one_of("data.damaged", damaged, ("refuse", "skip"))
        self.root, self._label, self._damaged = Path(root).expanduser().absolute(), label, damaged
        if not self.root.is_dir():
            raise FileNotFoundError(f"data.root={self.root}: no such folder; name the one where the shards are")
        self._shards = self._matching({"train": train, "val": val, "test": test})
        picture = Picture(size, crop, flip, mean, std)
        self.mean, self.std = mean, std
        self._picture = picture if split == "train" else picture.plain()
        self._cache, self._open = cache_of(cache), dict[int, int]()
        trained = self._index("train").arrays
        if split == "train" and fingerprint not in (None, self._fingerprint()):
            raise ValueError(
                f"data.fingerprint={str(fingerprint)[:16]}…: {self.root} has other shards now; bring back those the run began with, or "
                "start a new run with data.fingerprint=null"
            )
        names = json.loads(bytes(trained["names.uint8"]))
        self.class_names: tuple[str, ...] = tuple(names["classes"] or ())
        self.num_classes = len(self.class_names) or int(trained["labels.int64"].max(initial=-1)) + 1
        found = trained if split == "train" else self._index(split).arrays
        words = json.loads(bytes(found["names.uint8"]))
        self._files = [self.root / name for name in words["files"]]
        self._where: NDArray[np.int64] = found["where.int64"]
        self.labels = self._as_trained(found["labels.int64"], words["classes"])
        self.shards = np.bincount(self._where[:, 0], minlength=len(self._files))

    def prepare(self) -> dict[str, object]:
        """Where the shards are, and what is in all of them: a run goes on with no others."""
        return {"root": str(self.root), "fingerprint": self._fingerprint()}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """(3, size, size) float32, standardised; its class. Raises ValueError where it is no picture."""
        shard, offset, size = self._where[index].tolist()
        raw = os.pread(self._descriptor(shard), size, offset)
        try:
            if len(raw) < size:
                raise ValueError(f"is cut: {len(raw)} of {size} bytes")
            return self._picture.of(io.BytesIO(raw)), int(self.labels[index])
        except ValueError as error:
            raise ValueError(f"data.root={self.root}: the picture at {offset} of {self._files[shard].name} {error}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # each process has files of its own

    def _descriptor(self, shard: int) -> int:
        if shard not in self._open:
            if len(self._open) >= 64:
                os.close(self._open.pop(next(iter(self._open))))
            self._open[shard] = os.open(self._files[shard], os.O_RDONLY | os.O_CLOEXEC)
        return self._open[shard]

    def _matching(self, patterns: dict[str, str | None]) -> dict[str, list[str]]:
        """The shards of each split that there is, by their names below the root. Raises ValueError, FileNotFoundError."""
        found: dict[str, list[str]] = {}
        for split, pattern in patterns.items():
            if pattern and (Path(pattern).is_absolute() or ".." in Path(pattern).parts):
                raise ValueError(f"data.{split}={pattern}: it is not below data.root={self.root}; type the folder above all as data.root=")
            try:
                names = (
                    sorted(path.relative_to(self.root).as_posix() for path in self.root.glob(pattern) if path.is_file()) if pattern else []
                )
            except ValueError as error:
                raise ValueError(f"data.{split}={pattern}: no pattern of names ({error}); type one like {split}-*.tar") from error
            for other, others in found.items():
                if twice := sorted(set(names) & set(others)):
                    raise ValueError(
                        f"data.{split}={pattern}: {twice[0]} is one of data.{other}={patterns[other]} too; type patterns that have no "
                        f"shard in common, or data.{split}=null"
                    )
            if names:
                found[split] = names
        if "train" not in found:
            raise FileNotFoundError(
                f"data.root={self.root}: no file there is a {patterns['train']}; type data.train= with the pattern of the shards' names"
            )
        return found

    def _fingerprint(self) -> str:
        """Of what the shards of all splits hold: where each sample lies, and its label. The pictures would have to be read."""
        said = [[split, *self._sizes(split), self._index(split).manifest["arrays"]] for split in self._shards]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def _sizes(self, split: str) -> list[tuple[str, int]]:
        return [(name, (self.root / name).stat().st_size) for name in self._shards[split]]

    def _index(self, split: str) -> cache.Kept:
        """Raises KeyError where there is no such split."""
        shards = self._shards[split]
        # Tars are padded: others of the same names and sizes have other labels. So it is of these files, as they were last written.
        written = [(self.root / name).stat().st_mtime_ns for name in shards]
        said = [2, str(self.root), self._label, self._damaged, self._sizes(split), written]
        fingerprint = hashlib.sha256(json.dumps(said).encode()).hexdigest()

        def build(number: int, arrays: cache.Arrays) -> dict[str, object]:
            notice(f"Looking into {len(shards)} shard(s) of {self.root}, once")
            self._look(shards, arrays)
            return {}

        (kept,) = cache.open_or_build(self._cache, [f"tars-{split}"], fingerprint, _TYPES, build, f"looking into the shards of {self.root}")
        return kept

    def _look(self, shards: list[str], arrays: cache.Arrays) -> None:
        """Where samples are, and their labels: words are numbered in the order of the alphabet. Raises ValueError."""
        where, labels = list[tuple[int, int, int]](), list[str]()
        for number, name in enumerate(shards):
            for offset, size, label in self._samples(name):
                where.append((number, offset, size))
                labels.append(label)
        if not where:
            raise ValueError(
                f"data.root={self.root}: no sample in {len(shards)} shard(s) has a .{self._label} and a picture ({', '.join(PICTURES)})"
            )
        classes = None if all(label.isdecimal() for label in labels) else sorted(set(labels))
        places = {name: at for at, name in enumerate(classes or ())}
        numbers = [int(label) if classes is None else places[label] for label in labels]
        said = json.dumps({"files": shards, "classes": classes})
        arrays.append("where.int64", np.array(where, np.int64))
        arrays.append("labels.int64", np.array(numbers, np.int64))
        arrays.append("names.uint8", np.frombuffer(said.encode(), np.uint8))

    def _samples(self, name: str) -> Iterator[tuple[int, int, str]]:
        """Where the picture of each begins, its bytes, and its label."""
        path, (kind, _, field) = self.root / name, self._label.partition(":")
        parts: dict[str, dict[str, tuple[int, int]]] = {}
        try:
            for member in members(path):
                sample = parts.setdefault(member.key, {})
                if member.kind in sample:
                    self._doubt(f"{name}: {member.key}.{member.kind} is there twice", "give each sample a name of its own")
                    continue
                sample[member.kind] = member.offset, member.size
        except Cut as error:
            self._doubt(f"{name}: {error}", error.instead)
        with path.open("rb") as file:
            for key, found in parts.items():
                picture = next((found[each] for each in PICTURES if each in found), None)
                if picture is None or kind not in found:
                    self._doubt(f"{name}: {key} has {', '.join(found)}", f"it needs a picture and a .{kind}, neither a link nor sparse")
                    continue
                offset, size = found[kind]
                file.seek(offset)
                try:
                    label = _label(file.read(min(size, _MOST_LABEL)).decode().strip(), field)
                except (ValueError, KeyError, TypeError, RecursionError) as error:
                    self._doubt(f"{name}: {key}.{kind} has no label ({type(error).__name__}: {error})", "type data.label=")
                    continue
                yield *picture, label

    def _doubt(self, what: str, instead: str) -> None:
        if self._damaged == "refuse":
            raise ValueError(f"data.root={self.root}/{what}; {instead}, or data.damaged=skip to leave out what cannot be read")
        notice(f"WARNING: left out: {what}")

    def _as_trained(self, labels: NDArray[np.int64], classes: list[str] | None) -> NDArray[np.int64]:
        """With the numbers that the words have in training."""
        if (classes is None) != (not self.class_names):
            raise ValueError(f"data.root={self.root}: labels are words in one split and numbers in another; write them alike")
        if classes is None:
            if labels.max(initial=-1) >= self.num_classes:
                raise ValueError(
                    f"data.root={self.root}: label {labels.max()} is in no training shard, which have 0 to {self.num_classes - 1}; write "
                    "labels alike in all splits"
                )
            return labels
        if strange := [name for name in classes if name not in self.class_names]:
            raise ValueError(f"data.root={self.root}: the class {strange[0]!r} is not in the training shards")
        places = {name: place for place, name in enumerate(self.class_names)}
        return np.array([places[name] for name in classes], np.int64)[labels]


def _label(text: str, field: str) -> str:
    """Raises ValueError, KeyError, TypeError or RecursionError where there is none."""
    value: Any = json.loads(text)[field] if field else text
    if not isinstance(value, str | int):
        raise TypeError(f"{value!r:.40} is neither a whole number nor a word")
    label = str(value)
    if not label:
        raise ValueError("it is empty")
    if label.isdecimal() and len(label) > 18:
        raise ValueError(f"{label:.40} is too large")
    return label

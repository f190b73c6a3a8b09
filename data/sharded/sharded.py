"""What sets of many shards have in common: which samples there are is found once and kept, and what is missing or cut goes by policy.

Any sample is then read by itself, so the order may be any: a resumed run reads what comes next and nothing before it.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import re
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.options import cache_of, one_of
from data.sharded import identity
from data.sharded.labels import Labels, as_trained
from data.sharded.shards import Reader, matching
from data.store import cache
from data.store.files import notice

_TYPES: cache.Types = {"int64": np.int64, "float64": np.float64, "uint8": np.uint8}
_WRITTEN = "written.int64"
"""Of each shard: bytes, when it was last written, and its head. No part of what a run is pinned to, for a copy has another time."""
_CONTENT = "content.int64"
"""Of each shard, a hash of some of it, or of all."""
_NEAR = 8
_SAID = 5
"""Of what is left out: the rest is counted."""


class _Gone(Exception):
    """An index is kept no more."""


class _Map(NamedTuple):
    """An array that a process maps anew: of ten million samples a copy for each worker would be gigabytes."""

    file: str
    kind: str
    shape: tuple[int, ...]


class Sharded(ABC):
    """Map-style. `shards`: how many samples lie together, for an order that goes shard by shard.

    Each set spells out the keywords that it only hands on: what a yaml may say is read from its own source, which is not run for that.
    """

    KIND: ClassVar[str]
    """What its shards are, in the names of what is kept."""
    WHOLE: ClassVar[bool] = False
    """Whether all bytes of a shard are read for the index, so that a run may be pinned to each of them."""

    def __init__(
        self,
        root: str | None,
        split: str,
        patterns: Mapping[str, str | None],
        *,
        kind: str,
        damaged: str,
        cache: str | None,
        fingerprint: str | None,
        index: Mapping[str, str] | None,
        decides: Sequence[object],
    ) -> None:
        """`kind`: of labels. `index`: which a run began with. `decides`: the options that decide what an index holds. Raises as the sets'
        constructors say."""
        if not root:
            raise ValueError(f"data.root=null: no folder; type data.root=/path/to/shards, where the {self.KIND} are")
        one_of("data.damaged", damaged, ("refuse", "skip"))
        self.root = Path(root).expanduser().absolute()
        if not self.root.is_dir():
            raise FileNotFoundError(f"data.root={self.root}: no such folder; name the one where the shards are")
        self._kind, self._damaged, self._cache, self._decides = kind, damaged, cache_of(cache), list(decides)
        self._reader, self._left_out, self._given = Reader(), 0, 0
        self._keys: dict[str, str] = {}
        self._indices = self._begun(index or {}, fingerprint) if damaged == "skip" else {}
        if not self._indices:
            self._shards = matching(self.root, patterns, self._doubt)
            self._index("train")
            if split == "train" and fingerprint is not None and fingerprint != self._fingerprint():
                raise ValueError(
                    f"data.fingerprint={fingerprint[:16]}…: {self.root} has other shards now; bring back those the run began with, or "
                    "start a new run with data.fingerprint=null"
                )
        self._take(split)

    @abstractmethod
    def pieces(self, name: str) -> Iterator[tuple[tuple[int, ...], Sequence[Any]]]:
        """What lies in the shard: where each piece is, and the labels of its samples. What is wrong is for `_doubt`."""

    @abstractmethod
    def read(self, index: int) -> Any:
        """The sample. Raises ValueError where it is gone, cut or none, OSError where it cannot be read now."""

    @abstractmethod
    def nothing(self) -> str:
        """What the shards would have to have, where they have no sample."""

    def prepare(self) -> dict[str, object]:
        """Where the shards are, and what is in all of them: a run goes on with no others."""
        found: dict[str, object] = {"root": str(self.root), "fingerprint": self._fingerprint()}
        return {**found, "index": {**self._keys}} if self._damaged == "skip" else found

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.read(index)
        except ValueError as error:
            if self._damaged == "refuse":
                raise
            return self._instead(index, error)

    def __getstate__(self) -> dict[str, Any]:
        """Each process has files of its own, and maps of them."""
        kept = {**self.__dict__, "_reader": Reader(), "_indices": {}, "_given": 0}
        return {name: _mapped(value) for name, value in kept.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, np.memmap(value.file, value.kind, mode="c", shape=value.shape) if isinstance(value, _Map) else value)

    def _bytes(self, shard: int, offset: int, size: int) -> bytes:
        """Raises as `read`, and RuntimeError where the shard is another by now."""
        try:
            return self._reader.read(shard, self._files[shard], offset, size)
        finally:
            self._check_same(shard)

    def _check_same(self, shard: int) -> None:
        """Behind each read of it. One that is gone, or cut, is damaged; one that was written anew has other samples in their places."""
        path, (size, moment, head) = self._files[shard], self._then[shard].tolist()
        now = identity.written(path)
        if now in (None, (size, moment)) or identity.is_cut(path, size, head):
            return
        if now is not None and identity.content(path, self.WHOLE) != self._contents[shard]:
            raise RuntimeError(
                f"data.root={self.root}: {path.name} was written anew while the run read it; bring back the one that it began with and "
                "resume, or start a new run"
            )
        self._then[shard, :2] = now  # a copy, or touched

    def _instead(self, index: int, error: ValueError) -> Any:
        """Another sample of the split, which hangs on the place alone. Where the whole shard is gone those behind it are not all tried."""
        for place in self._behind(index):
            try:
                sample = self.read(place)
            except ValueError:
                continue
            self._given += 1
            if self._given & (self._given - 1) == 0:  # the first, the second, the fourth
                notice(
                    f"WARNING: {self._given} sample(s) could not be read and were given by another, the last, {index}, by {place} "
                    f"(data.damaged=skip): {error}"
                )
            return sample
        raise error

    def _behind(self, index: int) -> Iterator[int]:
        yield from ((index + step) % len(self) for step in range(1, min(_NEAR, len(self))))
        ends = np.cumsum(self.shards)
        at = int(np.searchsorted(ends, index, side="right"))
        for step in range(1, len(ends)):
            other = (at + step) % len(ends)
            if self.shards[other]:
                yield int(ends[other] - self.shards[other])

    def _take(self, split: str) -> None:
        """Raises KeyError where there is no such split."""
        trained, found = self._index("train"), self._index(split)
        labels = f"labels.{'int64' if self._kind == 'class' else 'float64'}"
        self.class_names: tuple[str, ...] = tuple(_said(trained)["classes"] or ())
        self.num_classes = len(self.class_names)
        if self._kind == "class" and not self.num_classes:
            self.num_classes = int(trained.arrays[labels].max(initial=-1)) + 1
        said = _said(found)
        self._files = [self.root / name for name in said["files"]]
        self._where: NDArray[np.int64] = found.arrays["where.int64"]
        self._then, self._contents = np.array(found.arrays[_WRITTEN]), found.arrays[_CONTENT]
        if not hasattr(self, "_shards"):  # cut since the run began: the same in this attempt, as it is now
            self._then[:, :2] = [identity.written(path) or (0, 0) for path in self._files]
        self.labels = as_trained(self.root, found.arrays[labels], said["classes"], self.class_names, self.num_classes)
        self.shards = self._together()

    def _together(self) -> NDArray[np.int64]:
        return np.bincount(self._where[:, 0], minlength=len(self._files))

    def _begun(self, index: Mapping[str, str], fingerprint: str | None) -> dict[str, cache.Kept]:
        """The index that a run began with, where it is kept and no shard is another: one that is gone or shorter is damaged, and its
        samples stay in their places. Else none."""

        def gone(number: int, arrays: cache.Arrays) -> dict[str, object]:
            raise _Gone

        found, lost = dict[str, cache.Kept](), 0
        for split, key in index.items():
            if not re.fullmatch("[0-9a-f]{64}", key) or split not in ("train", "val", "test"):
                raise ValueError(f"data.index.{split}={key}: it is filled in at submit; type data.index=null")
            try:
                (kept,) = cache.open_or_build(self._cache, [f"{self.KIND}-{split}"], key, _TYPES, gone, "looking for an index")
            except (_Gone, OSError):
                return {}
            for name, (*then, head) in zip(_said(kept)["files"], kept.arrays[_WRITTEN].tolist(), strict=True):
                now = identity.written(self.root / name)
                if now is not None and now != tuple(then) and not identity.is_cut(self.root / name, then[0], head):
                    return {}
                lost += now != tuple(then)
            found[split] = kept
        if not found or _of(found) != fingerprint:
            return {}
        if lost:
            notice(f"WARNING: {lost} shard(s) of {self.root} are gone or cut by now: their samples are given by others (data.damaged=skip)")
        self._keys = dict(index)
        return found

    def names(self) -> dict[str, list[str]]:
        """The shards of each split, below the root."""
        return {split: _said(kept)["files"] for split, kept in self._all().items()}

    def _all(self) -> dict[str, cache.Kept]:
        return self._indices if not hasattr(self, "_shards") else {split: self._index(split) for split in self._shards}

    def _fingerprint(self) -> str:
        """Of what the shards of all splits hold: where each sample lies, and its label. The samples would have to be read."""
        return _of(self._all())

    def _index(self, split: str) -> cache.Kept:
        """Raises KeyError where there is no such split."""
        if split in self._indices:
            return self._indices[split]
        if not hasattr(self, "_shards"):
            raise KeyError(split)
        shards = self._shards[split]
        # Tars are padded: others of the same names and sizes have other labels. So it is of these files, as they were last written.
        written = [identity.written(self.root / name) or (0, 0) for name in shards]
        said = [4, str(self.root), *self._decides, self._kind, self._damaged, shards, written]
        key = self._keys[split] = hashlib.sha256(json.dumps(said).encode()).hexdigest()

        def build(number: int, arrays: cache.Arrays) -> dict[str, object]:
            notice(f"Looking into {len(shards)} shard(s) of {self.root}, once")
            self._look(shards, arrays)
            heads, contents = zip(
                *[(identity.head(path), identity.content(path, self.WHOLE)) for path in map(self.root.joinpath, shards)], strict=True
            )
            arrays.append(_WRITTEN, np.array([(*each, head) for each, head in zip(written, heads, strict=True)], np.int64))
            arrays.append(_CONTENT, np.array(contents, np.int64))
            return {}

        name = f"{self.KIND}-{split}"
        (kept,) = cache.open_or_build(self._cache, [name], key, _TYPES, build, f"looking into the shards of {self.root}")
        self._indices[split] = kept
        return kept

    def _look(self, shards: list[str], arrays: cache.Arrays) -> None:
        """Where samples are, and their labels. Raises ValueError."""
        where, labels, width = array("q"), Labels(self._kind), 1
        for number, name in enumerate(shards):
            for place, of_each in self.pieces(name):
                try:
                    labels.add(of_each)
                except (ValueError, TypeError) as error:
                    self._doubt(f"{name}: {self.named(place)} has no label ({type(error).__name__}: {error})", "type data.label=")
                    continue
                where.extend((number, *place))
                width = 1 + len(place)
        if not len(labels):
            raise ValueError(f"data.root={self.root}: no sample in {len(shards)} shard(s) has {self.nothing()}")
        if self._left_out > _SAID:
            notice(f"WARNING: left out in all: {self._left_out} of {self.root}")
        classes, numbers = labels.numbered()
        said = json.dumps({"files": shards, "classes": classes})
        arrays.append("where.int64", np.array(where, np.int64).reshape(-1, width))
        arrays.append(labels.array, numbers)
        arrays.append("names.uint8", np.frombuffer(said.encode(), np.uint8))

    def named(self, place: tuple[int, ...]) -> str:
        """A piece of a shard, for whoever looks for it."""
        return f"what lies at {place[0]}"

    def _doubt(self, what: str, instead: str) -> None:
        if self._damaged == "refuse":
            raise ValueError(f"data.root={self.root}/{what}; {instead}, or data.damaged=skip to leave out what cannot be read")
        self._left_out += 1
        if self._left_out <= _SAID:
            notice(f"WARNING: left out: {what}")


def _said(kept: cache.Kept) -> dict[str, Any]:
    return json.loads(bytes(kept.arrays["names.uint8"]))


def _of(indices: Mapping[str, cache.Kept]) -> str:
    said: list[object] = []
    for split in sorted(indices, key=("train", "val", "test").index):
        sizes = indices[split].arrays[_WRITTEN][:, 0].tolist()
        arrays = {name: entry for name, entry in indices[split].manifest["arrays"].items() if name != _WRITTEN}
        said.append([split, *zip(_said(indices[split])["files"], sizes, strict=True), arrays])
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _mapped(value: Any) -> Any:
    is_map = isinstance(value, np.memmap) and isinstance(value.base, mmap.mmap) and value.offset == 0
    return _Map(str(value.filename), value.dtype.str, value.shape) if is_map else value

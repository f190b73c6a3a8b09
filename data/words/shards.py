"""Tokens of many documents, made once into memory-mapped shards (data/store/cache.py), with an end-of-text token behind each document.

A shard is what some consecutive files have, half a GiB of them or one that is larger: a maker that dies leaves those that are whole, and
the next goes on behind them.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from data.store import cache
from data.store.files import notice, sha256_file
from data.words import documents, tokenizer

FILES_BYTES = 512 << 20
_TYPES: cache.Types = {"uint8": np.uint8, "uint16": np.uint16, "uint32": np.uint32, "uint64": np.uint64}
_NAMES = "names.uint8"
"""What each token stands for, as JSON: nobody needs the tokenizer once the tokens are made."""
_ENDS = "ends.uint64"
"""Behind which token of its shard each document ends."""


class Stream:
    """Tokens of several arrays one behind the other, read where they lie."""

    def __init__(
        self, shards: Sequence[np.ndarray], names: Sequence[str] = (), ends: Sequence[np.ndarray] | None = None, kinds: int = 0
    ) -> None:
        """`shards`: (n,) each, of one type. `names`: what each token stands for; none for bytes. `ends`: of each shard, behind how many of
        its tokens a document ends, (documents,), rising; null: each is one document. `kinds`: tokens are 0..kinds-1, if that is known."""
        ends = [np.array([len(shard)]) for shard in shards] if ends is None else ends
        pairs = [(np.asarray(shard), np.asarray(end)) for shard, end in zip(shards, ends, strict=True)]
        pairs = [pair for pair in pairs if len(pair[0])] or pairs[:1]
        self._shards, self._ends = [shard for shard, _ in pairs], [end for _, end in pairs]
        self._begins = np.array([0, *accumulate(map(len, self._shards))])
        self._before = np.array([0, *accumulate(map(len, self._ends))])
        """How many documents there are before those of each shard."""
        self.names, self.kinds = names, kinds

    def __len__(self) -> int:
        return int(self._begins[-1])

    @property
    def nbytes(self) -> int:
        return sum(shard.nbytes for shard in self._shards)

    @property
    def documents(self) -> int:
        return int(self._before[-1])

    @property
    def ends(self) -> np.ndarray:
        """Of all documents: behind how many tokens each ends, (documents,) int64. A copy, where the others are maps."""
        return np.concatenate([end.astype(np.int64) + begin for end, begin in zip(self._ends, self._begins, strict=False)])

    def numbers(self, begins: np.ndarray, length: int) -> np.ndarray:
        """Of the tokens that `windows` gives, the document that each is in: (b, length) int64, from 0. No document is in two shards, for no
        file is."""
        places = begins[:, None] + np.arange(length)
        shards = np.searchsorted(self._begins, places, "right") - 1
        found = np.empty(places.shape, np.int64)
        for number in np.unique(shards):
            within = shards == number
            local = (places[within] - self._begins[number]).astype(self._ends[number].dtype)  # of another type the map would be copied
            found[within] = self._before[number] + np.searchsorted(self._ends[number], local, "right")
        return found

    def windows(self, begins: np.ndarray, length: int) -> np.ndarray:
        """The `length` tokens from each of `begins` (b,) on: (b, length)."""
        rows = np.empty((len(begins), length), self._shards[0].dtype)
        first, last = (np.searchsorted(self._begins, places, "right") - 1 for places in (begins, begins + length - 1))
        for number in np.unique(first[first == last]):
            within = (first == number) & (last == number)
            rows[within] = sliding_window_view(self._shards[number], length)[begins[within] - self._begins[number]]
        for row in np.flatnonzero(first != last):
            pieces = range(first[row], last[row] + 1)
            begin, shards = begins[row] - self._begins[first[row]], [self._shards[number] for number in pieces]
            rows[row] = np.concatenate([shards[0][begin:], *(shard[:length] for shard in shards[1:])])[:length]
        return rows


class Maker:
    """Shards of the tokens of some files."""

    def __init__(self, sources: documents.Sources, tokens: Path | None, field: str, end: int | None) -> None:
        """`tokens`: a tokenizer's file, or bytes. `field`: of a line or a row. `end`: the token behind each document."""
        self._sources, self._tokens, self._field, self._end = sources, tokens, field, end
        self._shards = _grouped(sources.files)
        self._digests: dict[Path, str] = {}
        self._tokenizer: tokenizer.Tokenizer | None = None
        self._progress = _Progress(sum(file.stat().st_size for file in sources.files))

    def fingerprint(self) -> str:
        """Of the files, in their order, and of all that decides what tokens they become. Reads them once. Raises OSError."""
        self._digests = {file: sha256_file(file) for file in self._sources.files}
        tokens = None if self._tokens is None else tokenizer.fingerprint(self._tokens)
        said = [1, self._sources.kind, self._field, self._end, tokens, *self._digests.values()]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def open(self, kept: Path, fingerprint: str, check: Callable[[str], None]) -> Stream:
        """The tokens with `fingerprint`, made in the directory `kept` where they are not there yet: then `check` is given the fingerprint
        that the files have now. Raises what `check` does, what data/store/cache.py does, and ValueError for what is wrong with a file."""

        def make(number: int, arrays: cache.Arrays) -> dict[str, object]:
            if not self._digests:
                check(self.fingerprint())
            return {"kinds": self._make(number, arrays, kept)}

        names = [f"text-{number}-of-{len(self._shards)}-2" for number in range(len(self._shards))]  # the first had no ends and no kinds
        try:
            made = cache.open_or_build(kept, names, fingerprint, _TYPES, make, f"making tokens in {kept}")
        finally:
            self._progress.end()
        shards = [each.arrays for each in made]
        found = [array for arrays in shards for name, array in arrays.items() if name not in (_NAMES, _ENDS)]
        kinds = max(int(each.manifest["kinds"]) for each in made)
        return Stream(found, json.loads(bytes(shards[0][_NAMES])), [arrays[_ENDS] for arrays in shards], kinds)

    def _make(self, number: int, arrays: cache.Arrays, kept: Path) -> int:
        """Returns how many kinds of token it may have: of a tokenizer all, of bytes up to the largest that there is."""
        if self._tokenizer is None:
            self._tokenizer = opened(self._tokens, self._end)
            notice(f"Making tokens of {len(self._sources.files)} file(s) in {kept}, once")
        most = max(self._tokenizer.size - 1, self._end or 0)
        name = f"tokens.{np.min_scalar_type(most).name}"
        arrays.append(name, np.zeros(0, np.uint8))
        arrays.append(_ENDS, np.zeros(0, np.uint64))
        if number == 0:
            names = self._tokenizer.names()
            names += ["<end>"] if names and self._end == len(names) else []
            arrays.append(_NAMES, np.frombuffer(json.dumps(names).encode(), np.uint8))
        end = np.array([] if self._end is None else [self._end], np.uint32)
        made, largest = 0, -1
        for tokens, piece in self._tokenizer.encode(self._documents(number)):
            arrays.append(name, np.concatenate((tokens, end)) if piece.ends else tokens)
            made, largest = made + len(tokens) + len(end) * piece.ends, max(largest, int(tokens.max(initial=0)))
            if piece.ends:
                arrays.append(_ENDS, np.array([made]))
            self._progress(piece.done)
        for file in self._shards[number]:
            if sha256_file(file) != self._digests[file]:
                raise ValueError(f"data.path={file}: has changed while it was read; start again when nobody writes to it")
        return 1 + max(most if self._tokens else largest, -1 if self._end is None else self._end)

    def _documents(self, number: int) -> Iterator[documents.Piece]:
        """Those of a shard; what is done is in bytes of all files."""
        before = sum(file.stat().st_size for shard in self._shards[:number] for file in shard)
        for file in self._shards[number]:
            size = file.stat().st_size
            for piece in documents.read(self._sources.kind, file, self._field, utf8=self._tokens is not None):
                yield piece._replace(done=before + piece.done * size)
            before += size


def opened(path: Path | None, end: int | None) -> tokenizer.Tokenizer:
    """Raises FileNotFoundError; ValueError where the file is no tokenizer, or `end` no token and not the next behind its own."""
    found = tokenizer.Bytes() if path is None else tokenizer.FromFile(path)
    if end is not None and not 0 <= end <= found.size:
        raise ValueError(
            f"data.end={end}: there are {found.size} tokens; type one of 0 to {found.size - 1}, or {found.size} for one that no text has"
        )
    return found


def _grouped(files: Sequence[Path]) -> list[list[Path]]:
    """Files in their order, as many together as come to a shard."""
    groups: list[list[Path]] = [[]]
    size = 0
    for file in files:
        if size >= FILES_BYTES:
            groups, size = [*groups, []], 0
        groups[-1].append(file)
        size += file.stat().st_size
    return groups


class _Progress:
    """A line on a terminal, written anew; nothing in a log."""

    def __init__(self, whole: int) -> None:
        self._whole, self._done, self._next = max(1, whole), 0.0, 0.0

    def __call__(self, done: float) -> None:
        self._done = done
        if (now := time.monotonic()) >= self._next and sys.stderr.isatty():
            self._next = now + 0.2
            self._write("")

    def end(self) -> None:
        if self._next:
            self._write("\n")

    def _write(self, end: str) -> None:
        print(f"\rTokens: {self._done / self._whole:4.0%} of {self._whole / 1e6:,.1f} MB are made", end=end, file=sys.stderr, flush=True)

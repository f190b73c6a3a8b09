"""Texts as tokens, bytes or those of a tokenizer: one sequence of all documents, cut into windows of one length.

The training part is the beginning, the validation part the end, as nanoGPT divides it (https://github.com/karpathy/nanoGPT). Each epoch
cuts the training part at another place, so that over the epochs a token is seen at every position of a window.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.sampling.order import SHIFT, words
from data.store.files import notice
from data.words import documents
from data.words.shards import Maker, Stream, opened

if TYPE_CHECKING:
    import torch

    Batch = tuple[torch.Tensor, ...]
    """Tokens (b, length) int64, and the one that follows each, (b, length); where documents are kept apart, the number of the one that each
    token is in, (b, length) int64, too."""

SHELF = "tinyshakespeare"
TINY_SHAKESPEARE = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
_MAPS = 1000
"""Files that are mapped as they are; the kernel allows a process 65,530."""
_HELD = 1 << 30
"""Bytes of a part that a GPU holds; of one that is larger each batch is read from the disk."""


class Text:
    """A file, or all of a folder, one behind the other in the order of their names: data/words/documents.py says which."""

    def __init__(
        self,
        path: str | None = None,
        length: int = 128,
        validation: float = 0.1,
        fingerprint: str | None = None,
        tokenizer: str | None = None,
        field: str = "text",
        end: int | None = None,
        boundaries: bool = False,
        cache: str | None = None,
        kinds: int | None = None,
    ) -> None:
        """`path`: null is $LAUNCHER_DATA/tinyshakespeare. `length`: of a window, in tokens. `validation`: share of the text, its end.
        `fingerprint`: refuse another text. `tokenizer`: path of a tokenizer.json; null is bytes. `field`: of JSON lines and of parquet,
        with the text. `end`: the token behind each document. `boundaries`: batches say which document each token is in, so that a model
        can keep them apart; a file of text is one. `cache`: where tokens go that are made; default $LAUNCHER_CACHE or ~/.cache/launcher.
        `kinds`: refuse a text whose tokens are not all below it. Raises ValueError naming the option."""
        if length < 1:
            raise ValueError(f"data.length={length}: not possible; type a whole number from 1")
        if not 0 <= validation < 1:
            raise ValueError(f"data.validation={validation}: not possible; type a share from 0 to below 1")
        if end is not None and (isinstance(end, bool) or not isinstance(end, int) or end < 0):
            raise ValueError(f"data.end={end}: not possible; type the number of a token, or null")
        self.path, self.tokenizer = (None if each is None else Path(each).expanduser().absolute() for each in (path, tokenizer))
        self.cache = Path(cache or os.environ.get("LAUNCHER_CACHE") or "~/.cache/launcher").expanduser().absolute()
        self.length, self.validation, self.fingerprint, self.field, self.end = length, validation, fingerprint, field, end
        self.boundaries, self.kinds = boundaries, kinds
        self._stream: Stream | None = None

    @property
    def class_names(self) -> Sequence[str]:
        """What each token stands for; none for bytes, and before a part was asked for."""
        return () if self._stream is None else self._stream.names

    @property
    def preprocessing(self) -> dict[str, object]:
        """How a text becomes what a model is given, as an export says it (docs/after-training.md)."""
        return {"kind": "text", "tokenizer": str(self.tokenizer or "bytes"), "length": self.length, "end": self.end}

    def prepare(self) -> dict[str, object]:
        """Find the text, make its tokens, and return the keywords that pin them. Raises FileNotFoundError; ValueError, OSError for what is
        wrong with a file, and OSError, with its errno, where the cache cannot be written."""
        self.path, sources = self._find()
        if self._is_mapped(sources):
            maps = _maps(sources)
            self._refuse_other(found := _fingerprint(maps))
            kinds, documents = 1 + max(int(text.max(initial=0)) for text in maps), len(maps)
        else:
            opened(self.tokenizer, self.end)  # what is wrong with it is said before all is read
            maker = self._maker(sources)
            self._refuse_other(found := maker.fingerprint())
            self._stream = maker.open(self.cache, found, self._refuse_other)
            kinds, documents = self._stream.kinds, self._stream.documents
        self._refuse_more(kinds)
        if self.boundaries and documents < 2:
            notice(f"WARNING: data.boundaries=true changes nothing: {self.path} is one document")
        if kinds > 256 and self._stream is not None:
            notice(f"{len(self._stream):,} tokens of {kinds:,} kinds; a model with fewer cannot read them: model.vocab_size={kinds}")
        self.fingerprint, self.kinds = found, kinds
        pinned: dict[str, object] = {"path": str(self.path), "fingerprint": found, "kinds": kinds}
        return pinned if self.tokenizer is None else {**pinned, "tokenizer": str(self.tokenizer)}

    def part(self, split: str, device: torch.device | str) -> Windows | None:
        """train, val, or None for test: there is none. Raises ValueError where the text is another, or shorter than a window."""
        if split == "test":
            return None
        stream = self._opened()
        end = len(stream) - round(len(stream) * self.validation)
        begin, tokens, spare = (0, end, self.length - 1) if split == "train" else (end, len(stream) - end, 0)
        windows = max(0, tokens - 1 - spare) // self.length
        if windows == 0 and split == "train":
            kind = "tokens" if self.tokenizer else "bytes"
            raise ValueError(
                f"data.length={self.length}: the training part of {self.path} has {tokens} {kind}, which is no window of that "
                f"length at every place; type data.length={max(1, tokens // 4)} or less"
            )
        apart = self.boundaries and stream.documents > 1
        return Windows(stream, begin, windows, self.length, device, boundaries=apart) if windows else None

    def _opened(self) -> Stream:
        """Tokens that were made are those of the fingerprint, whatever has become of the files; a file that is mapped is looked at."""
        if self._stream is not None:
            return self._stream
        self.path, sources = self._find()
        if self._is_mapped(sources):
            maps = _maps(sources)
            self._refuse_other(_fingerprint(maps))
            return Stream(maps)
        maker = self._maker(sources)
        self._stream = maker.open(self.cache, self.fingerprint or maker.fingerprint(), self._refuse_other)
        return self._stream

    def _find(self) -> tuple[Path, documents.Sources]:
        path, asked = self.path, f"data.path={self.path}"
        if path is None:
            shelf = os.environ.get("LAUNCHER_DATA")
            if not shelf:
                raise FileNotFoundError(
                    "data.path is null and LAUNCHER_DATA is not set: no text; type data.path=/path/to/a.txt, for Tiny Shakespeare that "
                    f"of {TINY_SHAKESPEARE}"
                )
            path, asked = Path(shelf).expanduser().absolute() / SHELF, f"LAUNCHER_DATA={shelf}"
        return path, documents.find(path, asked)

    def _is_mapped(self, sources: documents.Sources) -> bool:
        """Whether the files are the tokens: nothing is to be made."""
        return self.tokenizer is None and self.end is None and sources.kind == ".txt" and len(sources.files) <= _MAPS

    def _maker(self, sources: documents.Sources) -> Maker:
        return Maker(sources, self.tokenizer, self.field, self.end)

    def _refuse_more(self, kinds: int) -> None:
        if self.kinds is not None and self.kinds < kinds:
            raise ValueError(f"data.kinds={self.kinds}: {self.path} has tokens up to {kinds - 1}; type data.kinds=null")

    def _refuse_other(self, found: str) -> None:
        if self.fingerprint not in (None, found):
            raise ValueError(
                f"data.fingerprint={str(self.fingerprint)[:16]}…: {self.path} is another text now ({found[:16]}…), or is read in another "
                "way; put back the one that the run began with, or start a new run with data.fingerprint=null"
            )


class Windows:
    """A part of a text, as a loader technique asks for it (data/loader.py): window i begins at i * length.

    A GPU holds a part that is small. Of any other, and on a CPU, a batch is read where it lies: in memory that all processes of a node
    share, and that the kernel takes back when it needs it. A GPU is then waited for, once a micro-batch, for the places.
    """

    def __init__(
        self, stream: Stream, begin: int, windows: int, length: int, device: torch.device | str, *, boundaries: bool = False
    ) -> None:
        """From token `begin` of `stream` on, and up to length - 1 behind the last window. `boundaries`: batches number the documents."""
        import torch

        self.places = np.arange(windows)
        self._device = torch.device(device)
        self._stream, self._begin, self._length, self._boundaries = stream, begin, length, boundaries
        self._steps = torch.arange(length + 1, device=device)
        self._held: torch.Tensor | None = None
        self._ends: torch.Tensor | None = None
        """Of all documents, where tokens are held."""
        count = min(len(stream) - begin, (windows + 1) * length)
        if self._device.type != "cpu" and stream.nbytes * count <= _HELD * len(stream):
            self._held = _signed(stream.windows(np.array([begin]), count)[0]).to(device)
            self._ends = torch.from_numpy(stream.ends - begin).to(device) if boundaries else None

    def batch(self, places: torch.Tensor) -> Batch:
        return self._cut(places, 0)

    def epoch(self, seed: int, epoch: int) -> Callable[[torch.Tensor], Batch]:
        """Windows that begin by as many tokens later as this epoch draws, fewer than there are in one."""
        shift = int(words(1, SHIFT, seed, epoch)[0] % np.uint64(self._length))
        return lambda places: self._cut(places, shift)

    def _cut(self, places: torch.Tensor, shift: int) -> Batch:
        import torch

        begins = places * self._length + shift
        if self._held is not None:
            tokens = self._held[begins[:, None] + self._steps].long() & (256**self._held.itemsize - 1)
        else:
            read = self._stream.windows(begins.cpu().numpy() + self._begin, self._length + 1)
            tokens = torch.from_numpy(read.astype(np.int64)).to(self._device)
        pair = tokens[:, :-1], tokens[:, 1:]
        return (*pair, self._numbers(begins)) if self._boundaries else pair

    def _numbers(self, begins: torch.Tensor) -> torch.Tensor:
        """Of the documents, (b, length) int64."""
        import torch

        if self._ends is not None:
            return torch.searchsorted(self._ends, begins[:, None] + self._steps[:-1], right=True)
        found = self._stream.numbers(begins.cpu().numpy() + self._begin, self._length)
        return torch.from_numpy(found).to(self._device)


def _maps(sources: documents.Sources) -> list[np.ndarray]:
    return [documents.mapped(file) for file in sources.files]


def _signed(tokens: np.ndarray) -> torch.Tensor:
    """Of uint16 and uint32 torch has few operations."""
    import torch

    return torch.from_numpy(tokens if tokens.itemsize == 1 else tokens.view(f"i{tokens.itemsize}"))


def _fingerprint(texts: Sequence[np.ndarray]) -> str:
    """Of all bytes, one text behind the other."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.data)
    return digest.hexdigest()

"""Texts as bytes: every file is a sequence of the 256 tokens that there are, cut into windows of one length.

The training part is the beginning, the validation part the end, as nanoGPT divides it (https://github.com/karpathy/nanoGPT). Each epoch
cuts the training part at another place, so that over the epochs a token is seen at every position of a window.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.order import SHIFT, words

if TYPE_CHECKING:
    import torch

    Batch = tuple[torch.Tensor, torch.Tensor]
    """Tokens (b, length) int64, and the one that follows each, (b, length)."""

SHELF = "tinyshakespeare"
TINY_SHAKESPEARE = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"


class Text:
    """A file, or all *.txt of a folder, one behind the other in the order of their names."""

    def __init__(self, path: str | None = None, length: int = 128, validation: float = 0.1, fingerprint: str | None = None) -> None:
        """`path`: null is $LAUNCHER_DATA/tinyshakespeare. `length`: of a window, in tokens. `validation`: share of the text, its end.
        `fingerprint`: refuse another text. Raises ValueError naming the option."""
        if length < 1:
            raise ValueError(f"data.length={length}: not possible; type a whole number from 1")
        if not 0 <= validation < 1:
            raise ValueError(f"data.validation={validation}: not possible; type a share from 0 to below 1")
        self.path = None if path is None else Path(path).expanduser().absolute()
        self.length, self.validation, self.fingerprint = length, validation, fingerprint

    def prepare(self) -> dict[str, object]:
        """Find the text, and return the keywords that pin it. Raises FileNotFoundError, ValueError."""
        self.path = self._find()
        self.fingerprint = _fingerprint(self._read())
        return {"path": str(self.path), "fingerprint": self.fingerprint}

    def part(self, split: str, device: torch.device | str) -> Windows | None:
        """train, val, or None for test: there is none. Raises ValueError where the text is another, or shorter than a window."""
        if split == "test":
            return None
        text = self._read()
        if self.fingerprint not in (None, found := _fingerprint(text)):
            raise ValueError(
                f"data.fingerprint={str(self.fingerprint)[:16]}…: {self.path} is another text now ({found[:16]}…); "
                "put back the one that the run began with, or start a new run with data.fingerprint=null"
            )
        end = len(text) - round(len(text) * self.validation)
        piece, spare = (text[:end], self.length - 1) if split == "train" else (text[end:], 0)
        windows = max(0, len(piece) - 1 - spare) // self.length
        if windows == 0 and split == "train":
            raise ValueError(
                f"data.length={self.length}: the training part of {self.path} has {len(piece)} bytes, which is no window of that "
                f"length at every place; type data.length={max(1, len(piece) // 4)} or less"
            )
        return Windows(piece, windows, self.length, device) if windows else None

    def _find(self) -> Path:
        path, asked = self.path, f"data.path={self.path}"
        if path is None:
            shelf = os.environ.get("LAUNCHER_DATA")
            if not shelf:
                raise FileNotFoundError(
                    "data.path is null and LAUNCHER_DATA is not set: no text; type data.path=/path/to/a.txt, for Tiny Shakespeare that "
                    f"of {TINY_SHAKESPEARE}"
                )
            path, asked = Path(shelf).expanduser().absolute() / SHELF, f"LAUNCHER_DATA={shelf}"
        if not path.exists():
            raise FileNotFoundError(f"{asked}: there is no {path}; type data.path=/path/to/a.txt, or that of a folder of them")
        if path.is_dir() and not _files(path):
            raise FileNotFoundError(f"{asked}: {path} has no *.txt; type the path of a text, or of a folder of them")
        return path

    def _read(self) -> np.ndarray:
        """All bytes, (n,) uint8; of one file as the disk has them, in memory that all processes of a node share."""
        path = self._find()
        files = _files(path) if path.is_dir() else [path]
        mapped = [np.memmap(file, np.uint8, mode="c") if file.stat().st_size else np.zeros(0, np.uint8) for file in files]
        return mapped[0] if len(mapped) == 1 else np.concatenate(mapped)


class Windows:
    """A part of a text on a device, as a loader technique asks for it (data/loader.py): window i begins at i * length."""

    def __init__(self, text: np.ndarray, windows: int, length: int, device: torch.device | str) -> None:
        import torch

        self.places = np.arange(windows)
        self._text = torch.from_numpy(text).to(device)
        self._steps = torch.arange(length + 1, device=self._text.device)
        self._length = length

    def batch(self, places: torch.Tensor) -> Batch:
        return self._cut(places, 0)

    def epoch(self, seed: int, epoch: int) -> Callable[[torch.Tensor], Batch]:
        """Windows that begin by as many tokens later as this epoch draws, fewer than there are in one."""
        shift = int(words(1, SHIFT, seed, epoch)[0] % np.uint64(self._length))
        return lambda places: self._cut(places, shift)

    def _cut(self, places: torch.Tensor, shift: int) -> Batch:
        tokens = self._text[(places * self._length + shift)[:, None] + self._steps].long()
        return tokens[:, :-1], tokens[:, 1:]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.txt") if path.is_file())


def _fingerprint(text: np.ndarray) -> str:
    return hashlib.sha256(text.data).hexdigest()

"""Texts to tokens: the 256 bytes, or what a file of the `tokenizers` library makes of them.

The file is `tokenizer.json` of a model on the Hugging Face hub (https://huggingface.co/docs/tokenizers).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from data.store.files import first_line
from data.words.documents import Piece

_TOGETHER = 4 << 20
"""Bytes of texts that are handed over at once: for as many threads as there are, in little memory."""


class Tokenizer(Protocol):
    size: int
    """Tokens are 0..size-1."""

    def encode(self, pieces: Iterator[Piece]) -> Iterator[tuple[np.ndarray, Piece]]:
        """Of each piece its tokens, (n,) of any whole type."""
        ...

    def names(self) -> list[str]:
        """What each token stands for within a text; empty where they are bytes."""
        ...


class Bytes:
    size = 256

    def encode(self, pieces: Iterator[Piece]) -> Iterator[tuple[np.ndarray, Piece]]:
        return ((np.frombuffer(piece.text, np.uint8), piece) for piece in pieces)

    def names(self) -> list[str]:
        return []


class FromFile:
    """A `tokenizer.json`. It adds no tokens of its own (data.end does), and cuts and fills up nothing."""

    def __init__(self, path: Path) -> None:
        """Raises FileNotFoundError; ValueError where it is none, or `tokenizers` is not installed."""
        try:
            from tokenizers import Tokenizer as Library  # pyright: ignore[reportMissingImports]  # an extra
        except ImportError as error:
            raise ValueError(f"data.tokenizer={path}: reading it takes a library that is not installed; pip install tokenizers") from error
        fingerprint(path)  # a path that is none is said as one
        try:
            self._library = Library.from_file(str(path))
        except Exception as error:  # the library raises Exception itself
            raise ValueError(
                f"data.tokenizer={path}: is no tokenizer ({first_line(error)}); type the path of a tokenizer.json, or null for bytes"
            ) from error
        self._library.no_truncation()
        self._library.no_padding()
        self.size = 1 + max(self._library.get_vocab(with_added_tokens=True).values(), default=0)

    def encode(self, pieces: Iterator[Piece]) -> Iterator[tuple[np.ndarray, Piece]]:
        for together in _batched(pieces):
            found = self._library.encode_batch_fast([piece.text.decode() for piece in together], add_special_tokens=False)
            yield from ((np.array(each.ids, np.uint32), piece) for each, piece in zip(found, together, strict=True))

    def names(self) -> list[str]:
        """What a token adds behind a letter: by itself many a decoder would take the space away with which it begins."""
        alone = self._library.decode_batch([[token] for token in range(self.size)], skip_special_tokens=False)
        letter = next((token for token, name in enumerate(alone) if len(name) == 1 and name.isascii() and name.isalpha()), None)
        if letter is None:
            return alone
        behind = self._library.decode_batch([[letter, token] for token in range(self.size)], skip_special_tokens=False)
        return [pair[1:] if pair.startswith(alone[letter]) else name for name, pair in zip(alone, behind, strict=True)]


def fingerprint(path: Path) -> str:
    """Of a tokenizer's file. Raises FileNotFoundError, OSError."""
    if not path.is_file():
        raise FileNotFoundError(f"data.tokenizer={path}: there is no such file; type the path of a tokenizer.json, or null for bytes")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _batched(pieces: Iterator[Piece]) -> Iterator[Sequence[Piece]]:
    together: list[Piece] = []
    size = 0
    for piece in pieces:
        together.append(piece)
        size += len(piece.text)
        if size >= _TOGETHER:
            yield together
            together, size = [], 0
    if together:
        yield together

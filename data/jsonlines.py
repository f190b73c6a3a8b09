"""Samples in shards of JSON lines: numbers, or a picture as a path beside the shard or in base64, and a label.

Where each line lies is found once and kept (data/sharded/sharded.py); from then on any of them is one read.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.options import one_of
from data.sharded.inputs import Inputs
from data.sharded.labels import KINDS
from data.sharded.sharded import Sharded
from data.sharded.shards import tried
from data.store.files import compressed, first_line
from data.vision.picture import MEAN, STD, Picture
from data.vision.pictures import SUFFIXES

if TYPE_CHECKING:
    import torch

_MOST_LINE = 64 << 20
"""Bytes: a file without line ends is not read into memory to its end."""


class JsonLines(Sharded):
    """Map-style. `shards`: how many samples each shard has, for an order that goes shard by shard."""

    KIND = "lines"
    WHOLE = True

    def __init__(
        self,
        root: str | None = None,
        split: str = "train",
        train: str = "*train*.jsonl",
        val: str | None = "*val*.jsonl",
        test: str | None = "*test*.jsonl",
        columns: tuple[str, ...] = ("image",),
        label: str = "label",
        kind: str = "class",
        damaged: str = "refuse",
        size: int = 224,
        crop: float = 0.35,
        flip: bool = True,
        mean: tuple[float, ...] = MEAN,
        std: tuple[float, ...] = STD,
        decoder: str = "pillow",
        cache: str | None = None,
        fingerprint: str | None = None,
        index: dict[str, str] | None = None,
    ) -> None:
        """`columns`: the fields that a model is given: one with a picture, which is a path below the shard's folder that ends as one of a
        picture, or base64; or some with numbers and lists of them. `label`: the field with the label; `kind`: a class, which is a whole
        number or a word, or a number. The others: as WebDataset has them. Raises as that does."""
        one_of("data.kind", kind, KINDS)
        picture = Picture(size, crop, flip, mean, std, decoder)
        self.mean, self.std = mean, std
        self._inputs = Inputs(columns, picture if split == "train" else picture.plain())
        self._label = label
        super().__init__(
            root,
            split,
            {"train": train, "val": val, "test": test},
            kind=kind,
            damaged=damaged,
            cache=cache,
            fingerprint=fingerprint,
            index=index,
            decides=[list(columns), label],
        )

    @property
    def preprocessing(self) -> dict[str, object]:
        return self._inputs.preprocessing(self[0][0])

    def prepare(self) -> dict[str, object]:
        return {**super().prepare(), "decoder": self._inputs.picture.decoder}

    def read(self, index: int) -> tuple[torch.Tensor, int | float]:
        """As Inputs has it; its class, or its number."""
        shard, offset, size = self._where[index].tolist()
        path = self._files[shard]
        try:
            row = _row(self._bytes(shard, offset, size), (*self._inputs.columns, self._label))
            values = [_value(row[name], path.parent) for name in self._inputs.columns]
            return self._inputs.of(values), self.labels[index].item()
        except ValueError as error:
            raise ValueError(f"data.root={self.root}: the line at {offset} of {path.name} {error}") from error

    def nothing(self) -> str:
        return f"the fields {', '.join((*self._inputs.columns, self._label))}"

    def pieces(self, name: str) -> Iterator[tuple[tuple[int, ...], Sequence[Any]]]:
        """Where each line begins, and its bytes."""
        offset = 0
        with (self.root / name).open("rb") as file:
            if kind := compressed(file.read(6)):
                self._doubt(f"{name}: it is compressed with {kind}, so that no line can be read without all before it", "unpack it")
                return
            file.seek(0)
            for number, line in enumerate(iter(lambda: file.readline(_MOST_LINE), b""), 1):
                begin, offset = offset, offset + len(line)
                if not line.strip():
                    continue
                try:
                    label = _row(line, (*self._inputs.columns, self._label))[self._label]
                except ValueError as error:
                    cut = "" if line.endswith(b"\n") else " and has no end"
                    self._doubt(f"{name}: line {number} {error}{cut}", "mend it, or copy the file again")
                    continue
                yield (begin, len(line)), [label]

    def named(self, place: tuple[int, ...]) -> str:
        return f"the line at byte {place[0]}"


def _row(line: bytes, wanted: Sequence[str]) -> dict[str, Any]:
    """Raises ValueError, in a few words."""
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is no JSON ({first_line(error)})") from error
    if not isinstance(row, dict):
        raise ValueError(f"is no object but {line[:40]!r}")
    if missing := [name for name in wanted if name not in row]:
        raise ValueError(f"has no field {missing[0]!r}, but {', '.join(map(ascii, list(row)[:20])) or 'none'}")
    return row


def _value(value: Any, folder: Path) -> Any:
    """Bytes of a picture, where it is a text. Raises ValueError."""
    if not isinstance(value, str):
        return value
    if value[value.rfind(".") :].lower() in SUFFIXES:  # no base64 has a dot
        place = Path(value)
        if place.is_absolute() or ".." in place.parts:
            raise ValueError(f"names {value!r:.80}, which is not below the shard's folder")
        try:
            return tried((folder / place).read_bytes)
        except FileNotFoundError as error:
            raise ValueError(f"names {value!r:.80}, which is not there") from error
        except (IsADirectoryError, NotADirectoryError, ValueError) as error:  # of a name with a zero in it
            raise ValueError(f"names {value!r:.80}, which is no file") from error
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"has {value!r:.40}, which is neither a picture's path nor base64") from error

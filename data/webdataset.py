"""Pictures in shards as WebDataset has them: tars of `000.jpg` beside `000.cls`, a sample being the files with one name
(https://github.com/webdataset/webdataset).

Where each sample lies is found once, from the headers, and kept; from then on any of them is one read of its bytes. So the order may be
any, a resumed run reads what comes next and nothing before it, and each process reads its own samples alone.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from data.sharded.labels import class_of
from data.sharded.sharded import Sharded
from data.store.tar import Cut, members
from data.vision.picture import MEAN, STD, Picture

if TYPE_CHECKING:
    import torch

PICTURES = ("jpg", "jpeg", "png", "webp")
_MOST_LABEL = 1 << 16
"""Bytes of a label, or of the JSON that has it."""


class WebDataset(Sharded):
    """Map-style. `shards`: how many samples each shard has, for an order that goes shard by shard."""

    KIND = "tars"
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
        decoder: str = "pillow",
        cache: str | None = None,
        fingerprint: str | None = None,
        index: dict[str, str] | None = None,
    ) -> None:
        """`root`: the folder of the shards. `train`, `val`, `test`: which of them, by a pattern of names below it; null: none. `label`: the
        kind of file that has a sample's label, a whole number or a word; `json:key` for one that has it under that key. `damaged`: what to
        do with what cannot be read: refuse, or skip (data/README.md). `size`, `crop`, `flip`, `mean`, `std`, `decoder`: as Picture has
        them. `cache`: where it is kept which sample lies where; default $LAUNCHER_CACHE or ~/.cache/launcher. `fingerprint`: refuse other
        shards. `index`: which of what is kept the run began with. Raises ValueError naming the option, KeyError for a split that there is
        none of, FileNotFoundError; OSError, with its errno, where the cache cannot be written."""
        picture = Picture(size, crop, flip, mean, std, decoder)
        self.mean, self.std = mean, std
        self._picture = picture if split == "train" else picture.plain()
        self._label = label
        super().__init__(
            root,
            split,
            {"train": train, "val": val, "test": test},
            kind="class",
            damaged=damaged,
            cache=cache,
            fingerprint=fingerprint,
            index=index,
            decides=[label],
        )

    @property
    def preprocessing(self) -> dict[str, object]:
        return self._picture.preprocessing

    def prepare(self) -> dict[str, object]:
        return {**super().prepare(), "decoder": self._picture.decoder}

    def read(self, index: int) -> tuple[torch.Tensor, int]:
        """(3, size, size) float32, standardised; its class."""
        shard, offset, size = self._where[index].tolist()
        try:
            raw = self._bytes(shard, offset, size)
            return self._picture.of(io.BytesIO(raw)), int(self.labels[index])
        except ValueError as error:
            raise ValueError(f"data.root={self.root}: the picture at {offset} of {self._files[shard].name} {error}") from error

    def nothing(self) -> str:
        return f"a .{self._label} and a picture ({', '.join(PICTURES)})"

    def pieces(self, name: str) -> Iterator[tuple[tuple[int, ...], Sequence[Any]]]:
        """Where the picture of each sample begins, and its bytes."""
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
                    if size > _MOST_LABEL:
                        raise ValueError(f"it is larger than {_MOST_LABEL >> 10} KiB")
                    label = _label(file.read(size).decode("utf-8-sig").strip(), field)
                except (ValueError, KeyError, TypeError, RecursionError) as error:
                    self._doubt(f"{name}: {key}.{kind} has no label ({type(error).__name__}: {error})", "type data.label=")
                    continue
                yield picture, [label]


def _label(text: str, field: str) -> str:
    """Raises ValueError, KeyError, TypeError or RecursionError where there is none."""
    return class_of(json.loads(text)[field] if field else text)

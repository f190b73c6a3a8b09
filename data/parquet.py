"""Samples in parquet, many files of it: a column of pictures, or some of numbers, and one of labels.

What lies in which row group is found once, from the footers and the column of labels, and kept (data/sharded/sharded.py). A row is read
with its group, and the last groups stay in memory: `window` is how many samples may be shuffled together so that a group is read once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.options import one_of, whole
from data.sharded.inputs import Inputs
from data.sharded.labels import KINDS
from data.sharded.rowgroups import RowGroups, Rows
from data.sharded.sharded import Sharded
from data.sharded.shards import tried
from data.vision.picture import MEAN, STD, Picture

if TYPE_CHECKING:
    import torch

_OPEN = 16
"""Files; of each its footer is in memory."""


class Parquet(Sharded):
    """Map-style. `shards`: rows of each row group."""

    KIND = "rowgroups"

    def __init__(
        self,
        root: str | None = None,
        split: str = "train",
        train: str = "*train*.parquet",
        val: str | None = "*val*.parquet",
        test: str | None = "*test*.parquet",
        columns: tuple[str, ...] = ("image",),
        label: str = "label",
        kind: str = "class",
        damaged: str = "refuse",
        memory: int = 256,
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
        """`columns`: what a model is given: one of pictures, as bytes or as Hugging Face's structs of them, or some of numbers and lists of
        numbers. `label`: the column with the label; `kind`: a class, which is a whole number or a word, or a number. `memory`: MiB of row
        groups that each process keeps. The others: as WebDataset has them. Raises as that does."""
        one_of("data.kind", kind, KINDS)
        whole("data.memory", memory, 1)
        picture = Picture(size, crop, flip, mean, std, decoder)
        self.mean, self.std = mean, std
        self._inputs = Inputs(columns, picture if split == "train" else picture.plain())
        self._label, self._memory = label, memory << 20
        self._open: OrderedDict[int, RowGroups] = OrderedDict()
        self._held: OrderedDict[int, Rows] = OrderedDict()
        self.decoded = 0
        """Row groups that this process has read."""
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
        self._begins = np.cumsum(self.shards) - self.shards

    @property
    def window(self) -> int:
        """Samples of as many row groups as fit into half of the memory: a window most often begins and ends within one."""
        rows, size = int(self.shards.sum()), int(self._where[:, 3].sum())
        return max(int(self.shards.max(initial=1)), min(rows, self._memory // 2 * rows // max(1, size)))

    @property
    def preprocessing(self) -> dict[str, object]:
        return self._inputs.preprocessing(self[0][0])

    def prepare(self) -> dict[str, object]:
        return {**super().prepare(), "decoder": self._inputs.picture.decoder}

    def read(self, index: int) -> tuple[torch.Tensor, int | float]:
        """As Inputs has it; its class, or its number."""
        group = int(np.searchsorted(self._begins, index, side="right")) - 1
        shard, number, _, _ = self._where[group].tolist()
        row = index - int(self._begins[group])
        try:
            values = self._rows(group, shard, number).row(row)
            return self._inputs.of(values), self.labels[index].item()
        except ValueError as error:
            raise ValueError(f"data.root={self.root}: row {row} of group {number} of {self._files[shard].name} {error}") from error

    def nothing(self) -> str:
        return f"the columns {', '.join((*self._inputs.columns, self._label))}"

    def pieces(self, name: str) -> Iterator[tuple[tuple[int, ...], Sequence[Any]]]:
        """Which row group, its rows, and bytes of what is read of them."""
        try:
            wanted, labels = (RowGroups(self.root / name, columns) for columns in (self._inputs.columns, [self._label]))
            for number, (rows, size) in enumerate(wanted.sizes()):
                if rows:
                    found = [label for (column,) in labels.read(number).batches for label in column.to_pylist()]
                    if len(found) != rows:
                        raise ValueError(f"has {len(found)} labels in group {number}, of {rows} rows")
                    yield (number, rows, size), found
        except ValueError as error:
            self._doubt(f"{name}: {error}", "copy it again, or name the columns: data.columns=, data.label=")

    def named(self, place: tuple[int, ...]) -> str:
        return f"one of the {place[1]} rows of row group {place[0]}, which come or go together,"

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_open": OrderedDict(), "_held": OrderedDict()}

    def _together(self) -> NDArray[np.int64]:
        return self._where[:, 2]

    def _rows(self, group: int, shard: int, number: int) -> Rows:
        """Of that row group. Raises ValueError, OSError."""
        if group in self._held:
            self._held.move_to_end(group)
            return self._held[group]
        try:
            found = tried(lambda: self._read(shard, number))
        finally:
            self._check_same(shard)
        self.decoded += 1
        while self._held and found.nbytes + sum(rows.nbytes for rows in self._held.values()) > self._memory:
            self._held.popitem(last=False)
        self._held[group] = found
        return found

    def _read(self, shard: int, number: int) -> Rows:
        try:
            return self._file(shard).read(number)
        except (ValueError, OSError):
            if shard in self._open:  # it may be another file by now, or a handle that is stale
                self._open.pop(shard).close()
            raise

    def _file(self, shard: int) -> RowGroups:
        if shard not in self._open:
            if len(self._open) >= _OPEN:
                self._open.popitem(last=False)[1].close()
            self._open[shard] = RowGroups(self._files[shard], self._inputs.columns)
        self._open.move_to_end(shard)
        return self._open[shard]

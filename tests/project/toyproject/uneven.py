"""A data set that is of another length in each process: as one that lists a directory while it is being filled."""

from __future__ import annotations

import os

from toyproject.blobs import Blobs


class Uneven(Blobs):
    def __len__(self) -> int:
        return super().__len__() - (self.split == "train") * int(os.environ.get("RANK", "0"))

    def __init__(self, split: str) -> None:
        super().__init__(split)
        self.split = split

"""Memory that workers write batches into, taken again as soon as nobody has anything of a batch: to get pages of the kernel and to map
them costs more time than to fill them.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from data.processes import parcel


class Slot:
    """Memory without a name, as large as the largest batch that was ever in it."""

    def __init__(self) -> None:
        self.descriptor = parcel.memory()
        self._mapped: mmap.mmap | None = None

    def unpack(self, done: Callable[[Slot], None]) -> Any:
        """What was written to it. Tensors and arrays in that are this memory: `done`, in any thread, when the last of them is gone."""
        size = os.fstat(self.descriptor).st_size
        if self._mapped is None or len(self._mapped) < size:
            self._mapped = mmap.mmap(self.descriptor, size, flags=mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0))
        lent = np.frombuffer(self._mapped, np.uint8)
        weakref.finalize(lent, done, self).atexit = False
        return parcel.read(lent.data)

    def close(self) -> None:
        """What is still lent stays."""
        os.close(self.descriptor)
        self._mapped = None


class Slots:
    def __init__(self, most: int) -> None:
        """`most`: that are kept for later."""
        self._most, self._free, self._closed = most, deque[Slot](), False

    def lend(self) -> Slot:
        try:
            return self._free.pop()
        except IndexError:
            return Slot()

    def take_back(self, slot: Slot) -> None:
        """Nobody reads it, and no worker may still write to it."""
        if self._closed or len(self._free) >= self._most:
            slot.close()
        else:
            self._free.append(slot)

    def close(self) -> None:
        self._closed = True
        while self._free:
            self._free.pop().close()

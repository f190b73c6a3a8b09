"""How far a long walk over batches is, now and then, for whoever watches it on a terminal (launcher/clusters/screen.py)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from launcher.rundir.progress import batch_line

EVERY_SECONDS = 2.0

Batch = TypeVar("Batch")


def counted(batches: Iterable[Batch], count: int, what: str) -> Iterator[Batch]:
    """The batches, of which there are `count`. What it costs is a look at the clock for each."""
    said = time.monotonic()
    for number, batch in enumerate(batches, 1):
        yield batch
        if (now := time.monotonic()) - said > EVERY_SECONDS:
            said = now
            print(batch_line(number, count, what))

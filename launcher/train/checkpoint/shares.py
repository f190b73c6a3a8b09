"""Who looks at which file of a checkpoint: each is read once, by one rank, and no rank has much more to read than another."""

from __future__ import annotations

import re
from collections.abc import Mapping

_UNEVEN = 1.1
"""Times the mean, so far a rank takes what it has written itself: it will read it next, and then its node has it in memory."""


def shares(sizes: Mapping[str, int], world: int) -> list[list[str]]:
    """Of files, by their sizes in bytes, those of each rank: the largest first, to who wrote it where that is not too much, else to who has
    least. The same wherever it is asked.
    """
    taken: list[list[str]] = [[] for _ in range(world)]
    load, most = [0] * world, _UNEVEN * sum(sizes.values()) / world
    for name, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        writer = _writer(name)
        rank = writer if writer < world and load[writer] + size <= most else load.index(min(load))
        taken[rank].append(name)
        load[rank] += size
    return taken


def _writer(name: str) -> int:
    """By the number in `model.3.safetensors` and `rank_3.json`; what has none is rank 0's."""
    number = re.search(r"[._]([0-9]{1,7})\.", name)
    return int(number[1]) if number else 0

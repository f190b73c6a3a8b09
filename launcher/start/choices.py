"""What a message may tell to type for a cluster."""

from __future__ import annotations

import re

from launcher import CONF
from launcher.clusters import kinds

_TARGET = re.compile(r"^_target_: (\S+)$", re.MULTILINE)


def batch() -> str:
    """The clusters of conf/ on which a scheduler starts the jobs: all but those where the launcher stays with its run."""
    found = {path.stem: _TARGET.search(path.read_text(encoding="utf-8")) for path in (CONF / "cluster").glob("*.yaml")}
    return "|".join(sorted(name for name, target in found.items() if target and not kinds.named(target[1], name).attached))

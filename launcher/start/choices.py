"""What a message may tell to type for a cluster."""

from __future__ import annotations

from launcher import CONF


def batch() -> str:
    """The clusters of conf/ on which a scheduler starts the jobs: all but this machine."""
    return "|".join(sorted(path.stem for path in (CONF / "cluster").glob("*.yaml") if path.stem != "local"))

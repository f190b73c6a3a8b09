"""A distributed multi-GPU training launcher: one composed config, one frozen plan, one torchrun command or job script."""

import sys
from pathlib import Path

__version__ = "0.1.0"

PROJECT = Path(__file__).resolve().parent.parent
"""Where launcher, models, data and conf lie side by side: a checkout, or site-packages."""

CONF = PROJECT / "conf"


def put_ours_first() -> None:
    """A directory called models or data where the command is typed must not shadow ours; `python -m` puts it in front."""
    if sys.path[0] != str(PROJECT):
        sys.path.insert(0, str(PROJECT))

"""A distributed multi-GPU training launcher: one composed config, one frozen plan, one torchrun command or job script."""

from pathlib import Path

__version__ = "0.1.0"

PROJECT = Path(__file__).resolve().parent.parent
"""Where launcher, models, data and conf lie side by side: a checkout, or site-packages."""

CONF = PROJECT / "conf"

"""A distributed multi-GPU training launcher: one composed config, one frozen plan, one torchrun command or job script."""

from launcher.trust import search_path

if search_path.is_of_this_program():
    search_path.settle()

from pathlib import Path  # anybody's ./pathlib.py would have come before Python's own

__version__ = "0.1.0"

PROJECT = Path(search_path.PROJECT)
"""Where launcher, models, data and conf lie side by side: a checkout, or site-packages."""

CONF = PROJECT / "conf"

"""One process of a run whose program is the user's own: `python -m launcher.scripted RUN_DIR`, started by torchrun."""

from __future__ import annotations

import sys

from launcher.scripted.work import work
from launcher.train.worker import main

if __name__ == "__main__":
    sys.exit(main(sys.argv, work))

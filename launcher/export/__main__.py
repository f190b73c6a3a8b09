"""`python -m launcher.export`: what the verb `export` asks, as JSON on stdin; what was made as the last line of stdout."""

from __future__ import annotations

import sys

from launcher.export.make import make
from launcher.train.prepare import served

if __name__ == "__main__":
    sys.exit(served(make))

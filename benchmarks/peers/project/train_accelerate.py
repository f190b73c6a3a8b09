"""As Accelerate's users write it."""

import sys
from pathlib import Path

import work
from accelerate import Accelerator

if __name__ == "__main__":
    Accelerator(cpu=True)
    work.train(Path(sys.argv[1]))

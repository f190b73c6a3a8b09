"""What only a GPU can show, on one, in less than nine minutes: `make gpu`, or `python benchmarks/gpu.py`. The last figures: none yet.

One row for each thing that the tests show with a stand-in (benchmarks/gpu_rows.py, gpu_models.py, gpu_loader.py; another row is one more
function there).
Each runs in a process of its own, for some of them end it. Exit 0: all rows hold; 1: one does not; 2: there is no GPU here.

    python benchmarks/gpu.py save hardware     # these rows alone
    python benchmarks/gpu.py --device cpu      # the rows that have a stand-in; shows that the table works, and nothing of a GPU
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import gpu_loader, gpu_models  # noqa: F401  # they add their rows
from benchmarks.gpu_rows import ROWS, Row

SECONDS = 540.0
"""For all rows; what there is no time for is said to be so."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", choices=[[], *ROWS], metavar="row", help=f"{', '.join(ROWS)}; all where none is named")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(ROWS[options.rows[0]].show(options.device))
        return 0
    if options.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            print(f"gpu: torch {torch.__version__} sees no CUDA device on this machine; run it where one is", file=sys.stderr)
            return 2
        print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}")
    else:
        print("a CPU stands in")
    until, failed = time.monotonic() + SECONDS, 0
    for name in options.rows or ROWS:
        verdict, seconds, said = outcome(ROWS[name], options.device, until - time.monotonic())
        failed += verdict not in ("holds", "not here")
        print(f"{name:<12}{verdict:<9}{seconds:>5.0f} s  {ROWS[name].promise}: {said}", flush=True)
    return int(failed > 0)


def outcome(row: Row, device: str, left: float) -> tuple[str, float, str]:
    """(holds | FAILS | not here | no time, seconds, what was seen)."""
    if device == "cpu" and not row.on_cpu:
        return "not here", 0.0, "needs a GPU"
    if left < row.seconds:
        return "no time", 0.0, f"may take {row.seconds:.0f} s"
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gpu-row-") as home:
        words = [sys.executable, str(Path(__file__).resolve()), "--inside", "--device", device, row.name]
        try:
            done = subprocess.run(words, cwd=home, env=_environment(), capture_output=True, text=True, timeout=row.seconds, check=False)
        except subprocess.TimeoutExpired:
            return "FAILS", time.monotonic() - began, f"took more than {row.seconds:.0f} s"
    lines = [line for line in (done.stdout if done.returncode == 0 else done.stderr).splitlines() if line.strip()]
    return "FAILS" if done.returncode else "holds", time.monotonic() - began, lines[-1] if lines else f"ended with {done.returncode}"


def _environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parent.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}


if __name__ == "__main__":
    sys.exit(main())

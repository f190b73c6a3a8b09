"""What `run.progress` and `run.should_stop` of launcher/script.py cost a script of your own, in microseconds a call.

    python benchmarks/script_progress.py [--calls 200000] [--rounds 10]

One process, a loss that is a tensor, as a loop would give it; the lines that go to the disk once a second are among them. `nothing` is the
loop without either.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from measure import load, machine, one_line, rotated, versions

from launcher.script import Run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=10)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        told = {"LAUNCHER_RUN_DIR": place, "LAUNCHER_STOP_SIGNAL": "TERM", "RANK": "0", "WORLD_SIZE": "1", "LAUNCHER_ATTEMPT": "000"}
        run, loss, total = Run(told), torch.tensor(0.5), 1 << 60

        def progress() -> None:
            for step in range(asked.calls):
                run.progress(step, total, loss=loss)

        def should_stop() -> None:
            for _ in range(asked.calls):
                run.should_stop()

        def nothing() -> None:
            for _ in range(asked.calls):
                pass

        contenders = {"nothing": nothing, "progress": progress, "should_stop, one process": should_stop}
        taken: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(asked.rounds):
            for name in rotated([*contenders], turn):
                began = time.perf_counter()
                contenders[name]()
                taken[name].append(1e6 * (time.perf_counter() - began) / asked.calls)
        run.close()
    for name, each in taken.items():
        each.sort()
        print(f"{name}: {each[len(each) // 2]:.3f} us a call (median of {asked.rounds}; {each[0]:.3f} to {each[-1]:.3f})")
    print(f"{asked.calls:,} calls a round; {one_line(machine())}; load {load()}")
    print(one_line(versions("torch")))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""False alarms: how often the guards of an export say something of CIFAR-10's own test images, of which nothing is odd.

    python benchmarks/guards.py --export DIR [--root DIRECTORY] [--count 10000]      half a minute on two idle cores

Each of the 10,000 goes through `predict`, and the share of each guard is printed with its interval (Wilson, 1927,
https://doi.org/10.1080/01621459.1927.10502953). Nothing is trained. `unsure` is told apart: it is the model's word of itself (unsure=0.5),
and right where it would have been wrong. `--root`: CIFAR-10's, as data.root takes it; without it shared/data/cifar10 beside the repository.
Exit code 1: more than 1 % are false alarms.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure import load, machine, one_line, table, versions

from data.cifar10 import CLASSES, FILES
from launcher import PROJECT
from launcher.exported import folder
from launcher.exported.folder import Folder
from launcher.predict.predictor import UNSURE

ALLOWED = 0.01
"""Of a test set, of which nothing is odd."""
_DEVIATIONS = 1.959964
"""Of the normal distribution, between which 95 % lie."""


def wilson(found: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share."""
    share, square = found / count, _DEVIATIONS**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = _DEVIATIONS * math.sqrt(share * (1 - share) / count + square / (4 * count**2)) / (1 + square / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def unpacked(file: Path, count: int, into: Path) -> list[str]:
    """The images as the files that they are, in their order; returns their classes."""
    from pyarrow import parquet

    rows = parquet.read_table(file).slice(0, count).to_pylist()
    for number, row in enumerate(rows):
        raw = row["img"]["bytes"]
        suffix = ".png" if raw.startswith(b"\x89PNG") else ".jpg"
        (into / f"{number:05d}{suffix}").write_bytes(raw)
    return [CLASSES[row["label"]] for row in rows]


def predicted(export: Path, images: Path) -> list[dict[str, Any]]:
    """By the command itself, as anybody types it."""
    with tempfile.TemporaryDirectory() as place:
        to = Path(place, "answers.jsonl")
        words = [sys.executable, "-m", "launcher", "predict", str(export), str(images), f"to={to}"]
        done = subprocess.run(words, cwd=PROJECT, stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            sys.exit(done.returncode)
        return [json.loads(line) for line in to.read_text(encoding="utf-8").splitlines()]


def alarms(answers: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """Of how many images each guard says something, all of them first; a guard is called by what stands before its colon."""
    names = [{guard.partition(":")[0] for guard in answer["guards"]} - {UNSURE} for answer in answers]
    return [("false alarms", sum(map(bool, names))), *Counter(name for each in names for name in each).most_common()]


def shown(name: str, found: int, count: int) -> list[str]:
    low, high = wilson(found, count)
    return [name, f"{found:,} of {count:,}", f"{found / count:.2%}", f"{low:.2%} to {high:.2%}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--export", type=Path, required=True, help="of a model of CIFAR-10")
    parser.add_argument("--root", type=Path, default=PROJECT.parent / "shared" / "data" / "cifar10")
    parser.add_argument("--count", type=int, default=10_000, help="of the test images, the first")
    asked = parser.parse_args()
    file = asked.root / FILES["test"]
    if not file.is_file():
        print(f"skipped: the real CIFAR-10 is not in {asked.root}; type --root", file=sys.stderr)
        return 0
    with tempfile.TemporaryDirectory() as place:
        labels = unpacked(file, asked.count, Path(place))
        answers = predicted(asked.export, Path(place))
    count, counted = len(answers), alarms(answers)
    wrong = [answer["class"] != label for answer, label in zip(answers, labels, strict=True)]
    unsure = [is_wrong for answer, is_wrong in zip(answers, wrong, strict=True) if answer["prediction"] == UNSURE]
    rows = [["what", "images", "share", "95 % (Wilson)"], *(shown(name, found, count) for name, found in counted)]
    rows.append(shown("unsure (no alarm)", len(unsure), count))
    rows += [shown("wrong among the unsure", sum(unsure), len(unsure))] if unsure else []
    rows.append(shown("wrong in all", sum(wrong), count))
    print(table(rows))
    fitted = Folder(asked.export).json(folder.GUARDS)
    print(f"guards fitted to {fitted['samples']:,} training images, their limit to {fitted['held_out']:,} others")
    print(f"{one_line(machine())}; load {load()}; {one_line(versions('torch', 'pillow'))}")
    return int(counted[0][1] > ALLOWED * count)


if __name__ == "__main__":
    sys.exit(main())

"""How long a folder of 100,000 pictures takes to be listed, and to be taken from what was listed before (data/vision/pictures.py).

    python benchmarks/listing.py [PLACE]      PLACE: a directory on the file system in question; default: a temporary one

Prints seconds, the least and the most of five rounds. The files are empty: a list looks at names alone.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.vision.pictures import pictures

CLASSES, EACH, ROUNDS = 1000, 100, 5


def main() -> int:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as place:
        root, listed, taken = Path(place, "root"), list[float](), list[float]()
        for number in range(CLASSES):
            folder = root / f"n{number:08d}"
            folder.mkdir(parents=True)
            for each in range(EACH):
                (folder / f"{number:08d}_{each}.JPEG").touch()
        for turn in range(ROUNDS):
            cache = Path(place, f"cache{turn}")
            for seconds in (listed, taken):
                began = time.perf_counter()
                found = pictures(root, cache)
                seconds.append(time.perf_counter() - began)
                assert len(found.names) == CLASSES * EACH
        print(f"{CLASSES * EACH:,} files in {CLASSES:,} folders, n={ROUNDS}")
        for what, seconds in (("listed", listed), ("taken from the cache", taken)):
            print(f"  {what}: {min(seconds):.2f} to {max(seconds):.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())

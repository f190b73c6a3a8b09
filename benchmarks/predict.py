"""What `predict` costs beside a loop written by hand over the same program: pictures a second, decoding and all, in rounds.

    python benchmarks/predict.py EXPORT FOLDER [--rounds 20]      FOLDER: pictures, a thousand of them say

The loop by hand opens each picture by Pillow, standardises it by NumPy, stacks 64 and calls `torch.export.load(...).module()`. It runs
twice in each round: the ratio of the two is what the machine's noise is.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from measure import export_and_folder, load, machine, one_line, ratios, rotated, versions
from PIL import Image

from launcher.predict import ask
from launcher.predict.predictor import Asked, Predictor
from launcher.predict.sources import paths

BATCH = 64


def by_hand(export: Path, files: list[Path]) -> Callable[[], list[int]]:
    told = json.loads((export / "preprocessing.json").read_text())
    mean, std = (np.array(told[key], np.float32) for key in ("mean", "std"))
    model = torch.export.load(export / "program.pt2").module()
    width, height = told["size"][::-1]

    def loop() -> list[int]:
        found: list[int] = []
        with torch.inference_mode():
            for begin in range(0, len(files), BATCH):
                pixels: list[np.ndarray] = []
                for path in files[begin : begin + BATCH]:
                    with Image.open(path) as image:
                        shown = image.convert(told["mode"])
                    shown = shown if shown.size == (width, height) else shown.resize((width, height), Image.Resampling.BILINEAR)
                    pixels.append((np.asarray(shown, np.float32).reshape(height, width, -1) / 255 - mean) / std)
                batch = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
                found += model(batch).softmax(-1).argmax(-1).tolist()
        return found

    return loop


def main() -> int:
    asked = export_and_folder(__doc__, rounds=20)
    predictor = Predictor(asked.export, asked=Asked(unsure=0))
    files = [Path(each) for each in paths([str(asked.folder)], "image")]

    def ours() -> list[int]:
        answers = ask.answered([predictor], ask.items(iter(files), predictor), BATCH)
        return [predictor.labels.index(answer["class"]) for answer in answers]

    loop = by_hand(asked.export, files)
    contenders = {"predict": ours, "by hand": loop, "by hand again": loop}
    found = {name: run() for name, run in contenders.items()}
    print(f"{len(files):,} pictures; the same answer for {np.mean(np.array(found['predict']) == found['by hand']):.2%} of them")
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(asked.rounds):
        for name in rotated([*contenders], turn):
            began = time.perf_counter()
            contenders[name]()
            seconds[name].append(time.perf_counter() - began)
    for name in ("predict", "by hand again"):
        print(f"pictures a second, {name} / by hand: {ratios(seconds['by hand'], seconds[name]).as_ratio()}, n={asked.rounds}")
    print(f"{len(files) / sorted(seconds['predict'])[asked.rounds // 2]:,.0f} pictures a second; {one_line(machine())}; load {load()}")
    print(one_line(versions("torch", "pillow", "numpy")))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What training against FGSM is worth: exp=cifar for a few epochs, plainly and with train.adversarial=fgsm, and how many of 2,000
test images each gets right as they are, under FGSM and under PGD at 2/255.

    python benchmarks/robustness.py --root DIRECTORY      # CIFAR-10's, as data.root takes it; about six minutes on two idle cores
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from launcher import PROJECT
from launcher.export import source
from launcher.plan import Mesh
from launcher.rundir.rundir import RunDir
from launcher.train import data_set
from launcher.train.robust.table import rows
from launcher.train.work import read_config

EPSILON = 2 / 255
WAYS = {"plain": "null", "fgsm": "fgsm"}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--root", help="data.root; without it data.source=auto finds the data, or draws a stand-in")
    words.add_argument("--epochs", type=int, default=3)
    words.add_argument("--samples", type=int, default=2_000, help="of the test part")
    words.add_argument("--seed", type=int, default=0)
    asked = words.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, adversarial in WAYS.items():
            given = [f"runs_dir={folder}", f"id={name}", f"seed={asked.seed}", f"train.epochs={asked.epochs}", "train.eval_every=0"]
            given += [f"train.adversarial={adversarial}", *([f"data.root={Path(asked.root).absolute()}"] if asked.root else [])]
            done = subprocess.run([sys.executable, "-m", "launcher", "+exp=cifar", *given], cwd=PROJECT, stdout=subprocess.DEVNULL)
            if done.returncode:
                sys.exit(done.returncode)
            found[name] = judged(RunDir(Path(folder, "cifar", name)), asked.samples)
            print(f"{name}: {json.dumps(found[name])}", flush=True)


def judged(run: RunDir, samples: int) -> dict[str, float]:
    """Accuracy on so many of the test images, with the averaged weights, in float32."""
    config = read_config(run)
    _, loader = data_set.opened(config, Mesh().at(0), torch.device("cpu"))
    images, labels = (torch.cat(parts)[:samples] for parts in zip(*loader.evaluation("test"), strict=True))
    model = source.built(run, config).to(memory_format=torch.channels_last).eval()
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        source.weights(run, config, "newest", Path(file.name))
        source.fill(model, Path(file.name))
    said = data_set.build(config["data"]).preprocessing
    batches = zip(images.split(500), labels.split(500), strict=True)
    table = rows(model, batches, said["mean"], said["std"], epsilons=(EPSILON,), corruptions=())
    return {"samples": table["samples"], "clean": table["clean"], **{row["kind"]: row["accuracy"] for row in table["rows"]}}


if __name__ == "__main__":
    main()

"""`python -m launcher.train.look`: what a config would train on, without training. The config as JSON on stdin, as prepare.py has it; what
was seen as the last line of stdout. The verb `data` prints it.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from launcher.config import targets
from launcher.errors import RunError
from launcher.plan import Mesh
from launcher.strategies.draws import plant
from launcher.train import data_set
from launcher.train.prepare import served
from launcher.train.record.board import grid
from launcher.train.seeds import of_weights

LOOK_SECONDS, SPEED_SECONDS = 20.0, 3.0
"""For the samples of each split, and for batches as training has them."""
SPLITS = ("train", "val", "test")


def look(given: Mapping[str, Any]) -> dict[str, Any]:
    """Counts, labels, repeated samples, batches a second; a picture or text of a batch, as the task shows it, at `given["picture"]`. Raises
    ConfigError or RunError."""
    config = given["config"]
    plant(of_weights(config["seed"]))
    data, loader = data_set.opened(config, Mesh().at(0), torch.device("cpu"))
    try:
        seen: dict[bytes, tuple[str, int | None]] = {}
        splits = [_split(split, loader.evaluation(split), seen) for split in SPLITS]
        batch, speed = _speed(loader)
        page = Page(Path(given["picture"]))
        targets.build(config["task"]).show_batch(page, batch, 0)
    finally:
        loader.close()
    names = [str(name) for name in getattr(data, "class_names", ())]
    leaves = [leaf for leaf in pytree.tree_leaves(batch) if isinstance(leaf, torch.Tensor)]
    return {
        "splits": splits,
        "sample": [f"{tuple(leaf.shape[1:])} {str(leaf.dtype).removeprefix('torch.')}" for leaf in leaves],
        "bytes": sum(leaf[0].numel() * leaf.element_size() for leaf in leaves),
        "names": names,
        "steps": loader.steps_per_epoch,
        "speed": speed,
        "is_standin": bool(getattr(data, "standin", False)),
        "picture": str(page.path) if page.is_drawn else None,
        "texts": page.texts,
    }


def _split(name: str, part: Any, seen: dict[bytes, tuple[str, int | None]]) -> dict[str, Any]:
    """Sample by sample, as evaluations have them. `seen`: of each sample before, by what is in it, split and label; grows."""
    labels: Counter[int] = Counter()
    found = dict.fromkeys(("looked_at", "repeated", "leaked", "at_odds"), 0)
    began = time.monotonic()
    for batch in part:
        for sample, label in zip(*_of_batch(batch), strict=True):
            found["looked_at"] += 1
            if label is not None:
                labels[label] += 1
            if (before := seen.get(key := _digest(sample))) is None:
                seen[key] = name, label
                continue
            split, other = before
            found["repeated"] += split == name
            found["leaked"] += split != name
            found["at_odds"] += label != other
        if time.monotonic() - began > LOOK_SECONDS:
            break
    return {"name": name, "samples": part.samples, "labels": {str(label): count for label, count in labels.items()}, **found}


def _of_batch(batch: Any) -> tuple[torch.Tensor, list[int | None]]:
    """What a model is given, (N, …), and the label of each, where that is what comes last."""
    leaves = [leaf for leaf in pytree.tree_leaves(batch) if isinstance(leaf, torch.Tensor)]
    given, last = leaves[0], leaves[-1]
    has_labels = len(leaves) > 1 and last.ndim == 1 and last.dtype == torch.int64
    return given, last.tolist() if has_labels else [None] * len(given)


def _digest(sample: torch.Tensor) -> bytes:
    return hashlib.blake2b(sample.contiguous().numpy().tobytes(), digest_size=16).digest()


def _speed(loader: Any) -> tuple[Any, float]:
    """The first micro-batch of the first epoch, as it is trained on, and samples a second of those after it; of that one, where it is the
    only one."""
    began = time.perf_counter()
    steps = loader.steps(0)
    first, count = next(steps), 0
    made = time.perf_counter()
    for batch in steps:
        count += len(_of_batch(batch)[0])
        if time.perf_counter() - made > SPEED_SECONDS:
            break
    now = time.perf_counter()
    return first, count / (now - made) if count else len(_of_batch(first)[0]) / (made - began)


class Page:
    """In the place of a board: what a task shows of a batch, as one picture and as text."""

    def __init__(self, path: Path) -> None:
        self.path, self.is_drawn, self.texts = path, False, list[str]()

    def images(self, tag: str, images: torch.Tensor, step: int) -> None:
        from PIL import Image

        pixels = (grid(images, 8).clamp(0, 1) * 255).byte().permute(1, 2, 0)
        picture = Image.fromarray(pixels.expand(-1, -1, 3).contiguous().numpy())
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            aside = self.path.with_name(f"tmp.{self.path.name}")
            picture.save(aside, "png")
            aside.replace(self.path)
        except OSError as error:
            raise RunError(f"{self.path} cannot be written ({error.strerror or error}); choose another runs_dir=…") from error
        self.is_drawn = True

    def text(self, tag: str, text: str, step: int = 0) -> None:
        self.texts.append(text)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **named: None


if __name__ == "__main__":
    sys.exit(served(look))

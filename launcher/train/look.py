"""`python -m launcher.train.look`: what a config would train on, without training. The config as JSON on stdin, as prepare.py has it; what
was seen as the last line of stdout. The verb `data` prints it.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from launcher.config import targets
from launcher.errors import ConfigError, RunError
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
    try:
        return _looked(config, Path(given["picture"]))
    except RuntimeError as error:
        if not str(error).startswith("data: "):
            raise
        raise ConfigError(str(error)) from error  # a sample that cannot be read, by loader=resident where it opens


def _looked(config: Mapping[str, Any], picture: Path) -> dict[str, Any]:
    data, loader = data_set.opened(config, Mesh().at(0), torch.device("cpu"))
    try:
        seen: dict[bytes, tuple[str, int | None]] = {}
        splits = [_split(split, loader.evaluation(split), seen) for split in SPLITS]
        batch, speed = _speed(loader)
        page = Page(picture)
        _show(targets.build(config["task"]), page, batch)
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


def _show(task: Any, page: Page, batch: Any) -> None:
    """What a task of somebody's own cannot show does not take away what else was seen. Raises RunError."""
    try:
        task.show_batch(page, batch, 0)
    except RunError:
        raise
    except Exception as error:  # a user's code
        page.text("", f"{type(task).__name__} shows nothing of a batch ({type(error).__name__}: {' '.join(str(error).split())[:160]})")


def _split(name: str, part: Any, seen: dict[bytes, tuple[str, int | None]]) -> dict[str, Any]:
    """Sample by sample, as evaluations have them. `seen`: of each sample before, by what is in it, split and label; grows."""
    labels: Counter[int] = Counter()
    found = dict.fromkeys(("looked_at", "repeated", "leaked", "at_odds"), 0)
    began = time.monotonic()
    for batch in part:
        given, all_labels = _of_batch(batch)
        for place, label in enumerate(all_labels):
            found["looked_at"] += 1
            if label is not None:
                labels[label] += 1
            if (before := seen.get(key := _digest([leaf[place] for leaf in given]))) is None:
                seen[key] = name, label
                continue
            split, other = before
            found["repeated"] += split == name
            found["leaked"] += split != name
            found["at_odds"] += label != other
        if time.monotonic() - began > LOOK_SECONDS:
            break
    return {"name": name, "samples": part.samples, "labels": {str(label): count for label, count in labels.items()}, **found}


def _of_batch(batch: Any) -> tuple[list[torch.Tensor], list[int | None]]:
    """What a model is given, each (N, …), and the label of each, where that is what comes last. What is to be found is last too, unless
    parts have names: then nobody knows."""
    leaves = [leaf for leaf in pytree.tree_leaves(batch) if isinstance(leaf, torch.Tensor)]
    if not leaves:
        raise ConfigError("data: a sample has no numbers in it; return arrays, tensors or numbers")
    last = leaves[-1]
    has_labels = len(leaves) > 1 and last.ndim == 1 and last.dtype == torch.int64
    is_whole = len(leaves) == 1 or (isinstance(batch, Mapping) and not has_labels)
    return leaves if is_whole else leaves[:-1], last.tolist() if has_labels else [None] * len(last)


def _digest(sample: Sequence[torch.Tensor]) -> bytes:
    """Of its bytes: NumPy has not all types of torch's."""
    digest = hashlib.blake2b(digest_size=16)
    for part in sample:
        digest.update(part.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.digest()


def _speed(loader: Any) -> tuple[Any, float]:
    """The first micro-batch of the first epoch, as it is trained on, and samples a second of those after it; of that one, where it is the
    only one."""
    began = time.perf_counter()
    steps = loader.steps(0)
    first, count = next(steps), 0
    made = time.perf_counter()
    for batch in steps:
        count += len(_of_batch(batch)[1])
        if time.perf_counter() - made > SPEED_SECONDS:
            break
    now = time.perf_counter()
    return first, count / (now - made) if count else len(_of_batch(first)[1]) / (made - began)


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

"""What a model says of each sample, taken down while the task's own metrics are made: one pass over the split makes both."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch.utils import _pytree as pytree

from launcher.train.tasks.task import Metrics, Model, Task

Rows = dict[str, torch.Tensor]
"""By name, of all samples one behind the other, so that those of several processes are joined end to end. What ends in `_place` counts
samples from the process's first."""


class Taker(Protocol):
    """One for each kind of prediction."""

    def add(self, outputs: Any, batch: Any, first: int) -> None:
        """One batch, whose first sample is the process's `first`."""
        ...

    def rows(self) -> Rows: ...


class Nothing:
    """Of a task whose outputs nobody knows to read."""

    def add(self, outputs: Any, batch: Any, first: int) -> None:
        pass

    def rows(self) -> Rows:
        return {}


class Watched:
    """A task, with what its metrics ask of the model passed on to a taker."""

    def __init__(self, task: Task, taker: Taker, tick: Callable[[], None]) -> None:
        """`tick`: called before each batch."""
        self._task, self._taker, self._tick = task, taker, tick
        self._digests: list[torch.Tensor] = []
        self.samples = 0

    def metrics(self) -> _Watched:
        return _Watched(self._task.metrics(), self)

    def take(self, outputs: Any, batch: Any) -> None:
        digests = _digests(batch)
        self._taker.add(outputs, batch, self.samples)
        self._digests.append(digests)
        self.samples += len(digests)

    def tick(self) -> None:
        self._tick()

    def rows(self) -> Rows:
        digests = torch.cat(self._digests) if self._digests else torch.empty(0, 16, dtype=torch.uint8)
        return {"digest": digests, **self._taker.rows()}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)


class _Watched:
    """The metrics of the task. A model is asked once for a batch, or first for the whole and then for what is shown of it."""

    def __init__(self, metrics: Metrics, watched: Watched) -> None:
        self._metrics, self._watched = metrics, watched
        self._is_over = False

    def update(self, model: Model, batch: Any) -> None:
        self._watched.tick()
        given: list[Any] = []

        def asked(*inputs: Any, **named: Any) -> Any:
            outputs = model(*inputs, **named)
            if not given:
                given.append(outputs)
            return outputs

        self._metrics.update(asked, batch)
        if not self._is_over and given:
            self._watched.take(given[0], batch)

    def state(self) -> Mapping[str, torch.Tensor]:
        self._is_over = True  # what comes after it counts for nothing (launcher/train/evaluate.py)
        return self._metrics.state()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._metrics, name)


class Most:
    """The samples with the highest of some number, and what is kept of each."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._kept: Rows = {}

    def add(self, by: torch.Tensor, first: int, keep: Callable[[torch.Tensor], Mapping[str, torch.Tensor]]) -> None:
        """`by` (N,), -inf for one that is not meant; `keep` makes of the places of some, (k,), what is kept of each."""
        best = torch.topk(by, min(self._count, len(by))).indices
        best = best[by[best] > -torch.inf]
        if not len(best):
            return
        rows = {"by": by[best].cpu(), "place": first + best.cpu(), **{name: each.cpu() for name, each in keep(best).items()}}
        self._kept = {name: torch.cat([self._kept[name], each]) for name, each in rows.items()} if self._kept else rows
        order = torch.argsort(self._kept["by"], descending=True, stable=True)[: self._count]
        self._kept = {name: each[order] for name, each in self._kept.items()}

    def rows(self, name: str) -> Rows:
        return {f"{name}_{key}": each for key, each in self._kept.items()}


def most(rows: Mapping[str, torch.Tensor], name: str, count: int) -> Rows:
    """Of those that several processes kept."""
    kept = {key.removeprefix(f"{name}_"): each for key, each in rows.items() if key.startswith(f"{name}_")}
    if not kept:
        return {}
    order = torch.argsort(kept["by"], descending=True, stable=True)[:count]
    return {key: each[order] for key, each in kept.items()}


def joined(parts: list[Rows]) -> Rows:
    """Of several processes, whose shares follow each other."""
    first, moved = 0, list[Rows]()
    for part in parts:
        moved.append({name: each + first if name.endswith("_place") else each for name, each in part.items()})
        first += len(part["digest"])
    return {
        name: torch.cat([part[name] for part in moved if name in part]) for name in dict.fromkeys(name for part in moved for name in part)
    }


def fingerprint(rows: Rows) -> str:
    """Of all samples, what is given and what is to be found, in their order: the same however they were shared out."""
    return hashlib.sha256(rows["digest"].numpy().tobytes()).hexdigest()


def _digests(batch: Any) -> torch.Tensor:
    """(N, 16) uint8, of the bytes of each sample."""
    leaves = [leaf.detach().cpu().contiguous() for leaf in pytree.tree_leaves(batch) if isinstance(leaf, torch.Tensor)]
    flat = [leaf.reshape(len(leaf), -1).view(torch.uint8).numpy() for leaf in leaves]
    texts = [hashlib.blake2b(b"".join(part[place].tobytes() for part in flat), digest_size=16).digest() for place in range(len(leaves[0]))]
    return torch.frombuffer(bytearray(b"".join(texts)), dtype=torch.uint8).view(-1, 16)

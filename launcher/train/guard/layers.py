"""How each layer learns: the norm of its gradient, how far an update moves it, how many of its outputs get no gradient at all.

Looked at every so many steps: on one rank where gradients are the same on all, on each where it holds a piece of them. The numbers come to
the host while the next step runs.
"""

from __future__ import annotations

import statistics
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from launcher.strategies.protocol import Piece
from launcher.train.device import widest
from launcher.train.local import gradients, local, summed
from launcher.train.record.meter import Fetch

_SAMPLE = 65_536
"""Elements of a tensor by which its update is judged: the first in memory."""
_FORGOTTEN = 1e-4
"""An update that moves a layer by so little of what the median layer is moved by has no effect on it."""
_EXPLODED = 100.0
"""A gradient so many times its own median until now."""
_DEAD = 0.5
"""Of the outputs of a layer."""
_KNOWN = 5
"""Looks before a gradient is called large for its layer, or an output dead."""
_REMEMBERED = 100
"""Looks of which the median is taken, and that a checkpoint keeps."""
_SILENT = "silent|"


class Layers:
    """`every` in steps, 0: never. `around` an update, then `finish` with the next one."""

    def __init__(
        self, model: nn.Module, every: int, pieces: Mapping[str, Piece] = MappingProxyType({}), rank: int = 0, world: int = 1
    ) -> None:
        """`pieces`: what this rank holds of each parameter; nothing said: all of it, as every rank does."""
        trained = [(name, tensor) for name, tensor in model.named_parameters() if tensor.requires_grad]
        self._named = [(name, tensor) for name, tensor in trained if tensor.numel()]
        elsewhere = {name for name, piece in pieces.items() if rank not in piece.replicas}
        self._places = {name: place for place, name in enumerate(name for name, tensor in trained if tensor.numel() or name in elsewhere)}
        """Of every layer that some rank has, the same on all."""
        self._is_split = any(len(piece.replicas) < world for piece in pieces.values())
        self._not_counted = {name for name, piece in pieces.items() if self._is_split and piece.owner != rank}
        """Another rank counts what is held there too."""
        self._by_rows = {name for name, tensor in self._named if local(tensor).shape[1:] == tensor.shape[1:]}
        sparse = [module for module in model.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag)]
        self._sparse = {id(parameter) for module in sparse for parameter in module.parameters()}
        """Most of their rows get no gradient in any one update."""
        self._vectors = {name for name, tensor in self._named if tensor.ndim < 2}
        self._every = every if self._is_split or rank == 0 else 0
        self._silent: dict[str, torch.Tensor] = {}
        """Outputs that have had no gradient in any look."""
        self._looked: list[str] = []
        self._device = next((local(tensor).device for _, tensor in trained), torch.device("cpu"))
        self._pending: tuple[int, Fetch] | None = None
        self._seen: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))
        self._told: set[str] = set()

    def around(self, step: int) -> Callable[[Callable[[], None]], None] | None:
        """What makes the update of `step` and looks at the layers before and after; None where no look is due."""
        if not self._every or step % self._every:
            return None
        return lambda update: self._look(step, update)

    @torch.no_grad()
    def _look(self, step: int, update: Callable[[], None]) -> None:
        looked = [(name, tensor) for name, tensor in self._named if tensor.grad is not None]
        if not looked:  # a stage that is frozen, and others are not
            update()
            sums = torch.zeros(5, 0, dtype=widest(self._device), device=self._device)
        else:
            sums = self._changes(looked, update)
        self._looked = [name for name, _ in looked]
        if self._is_split:
            sums = self._summed(sums)
        norms, moved, were, dead, looks = sums
        self._pending = step, Fetch(torch.stack([norms.sqrt(), moved.sqrt() / were.sqrt().clamp_min(1e-12), dead, looks]))

    def _changes(self, looked: Sequence[tuple[str, torch.Tensor]], update: Callable[[], None]) -> torch.Tensor:
        """Of these layers, by `update`: squares of the norm of the gradient, of the change and of what was there; dead outputs; ones."""
        norms = torch._foreach_norm(gradients(tensor for _, tensor in looked))  # pyright: ignore[reportPrivateImportUsage]
        dead = torch.stack([self._dead(name, tensor) for name, tensor in looked])
        weights = [_sample(tensor) for _, tensor in looked]
        before = [weight.to(widest(weight.device)) for weight in weights]
        update()
        moved = [(now.to(then.dtype) - then).norm() for now, then in zip(weights, before, strict=True)]
        norms, moved, were = (_squares(each) for each in (norms, moved, [then.norm() for then in before]))
        return torch.stack([norms, moved, were, dead, torch.ones_like(dead)])

    def _summed(self, here: torch.Tensor) -> torch.Tensor:
        """Over the ranks, of every layer that some rank has; `here` (5, layers looked at)."""
        counted = [place for place, name in enumerate(self._looked) if name not in self._not_counted]
        sums = here.new_zeros(len(here), len(self._places))
        sums[:, [self._places[self._looked[place]] for place in counted]] = here[:, counted]
        self._looked = list(self._places)
        return summed(sums)

    def _dead(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """The share of outputs (first dimension), of those that are here, that have had no gradient in any look; 0 for vectors, whose
        zeros say little, and where parts of outputs are here."""
        gradient = None if tensor.grad is None else local(tensor.grad)
        if tensor.ndim < 2 or gradient is None or id(tensor) in self._sparse or name not in self._by_rows:
            return torch.zeros((), dtype=widest(tensor.device), device=tensor.device)
        silent = gradient.flatten(1).abs().amax(1) == 0
        self._silent[name] = silent & self._silent.get(name, silent)
        return self._silent[name].to(widest(tensor.device)).sum() / len(tensor)

    def finish(self, step: int, board: Any) -> list[str]:
        """Show what was begun before `step`, if anything was. Returns what to warn of: one line for a layer, once."""
        if self._pending is None or self._pending[0] == step:
            return []
        (looked, fetch), self._pending = self._pending, None
        seen = zip(self._looked, *fetch.value().tolist(), strict=True)
        if not (seen := [each for each in seen if each[-1]]):
            return []
        names, norms, moved, dead, _ = zip(*seen, strict=True)
        for kind, values in (("grad_norm", norms), ("update_ratio", moved), ("dead", dead)):
            board.layers(looked, kind, dict(zip(names, values, strict=True)))
        return [line for line in map(self._judge, names, norms, moved, dead, [statistics.median(moved)] * len(names)) if line]

    def history(self) -> dict[str, Any]:
        """What `remember` needs, for JSON; of the looks that are finished."""
        return {"seen": {name: list(norms) for name, norms in self._seen.items()}, "told": sorted(self._told)} if self._every else {}

    def remember(self, history: Mapping[str, Any]) -> None:
        """Go on from there, and forget what came after."""
        self._pending = None
        self._seen.clear()
        for name, norms in history.get("seen", {}).items():
            self._seen[name].extend(norms)
        self._told = set(history.get("told", ()))

    def tensors(self) -> dict[str, torch.Tensor]:
        """On the device yet: reading them would wait for it."""
        return {_SILENT + name: silent for name, silent in self._silent.items()}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """What `tensors` gave."""
        found = {name: (tensors[_SILENT + name], local(tensor)) for name, tensor in self._named if _SILENT + name in tensors}
        self._silent = {name: silent.to(tensor.device) for name, (silent, tensor) in found.items() if len(silent) == len(tensor)}

    def _judge(self, name: str, norm: float, moved: float, dead: float, usual: float) -> str:
        seen, what = self._seen[name], ""
        is_vector = name in self._vectors  # a bias before a norm has no gradient to speak of, and needs none
        median = statistics.median(seen) if len(seen) >= _KNOWN else 0.0
        if norm == 0 and not is_vector:
            what = "no gradient reaches it"
        elif dead >= _DEAD and len(seen) >= _KNOWN:
            what = f"{dead:.0%} of its outputs get no gradient, and never did"
        elif median and norm > _EXPLODED * median:
            what = f"its gradient is {norm:.3g}, and was {median:.3g}"
        elif moved < _FORGOTTEN * usual and not is_vector:
            what = f"an update moves it by {moved:.1g} of its norm, the median layer by {usual:.1g}"
        seen.append(norm)
        if not what or name in self._told:
            return ""
        self._told.add(name)
        return f"{name}: {what}"


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    """A view of the first elements in memory, whatever the order of the dimensions."""
    tensor = local(tensor).detach()
    return torch.as_strided(tensor, (min(_SAMPLE, tensor.numel()),), (1,))


def _squares(norms: Sequence[torch.Tensor]) -> torch.Tensor:
    """Of these 0-d tensors, (layers,), float64 where the device has it."""
    stacked = torch.stack(list(norms))
    return stacked.to(widest(stacked.device)).square()

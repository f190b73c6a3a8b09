"""Replicas that are no longer equal: a bit that flipped in the memory of one rank trains another model there, in silence.

Every so many steps each rank adds up the bits of what should be equal on all of them, as integers: any single flipped bit changes the sum.
The sums come to the host while the next step runs, and are compared then. Before anything is saved it is compared at once: so a checkpoint
holds what was equal on all ranks, there is always one to go back to, and a new attempt knows as much as the one that saved it.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

from launcher.train.guard.guard import BadNumbers
from launcher.train.record.meter import Fetch
from launcher.train.world.ranks import Ranks

_AS_INTEGER = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class _Said(NamedTuple):
    rank: int
    host: str
    value: int


class Replicas:
    """`every` in steps; 0: never. Call `follow` once per step on every rank."""

    def __init__(
        self, held: Callable[[], Mapping[str, Sequence[torch.Tensor]]], ranks: Ranks, every: int, alike: Sequence[int] = ()
    ) -> None:
        """`held`: what should be equal, under the name that a verdict gives it; asked anew each time, for an optimizer makes its state as
        it goes. `alike`: the ranks that hold all of it as this one does; empty: all."""
        self._alike = list(alike)
        self._held = held
        self._ranks = ranks
        self._every = every if ranks.size > 1 else 0
        self._pending: tuple[int, Mapping[str, Fetch]] | None = None
        self._equal_at = 0
        """The last step at which they were seen to be equal, or were made so."""

    def follow(self, step: int) -> None:
        """After the update of `step`. Raises BadNumbers on all ranks at the same step."""
        if self._pending is not None:
            self.finish()
        if self._every and step % self._every == 0:
            self._pending = step, self._sums()

    def compare(self, step: int) -> None:
        """Now, unless that step was compared: it is about to be saved. Raises as `follow`."""
        self.finish()
        if self._every and step > self._equal_at:
            self._pending = step, self._sums()
            self.finish()

    def finish(self) -> None:
        """Compare what is under way, if anything is."""
        if self._pending is None:
            return
        (step, sums), self._pending = self._pending, None
        own = {name: int(fetch.value().item()) for name, fetch in sums.items()}
        told = self._ranks.gather((own, socket.gethostname(), self._alike))
        for alike in dict.fromkeys(tuple(alike) for _, _, alike in told):
            for name in told[alike[0] if alike else 0][0]:  # a stage that is frozen has no optimizer state
                self._judge(name, [_Said(rank, told[rank][1], told[rank][0][name]) for rank in alike or range(len(told))], step)
        self._equal_at = step

    def _sums(self) -> Mapping[str, Fetch]:
        return {name: Fetch(checksum(tensors)) for name, tensors in self._held().items() if tensors}

    def _judge(self, name: str, told: Sequence[_Said], step: int) -> None:
        common, votes = Counter(each.value for each in told).most_common(1)[0]
        if votes < len(told):
            raise BadNumbers(self._verdict(name, told, common, votes, step), self._equal_at, step, blames_data=False)

    def _verdict(self, name: str, told: Sequence[_Said], common: int, votes: int, step: int) -> str:
        since = f"after step {self._equal_at} and by step {step}"
        if 2 * votes <= len(told):
            hosts = ", ".join(dict.fromkeys(each.host for each in told))
            return f"the ranks no longer hold the same {name}, {since}, only {votes} of {len(told)} agree: memory may be failing on {hosts}"
        others = " and ".join(f"rank {each.rank} on {each.host}" for each in told if each.value != common)
        return (
            f"{others} holds other {name} than the other {votes} ranks, {since}: its memory or its GPU may be failing; "
            "resume without that node, from the checkpoint before"
        )

    def begin_at(self, step: int) -> None:
        """All ranks have just read the weights of the checkpoint of `step`; what is under way is of weights that are no more."""
        self._pending, self._equal_at = None, step


@torch.no_grad()
def checksum(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """int64, on the device of the first: the sum of all elements taken as integers, tensors weighted by their position. One on the host,
    as an optimizer's count of steps may be, is added there, so that no device waits."""
    device, aside, sums = tensors[0].device, 0, list[torch.Tensor]()
    for place, tensor in enumerate(tensors, 1):
        part = _bits(tensor.detach()).sum(dtype=torch.int64) * place
        if part.device == device:
            sums.append(part)
        else:
            aside += int(part.item())
    return torch.stack(sums).sum() + (aside + 2**63) % 2**64 - 2**63


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).view(
        _AS_INTEGER[tensor.element_size() // (1 + tensor.is_complex())]
    )

"""Replicas that are no longer equal: a bit that flipped in the memory of one rank trains another model there, in silence.

Every so many steps each rank adds up the bits of its parameters, as integers: any single flipped bit changes the sum. The sums come to
the host while the next step runs, and are compared then. Before weights are saved they are compared at once: so a checkpoint holds what
was equal on all ranks, there is always one to go back to, and a new attempt knows as much as the one that saved it.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Sequence

import torch

from launcher.train.guard import BadNumbers
from launcher.train.metrics import Fetch
from launcher.train.ranks import Ranks

_AS_INTEGER = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Replicas:
    """`every` in steps; 0: never. Call `look` once per step on every rank."""

    def __init__(self, parameters: Sequence[torch.Tensor], ranks: Ranks, every: int) -> None:
        self._parameters = parameters
        self._ranks = ranks
        self._every = every if ranks.world > 1 else 0
        self._begun: tuple[int, Fetch] | None = None
        self._equal_at = 0
        """The last step at which they were seen to be equal, or were made so."""

    def look(self, step: int) -> None:
        """After the update of `step`. Raises BadNumbers on all ranks at the same step."""
        if self._begun is not None:
            self.finish()
        if self._every and step % self._every == 0:
            self._begun = step, Fetch(checksum(self._parameters))

    def compare(self, step: int) -> None:
        """Now, unless that step was compared: it is about to be saved. Raises as `look`."""
        self.finish()
        if self._every and step > self._equal_at:
            self._begun = step, Fetch(checksum(self._parameters))
            self.finish()

    def finish(self) -> None:
        """Compare what is under way, if anything is."""
        if self._begun is None:
            return
        (step, fetch), self._begun = self._begun, None
        told = self._ranks.gather((int(fetch.value().item()), socket.gethostname()))
        common, votes = Counter(value for value, _ in told).most_common(1)[0]
        if votes == len(told):
            self._equal_at = step
            return
        raise BadNumbers(self._verdict(told, common, votes, step), self._equal_at, step, blames_data=False)

    def _verdict(self, told: Sequence[tuple[int, str]], common: int, votes: int, step: int) -> str:
        since = f"after step {self._equal_at} and by step {step}"
        if 2 * votes <= len(told):
            hosts = ", ".join(dict.fromkeys(host for _, host in told))
            return (
                f"the ranks no longer hold the same weights, {since}, only {votes} of {len(told)} agree: memory may be failing on {hosts}"
            )
        others = " and ".join(f"rank {rank} on {host}" for rank, (value, host) in enumerate(told) if value != common)
        return (
            f"{others} holds other weights than the other {votes} ranks, {since}: its memory or its GPU may be failing; "
            "resume without that node, from the checkpoint before"
        )

    def begin_at(self, step: int) -> None:
        """All ranks have just read the weights of the checkpoint of `step`; what is under way is of weights that are no more."""
        self._begun, self._equal_at = None, step


@torch.no_grad()
def checksum(parameters: Sequence[torch.Tensor]) -> torch.Tensor:
    """int64, on the device of the parameters: the sum of all elements taken as integers, tensors weighted by their position."""
    sums = [tensor.detach().view(_AS_INTEGER[tensor.element_size()]).sum(dtype=torch.int64) for tensor in parameters]
    weights = torch.arange(1, len(sums) + 1, device=sums[0].device)
    return (torch.stack(sums) * weights).sum()

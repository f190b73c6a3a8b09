"""Memory that is used again for each batch: what is new each time is first touched page by page, which costs as much as the steps on it."""

from __future__ import annotations

import torch


class Room:
    """Of one thread, for what nobody keeps beyond a batch."""

    def __init__(self) -> None:
        self._held: dict[str, torch.Tensor] = {}

    def of(self, name: str, shape: torch.Size | tuple[int, ...], device: torch.device) -> torch.Tensor:
        """Float32 of that shape, with anything in it. The first axis may be shorter the next time, and nothing is made for it."""
        held = self._held.get(name)
        if held is None or held.device != device or held.shape[1:] != shape[1:] or len(held) < shape[0]:
            held = self._held[name] = torch.empty(shape, device=device)
        return held[: shape[0]]

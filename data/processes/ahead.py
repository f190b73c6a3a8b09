"""From the host's memory to the device, ahead of the step that needs it."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree as pytree


class Here:
    """The device is the host's memory."""

    def begin(self, batch: Any) -> Any:
        return batch

    def end(self, batch: Any) -> Any:
        return batch


class Blocking:
    """To a device that does one thing after the other (MPS): a copy would go ahead of nothing."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def begin(self, batch: Any) -> Any:
        return batch

    def end(self, batch: Any) -> Any:
        return pytree.tree_map(lambda leaf: leaf.to(self._device) if hasattr(leaf, "to") else leaf, batch)


class Copier:
    """On a stream of its own, beside what the device computes meanwhile."""

    def __init__(self, device: torch.device, pin: bool) -> None:
        self._device, self._pin, self._of_kind = device, pin, torch.get_device_module(device)
        self._stream: Any = self._of_kind.Stream(device)

    def begin(self, batch: Any) -> Any:
        """The copy, under way, and the event of its end."""
        with self._of_kind.stream(self._stream):
            return pytree.tree_map(self._copied, batch), self._stream.record_event()

    def end(self, begun: Any) -> Any:
        """The copy, for whoever computes with it on the current stream."""
        batch, copied = begun
        current = self._of_kind.current_stream(self._device)
        current.wait_event(copied)
        for leaf in pytree.tree_leaves(batch):
            if isinstance(leaf, torch.Tensor):
                leaf.record_stream(current)  # its memory came from the other stream, and is not to be given away before this one is done
        return batch

    def _copied(self, leaf: Any) -> Any:
        """What is pinned stays until it is copied: torch's allocator of pinned memory sees to that."""
        if isinstance(leaf, torch.Tensor):
            return (leaf.pin_memory() if self._pin else leaf).to(self._device, non_blocking=True)
        return leaf.to(self._device) if hasattr(leaf, "to") else leaf


def copier(device: torch.device, pin: bool) -> Here | Blocking | Copier:
    if device.type == "cpu":
        return Here()
    return Copier(device, pin) if has_streams(device) else Blocking(device)


def has_streams(device: torch.device) -> bool:
    """Whether a copy to it goes on beside what the host does. The trainer's own is in launcher/train/device.py: data imports none of it."""
    return hasattr(torch.get_device_module(device), "Stream")

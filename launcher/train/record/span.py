"""How long a save keeps a device from training, at most: the host's clock sees only how long it takes to fill a GPU's queue."""

from __future__ import annotations

from typing import Protocol

from launcher.train import device
from launcher.train.device import Stream


class Span(Protocol):
    """From where it was made to `end`, in the order in which the device does things."""

    def end(self) -> None: ...

    def seconds(self) -> float:
        """Waits until the device has come to the end."""
        ...


class HostSpan:
    """On a CPU everything is done when the call returns: the host's clock has it already."""

    def end(self) -> None:
        pass

    def seconds(self) -> float:
        return 0.0


class QueueSpan:
    """Between two events of a GPU's stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._began, self._ended = (device.event(stream.device, timed=True) for _ in range(2))
        self._began.record(stream)

    def end(self) -> None:
        self._ended.record(self._stream)

    def seconds(self) -> float:
        device.use(self._stream.device)
        self._ended.synchronize()
        return self._began.elapsed_time(self._ended) / 1000


def span(stream: Stream | None) -> Span:
    """Of the stream that copies; None: of the host."""
    return HostSpan() if stream is None else QueueSpan(stream)

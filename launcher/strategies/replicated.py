"""What all strategies share that keep a whole replica of the model in each process; those that split it take from here what still holds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from launcher.plan import Coordinate, Mesh, World
from launcher.strategies.protocol import Compute, Layout, Piece, Split


class Replicated:
    """A Strategy (launcher/strategies/protocol.py) that does nothing to the model."""

    def mesh(self, world: World) -> Mesh:
        return Mesh(dp_replicate=world.size)

    is_collective = False
    takes_channels_last = True

    def check(self, world: World, config: Mapping[str, Any], layout: Layout) -> None:
        """Nothing to refuse."""

    def accelerator_handlers(self) -> list[Any]:
        return []

    def build(self, factory: Callable[[], Any], device: Any) -> Any:
        return factory().to(device)

    def prepare(self, accelerator: Any, model: Any, split: Split) -> Any:
        return model

    def no_sync(self, prepared: Any) -> Any:
        return contextlib.nullcontext()

    def forward_backward(self, prepared: Any, micro_batches: Iterator[Any], count: int, compute: Compute) -> None:
        if count > 1:
            with self.no_sync(prepared):  # gradients cross the network once, with the last micro-batch
                for _ in range(count - 1):
                    compute(next(micro_batches))
        compute(next(micro_batches))

    def evaluated(self, prepared: Any, model: Any) -> Any:
        return model  # a rank with fewer batches than another must not wait for it

    def release(self, prepared: Any) -> None:
        """Nothing is gathered."""

    def pieces(self, model: Any, coordinate: Coordinate) -> Mapping[str, Piece]:
        everyone = tuple(range(coordinate.mesh.size))
        return {name: Piece(tuple(tensor.shape), (0,) * tensor.ndim, everyone) for name, tensor in model.named_parameters()}

"""How a model can be split: what its file says of it, the pieces that come of it, and the protocol of a strategy, which decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from launcher.plan import Coordinate, Mesh, World


class Layout(NamedTuple):
    """What a model's file says of how the model can be split (launcher/config/layout.py)."""

    blocks: tuple[str, ...] = ()
    """Names of the classes of which the model is a stack."""
    tensor_parallel: Mapping[str, str] = MappingProxyType({})
    """Patterns of names of modules, as `blocks.*.norm`, and how such a module is cut over processes (launcher/strategies/tp.py)."""
    stages: tuple[str, ...] = ()
    """Patterns of names of modules in the order in which they are called, each with what the one before gives (strategies/stages.py)."""
    context_parallel: Mapping[str, int] = MappingProxyType({})
    """Arguments of a block that go along the sequence, and in which of their dimensions (strategies/cp.py)."""


class Split(NamedTuple):
    """How a model is split, and which part is this process's."""

    coordinate: Coordinate
    device_mesh: Any
    """torch's DeviceMesh of the dimensions that have more than one process; None where each process has the whole model."""
    layout: Layout


class Compute(Protocol):
    """What a strategy calls with a micro-batch; the model that it calls in its turn is the strategy's."""

    def __call__(self, micro_batch: Any, /) -> None:
        """Forward and backward."""
        ...

    def forward(self, micro_batch: Any, /) -> Any:
        """The loss, a 0-d tensor, whose backward pass leaves the gradients that `__call__` does."""
        ...

    def measured(self, micro_batch: Any, /) -> tuple[Any, Any]:
        """The task's loss and its weight, which count for nothing."""
        ...


class Strategy(Protocol):
    """How the world splits the work: from the model's factory to the pieces that each rank holds. A frozen dataclass of its options; `mesh`
    and `check` are torch-free, the rest runs in the worker, in the order given here. `launcher/strategies/replicated.py` has what all
    strategies share that keep a whole replica in each process.
    """

    def mesh(self, world: World) -> Mesh:
        """Degrees that multiply to the world. Raises ConfigError, with the arithmetic in it, where they cannot."""
        ...

    @property
    def is_collective(self) -> bool:
        """Whether a forward pass waits for other ranks, so that all have to make as many."""
        ...

    @property
    def takes_channels_last(self) -> bool:
        """Whether weights and activations may lie NHWC in memory where the world is more than one process."""
        ...

    def check(self, world: World, config: Mapping[str, Any], layout: Layout) -> None:
        """Raises ConfigError where this strategy cannot run on that world, or not with this config; `layout` is its model's."""
        ...

    def accelerator_handlers(self) -> list[Any]:
        """What Accelerate has to know before anything is prepared."""
        ...

    def build(self, factory: Callable[[], Any], device: Any) -> Any:
        """The torch.nn.Module that `factory` makes, on `device`: whole, or made on the meta device and only its pieces filled."""
        ...

    def prepare(self, accelerator: Any, model: Any, split: Split) -> Any:
        """What the loop calls in the model's place. Parameters may be others from here on: optimizers are made over them after."""
        ...

    def no_sync(self, prepared: Any) -> Any:
        """A context in which backward leaves gradients unreduced, for all micro-batches of an update but the last."""
        ...

    def forward_backward(self, prepared: Any, micro_batches: Iterator[Any], count: int, compute: Compute) -> None:
        """The gradients of one update: the mean over data-parallel ranks of what their backward passes leave. `micro_batches` has `count`,
        each made when it is asked for."""
        ...

    def evaluated(self, prepared: Any, model: Any) -> Any:
        """What an evaluation calls; `model` is what `build` made."""
        ...

    def release(self, prepared: Any) -> None:
        """Let go of what forward passes have gathered, where no backward pass comes after them: weights may be others when it is used."""
        ...

    def pieces(self, model: Any, coordinate: Coordinate) -> Mapping[str, Piece]:
        """Of each parameter, by name, what this rank holds, or who holds it."""
        ...


class Piece(NamedTuple):
    """Part of a parameter, and of what goes with it (optimizer state, average): where it lies in the whole, and who has the same."""

    shape: tuple[int, ...]
    """Of the whole."""
    offset: tuple[int, ...]
    """Of this piece's first element."""
    replicas: tuple[int, ...]
    """Ranks that hold the same, this one among them; all are compared."""

    @property
    def owner(self) -> int:
        """The one of them that writes it to a checkpoint, and counts it in a sum over ranks."""
        return self.replicas[0]

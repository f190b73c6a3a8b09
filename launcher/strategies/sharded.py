"""What strategies share that keep pieces of a model on each process: DTensors over torch's device mesh."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from launcher.devices import CPU
from launcher.errors import ConfigError
from launcher.plan import ORDER, Coordinate, Mesh, World
from launcher.strategies.protocol import Layout, Piece, Split
from launcher.strategies.replicated import Replicated

_WHOLE = ("lbfgs", "muon", "adafactor", "shampoo")
"""Optimizers whose update of an element depends on others."""


class Sharded(Replicated):
    is_collective = True
    takes_channels_last = False

    def check(self, world: World, config: Mapping[str, Any], layout: Layout) -> None:
        if world.size == 1:
            return
        kind = config["optim"]["_target_"].rpartition(".")[2]
        if kind.lower() in _WHOLE:
            raise ConfigError(
                f"optim: {kind} works on whole matrices, of which this strategy leaves pieces; type optim=adamw or strategy=ddp"
            )
        if config["train"]["channels_last"] is True:
            raise ConfigError("train.channels_last=true: weights are cut as they lie in memory; type train.channels_last=auto")

    def build(self, factory: Callable[[], Any], device: Any) -> Any:
        from launcher.strategies import deferred

        return deferred.build(factory)  # each block is made in `prepare`, and its piece of it stays

    def release(self, prepared: Any) -> None:
        from torch.distributed.fsdp import FSDPModule

        for module in prepared.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def pieces(self, model: Any, coordinate: Coordinate) -> Mapping[str, Piece]:
        holders: dict[frozenset[str], tuple[int, ...]] = {}
        found: dict[str, Piece] = {}
        for name, tensor in model.named_parameters():
            offset, over = place(tensor)
            if over not in holders:
                holders[over] = alike(coordinate, over)
            found[name] = Piece(tuple(tensor.shape), offset, holders[over])
        return found


def place(tensor: Any) -> tuple[tuple[int, ...], frozenset[str]]:
    """Where this process's piece begins in the whole, and the dimensions of the mesh that split it."""
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    if not isinstance(tensor, DTensor):
        return (0,) * tensor.ndim, frozenset()
    names, placements = tensor.device_mesh.mesh_dim_names or (), tensor.placements
    _, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, placements)
    return tuple(offset), frozenset(name for name, how in zip(names, placements, strict=True) if not how.is_replicate())


def alike(coordinate: Coordinate, over: frozenset[str], stages: frozenset[int] | None = None) -> tuple[int, ...]:
    """The ranks with the same piece of what is split over those dimensions, and in those stages; None: in this process's."""
    mesh: Mesh = coordinate.mesh
    return tuple(
        rank
        for rank in range(mesh.size)
        if mesh.at(rank).pp in (stages or (coordinate.pp,))
        and all(getattr(mesh.at(rank), name) == getattr(coordinate, name) for name in ORDER if name in over)
    )


def degree(key: str, asked: int | str, meaning: str, world: World) -> int:
    """How many processes `asked` is: all, node (those of a node), or so many. Raises ConfigError where they do not divide the world;
    `meaning`: what so many are, for its line."""
    found = {"all": world.size, "node": world.processes_per_node}.get(str(asked), asked)
    if not isinstance(found, int) or found < 1 or world.size % found:
        raise ConfigError(
            f"strategy.{key}={asked}: {meaning} do not fill a world of {world.size} ({world.nodes} x {world.processes_per_node}); "
            f"type all, node, or a divisor of {world.size}"
        )
    return found


def shard(
    model: Any,
    blocks: Sequence[Any],
    split: Split,
    device: Any,
    reshard: bool,
    policy: Mapping[str, Any],
    whole: Any = None,
    offload: bool = False,
    over: str = "dp_shard",
) -> Any:
    """The model with its pieces on `device`, by fully_shard: the weights of each of `blocks`, inner ones first, are gathered together, and
    what is in none of them. Where nothing is sharded a process has it whole. `whole`: what `build` made, where `model` is but a part.
    `offload`: pieces lie in the host's memory, and come to `device` to be gathered there. `over`: the dimension of the mesh
    whose processes have a piece each."""
    from launcher.strategies import deferred

    whole = model if whole is None else whole
    if split.device_mesh is None or getattr(split.coordinate.mesh, over) == 1:
        deferred.fill(whole, [model])
        return model.to(device)
    from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard

    _check_parameters(model, blocks)
    mesh = split.device_mesh[tuple(name for name in ("dp_replicate", over) if getattr(split.coordinate.mesh, name) > 1)]
    where = CPUOffloadPolicy(pin_memory=device.type != CPU) if offload else OffloadPolicy()
    for module in (*blocks, model):
        deferred.fill(whole, [module])
        fully_shard(module, mesh=mesh, reshard_after_forward=reshard, mp_policy=MixedPrecisionPolicy(**policy), offload_policy=where)
    return model


def _check_parameters(model: Any, blocks: Sequence[Any]) -> None:
    """Raises ConfigError for a parameter that fully_shard cannot take."""
    for name, parameter in model.named_parameters():
        if not parameter.ndim:
            raise ConfigError(f"model: {name} is a single number, and cannot be cut; make it a vector of one, or type strategy=ddp")
    inside: set[int] = set()
    for block in (block for block in blocks[::-1] if id(block) not in inside):  # outer ones first
        inside.update(map(id, block.modules()))
        for name, parameter in block.named_parameters():
            if id(parameter) in inside:
                raise ConfigError(f"model: {name} of a {type(block).__name__} is another's too; untie it, or type strategy=ddp")
        inside.update(id(parameter) for parameter in block.parameters())


def of_class(model: Any, names: Sequence[str], anyway: bool = False) -> list[Any]:
    """The modules below it of the classes with those names, inner ones first. Raises ConfigError where it has none of any name, unless it
    may have none: `anyway`."""
    found = [module for module in model.modules() if type(module).__name__ in names and module is not model]
    if names and not found and not anyway:
        kinds = ", ".join(sorted({type(module).__name__ for module in model.modules()}))
        raise ConfigError(f"no module of the model is a {' or '.join(names)}, as BLOCKS in its file or strategy.wrap says; it has {kinds}")
    return found[::-1]


def of_size(model: Any, least: int) -> list[Any]:
    """The modules below it with at least so many parameters that no other of them has, inner ones first."""
    return _of_size(model, least)[0]


def _of_size(module: Any, least: int) -> tuple[list[Any], int]:
    """The modules below it with at least so many parameters that no other of them has, inner ones first; how many are left over."""
    found: list[Any] = []
    left = sum(parameter.numel() for parameter in module.parameters(recurse=False))
    for child in module.children():
        inner, rest = _of_size(child, least)
        found += inner
        if rest >= least:
            found.append(child)
        else:
            left += rest
    return found, left


Place = tuple[Any, str]
"""Of a parameter: a module, and its name there."""


def tied(model: Any) -> Iterator[tuple[Place, Place]]:
    """Each place of a parameter that has another before it, and that one."""
    seen: dict[int, Place] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if (first := seen.setdefault(id(parameter), (module, name))) != (module, name):
                yield (module, name), first


def tie(places: Sequence[tuple[Place, Place]]) -> None:
    """What `tied` gave, once more: a strategy has put other parameters in one of the places. An empty one follows the other."""
    twins: dict[tuple[int, str], list[Place]] = {}
    for place, first in places:
        twins.setdefault((id(first[0]), first[1]), [first]).append(place)
    for each in twins.values():
        held = [getattr(module, name) for module, name in each]
        for module, name in each:
            setattr(module, name, next((parameter for parameter in held if parameter.numel()), held[0]))

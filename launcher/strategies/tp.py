"""Tensor parallel: layers are cut over processes that see the same batch, by the table that the model's file has (TENSOR_PARALLEL)."""

from __future__ import annotations

import contextlib
import fnmatch
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from launcher.errors import ConfigError
from launcher.plan import Mesh, World
from launcher.strategies.protocol import Compute, Layout, Split
from launcher.strategies.sharded import Sharded, degree, of_class, shard, tie, tied

STYLES = ("column", "row", "sequence", "whole", "head")
"""How a module is cut. column: its outputs, as of a projection into heads; row: its inputs, and outputs are summed; sequence: not at all,
each process has its part of the sequence; whole: not itself, what is in it takes the whole sequence; head: as column, its outputs whole."""


@dataclass(frozen=True)
class TP(Sharded):
    """Megatron's (Shoeybi et al., 2019, https://arxiv.org/abs/1909.08053) with sequence parallel (Korthikanti et al., 2022,
    https://arxiv.org/abs/2205.05198), by torch.distributed.tensor.parallel; over what is left of the world as FSDP, in two dimensions."""

    tp: int | str = "all"
    """Processes that each layer is cut over: all, node (those of a node), or how many."""
    loss_parallel: bool = False
    """Whether the scores of a head stay cut over the vocabulary, and the cross-entropy is that of the pieces: of a large vocabulary no
    process has all scores of its batch (torch.distributed.tensor.parallel.loss_parallel). Evaluations gather them."""

    def mesh(self, world: World) -> Mesh:
        parts = degree("tp", self.tp, "layers in so many parts", world)
        return Mesh(dp_shard=world.size // parts, tp=parts)

    def check(self, world: World, config: Mapping[str, Any], layout: Layout) -> None:
        super().check(world, config, layout)
        parts, model = self.mesh(world).tp, config["model"]
        if parts == 1:
            return
        if not layout.tensor_parallel:
            raise ConfigError(
                f"model: {model['_target_']} does not say how its layers can be cut; write a table TENSOR_PARALLEL into its file, as "
                "models/transformer.py has it, or type strategy=fsdp"
            )
        if strange := set(layout.tensor_parallel.values()) - set(STYLES):
            raise ConfigError(f"model: TENSOR_PARALLEL in its file has {sorted(strange)[0]!r}; a layer is cut by {', '.join(STYLES)}")
        if self.loss_parallel and config["task"].get("z_loss"):  # torch 2.13 has no logsumexp of pieces
            raise ConfigError(
                f"strategy.loss_parallel=true: task.z_loss={config['task']['z_loss']} would gather all scores again; type task.z_loss=0, "
                "or strategy.loss_parallel=false"
            )
        if self.loss_parallel and "head" not in layout.tensor_parallel.values():
            raise ConfigError(
                f"strategy.loss_parallel=true: TENSOR_PARALLEL in the file of {model['_target_']} cuts nothing as head; type "
                "strategy.loss_parallel=false"
            )
        for place, node, key in (
            ("model.kv_heads", model, "kv_heads"),
            ("model.heads", model, "heads"),
            ("data.length", config["data"], "length"),
        ):
            count = node.get(key)
            if isinstance(count, int) and count % parts:
                raise ConfigError(
                    f"{place}={count} cannot be cut into strategy.tp={parts} equal parts; type a multiple of {parts}, or less tp"
                )

    def prepare(self, accelerator: Any, model: Any, split: Split) -> Any:
        if split.coordinate.mesh.tp > 1:
            cut(model, split.device_mesh["tp"], split.layout.tensor_parallel, self.loss_parallel)
        if split.coordinate.mesh.dp_shard > 1 or split.device_mesh is None:
            return shard(model, of_class(model, split.layout.blocks), split, accelerator.device, reshard=True, policy={})
        return model

    def forward_backward(self, prepared: Any, micro_batches: Iterator[Any], count: int, compute: Compute) -> None:
        with self._on_pieces():
            super().forward_backward(prepared, micro_batches, count, compute)
        for parameter in prepared.parameters():  # of a norm each process has the gradient of its part of the sequence
            if parameter.grad is not None and any(how.is_partial() for how in getattr(parameter.grad, "placements", ())):
                parameter.grad = parameter.grad.redistribute(placements=parameter.placements)

    def evaluated(self, prepared: Any, model: Any) -> Any:
        return _gathered(model) if self.loss_parallel else model

    def _on_pieces(self) -> Any:
        """A context in which a cross-entropy of scores that are cut is that of the pieces, and its gradient too."""
        if not self.loss_parallel:
            return contextlib.nullcontext()
        from torch.distributed.tensor.parallel import loss_parallel

        return loss_parallel()


def _gathered(model: Any) -> Any:
    """The model with outputs that are whole on each process."""
    from torch.utils import _pytree as pytree

    def whole(output: Any) -> Any:
        return output.full_tensor() if hasattr(output, "full_tensor") else output

    def called(*inputs: Any, **named: Any) -> Any:
        return pytree.tree_map(whole, model(*inputs, **named))

    return called


def cut(model: Any, device_mesh: Any, table: Mapping[str, str], pieces: bool = False) -> None:
    """Cut each module that a pattern of `table` names, in its own way; tied parameters stay tied. `pieces`: the outputs of a head stay as
    they are cut. Raises ConfigError where a parameter is
    in none of them, for each process would train its own."""
    from torch.distributed.tensor.parallel import parallelize_module

    from launcher.strategies import deferred

    twins = list(tied(model))
    for name, module in list(model.named_modules()):
        if kind := next((kind for pattern, kind in table.items() if fnmatch.fnmatchcase(name, pattern)), None):
            if kind != "whole":  # of that more is cut below
                deferred.fill(model, [module])
            parallelize_module(module, device_mesh, _style(kind, module, pieces), src_data_rank=None)  # every process has made the same
    tie(twins)
    for name, parameter in model.named_parameters():
        if not hasattr(parameter, "placements"):
            raise ConfigError(f"model: TENSOR_PARALLEL in its file has no pattern for {name}; add one, as sequence for a norm")
    deferred.fill(model, [model])


def _style(kind: str, module: Any, pieces: bool) -> Any:
    """torch's word for one of STYLES. Between layers that are cut, each process has its part of the sequence."""
    from torch import nn
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor.parallel import ColwiseParallel, PrepareModuleInput, RowwiseParallel, SequenceParallel

    if kind == "row":
        return RowwiseParallel(input_layouts=Replicate() if isinstance(module, nn.Embedding) else Shard(-1), output_layouts=Shard(1))
    if kind == "sequence":
        return SequenceParallel(use_local_output=True)
    if kind == "head" and pieces:
        return ColwiseParallel(input_layouts=Shard(1), output_layouts=Shard(-1), use_local_output=False)
    if kind == "head":
        return ColwiseParallel(input_layouts=Shard(1), output_layouts=Replicate())
    if kind == "whole":
        count = len(inspect.signature(module.forward).parameters) - 1
        rest = (None,) * count
        return PrepareModuleInput(input_layouts=(Shard(1), *rest), desired_input_layouts=(Replicate(), *rest))
    return ColwiseParallel()

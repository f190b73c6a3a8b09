"""The forms that a model is exported in, and how far each is from the model itself."""

from __future__ import annotations

import contextlib
import io
import logging
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils import _pytree as pytree

from launcher.errors import ConfigError, RunError
from launcher.exported.draft import Place

Inputs = Sequence[torch.Tensor]
"""What a model is given, each (N, …)."""
ALLOWED = 1e-3
"""Of a form: the largest difference over the largest number, in float32. Another order of sums comes to 1e-6 in a network of ten layers and
1e-5 in one of a hundred; another model comes to 1."""
_ONE_FILE = 1 << 30
"""Bytes of weights; a file of ONNX is a protobuf, which ends at two gigabytes."""


class Difference(NamedTuple):
    """From the training model in float32, over all outputs and the samples that were tried."""

    largest: float
    relative: float
    """Over the largest number of the model's."""

    def told(self) -> dict[str, float]:
        return {"largest": self.largest, "relative": self.relative, "allowed": ALLOWED}


class Failed(Exception):
    """A form that cannot be made, in one line; the others can."""


@torch.no_grad()
def program(model: nn.Module, inputs: Inputs, into: Place) -> Any:
    """Trace the model by torch.export for any number of samples, and write it. Returns the ExportedProgram. Raises Failed, OSError."""
    batch = torch.export.Dim("batch", min=1)
    shapes = tuple({0: batch} for _ in inputs)
    try:
        with _quiet():
            made = torch.export.export(model, tuple(inputs), dynamic_shapes=(*shapes,), strict=False)
            made._example_inputs = None  # which would be a pickle in the file
            torch.export.save(made, archive := io.BytesIO())  # on a full disk torch's own writer ends the process
    except Exception as error:  # of a stranger's model anything
        raise Failed(f"torch.export cannot trace the model{_where(error)}: {_line(error)}") from error
    if isinstance(into, Path):
        into.write_bytes(archive.getbuffer())
    else:
        into.write(archive.getbuffer())
    return made


@torch.no_grad()
def onnx(model: nn.Module, made: Any, inputs: Inputs, names: Sequence[str], into: Place) -> None:
    """Write the program as ONNX. Raises Failed, OSError."""
    outputs = [name for name, _ in named(model(*inputs))]
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    try:
        import onnxscript  # noqa: F401  # pyright: ignore[reportMissingImports, reportUnusedImport]  # an extra
    except ImportError as error:
        raise Failed("onnxscript is not installed; pip install 'launcher[onnx]'") from error
    in_memory = not isinstance(into, Path)
    if in_memory and weights > _ONE_FILE:
        raise Failed(
            f"it would have its {weights >> 20:,} MiB of weights in a file beside it, which torch.onnx writes plain onto a disk alone; "
            "without encrypt=true it is there"
        )
    try:
        with _quiet():
            written = torch.onnx.export(
                made,
                tuple(inputs),
                None if in_memory else into,
                input_names=list(names),
                output_names=outputs,
                dynamo=True,
                external_data=weights > _ONE_FILE,
                verbose=False,
            )
            if in_memory:
                assert written is not None, "dynamo=True"
                into.write(written.model_proto.SerializeToString())
    except OSError:
        raise
    except Exception as error:  # of the exporter's many
        raise Failed(f"torch.onnx cannot write it: {_line(error)}") from error


def run_onnx(file: Place, inputs: Inputs) -> list[torch.Tensor]:
    """What onnxruntime makes of it, on the CPU. Raises Failed where it is not installed, or does not take the model."""
    try:
        import onnxruntime  # pyright: ignore[reportMissingImports]  # an extra
    except ImportError as error:
        raise Failed("onnxruntime, which would check it, is not installed; pip install 'launcher[onnx]'") from error
    library: Any = onnxruntime
    try:
        session = library.InferenceSession(str(file) if isinstance(file, Path) else file.getvalue(), providers=["CPUExecutionProvider"])
        names = [each.name for each in session.get_inputs()]
        outputs = session.run(None, dict(zip(names, (each.numpy() for each in inputs), strict=True)))
    except Exception as error:  # of another library's many
        raise Failed(f"onnxruntime does not take it: {_line(error)}") from error
    return [torch.from_numpy(each) for each in outputs]


@torch.no_grad()
def difference(model: Callable[..., Any], other: Callable[..., Any], inputs: Inputs) -> Difference:
    """On all samples at once, and on one. Raises RunError where there are other outputs, or numbers that are not finite in one alone."""
    largest = scale = 0.0
    for count in (samples(inputs), 1):
        some = tuple(each[:count] for each in inputs)
        wanted, got = leaves(model(*some)), leaves(other(*some))
        if [each.shape for each in wanted] != [each.shape for each in got]:
            raise RunError(
                f"of {count} samples it makes {[tuple(each.shape) for each in got]}, the model {[tuple(each.shape) for each in wanted]}"
            )
        for mine, theirs in zip(wanted, got, strict=True):
            apart = torch.where(mine == theirs, 0.0, (mine.double() - theirs.double()).abs())  # infinities that are the same in both
            largest = max(largest, float(apart.max()) if apart.numel() else 0.0)
            finite = mine[mine.isfinite()]
            scale = max(scale, float(finite.abs().max()) if finite.numel() else 0.0)
    if not largest < float("inf"):
        raise RunError("it makes numbers that are not finite where the model does not, or the other way round")
    return Difference(largest, largest / scale if scale else largest)


def takes_channels_last(model: Callable[..., Any], program: Callable[..., Any], inputs: Inputs) -> bool:
    """Whether a program answers pictures as well where the channels of each pixel lie together: a CPU's convolutions are quicker by it.
    One that was traced with a `view` of what it is given does not."""
    if not any(each.ndim == 4 and each.is_floating_point() for each in inputs):
        return False

    def lying(*some: torch.Tensor) -> Any:
        return program(*(each.contiguous(memory_format=torch.channels_last) if each.ndim == 4 else each for each in some))

    try:
        return difference(model, lying, inputs).relative <= ALLOWED
    except (RuntimeError, RunError):
        return False


def checked(form: str, found: Difference) -> Difference:
    """Raises RunError where it is too large."""
    if found.relative > ALLOWED:
        raise RunError(
            f"{form} is not the model that was trained: its outputs are {found.largest:.2g} apart, {found.relative:.2g} of the largest, "
            f"and {ALLOWED:g} is allowed; nothing was exported"
        )
    return found


def named(outputs: Any) -> list[tuple[str, torch.Tensor]]:
    """Each output by a name: of a dict its key. Raises ConfigError where one is no tensor."""
    if isinstance(outputs, torch.Tensor):
        return [("output", outputs)]
    items = outputs.items() if isinstance(outputs, dict) else ((f"output_{place}", each) for place, each in enumerate(outputs))
    found = [(str(name), each) for name, each in items]
    if not all(isinstance(each, torch.Tensor) for _, each in found):
        raise ConfigError("export takes models that return a tensor, or a dict or tuple of them")
    return found


def leaves(outputs: Any) -> list[torch.Tensor]:
    return [each for each in pytree.tree_leaves(outputs) if isinstance(each, torch.Tensor)]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters talk of their insides, to both streams and to loggers."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _where(error: BaseException) -> str:
    """The line of a model that was being traced: the last one that is none of torch's or ours."""
    root, ours = str(Path(torch.__file__).parent), str(Path(__file__).parent)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith((root, ours, "<"))]
    return f" at {Path(frames[-1].filename).name}:{frames[-1].lineno} ({(frames[-1].line or '').strip()})" if frames else ""


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"


def samples(inputs: Inputs) -> int:
    return len(inputs[0])

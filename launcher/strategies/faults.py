"""Whose fault it is that a pass through a model failed: the model's, or that of a device, a peer, or what lies between."""

# pyright: standard
from __future__ import annotations

import re

import torch
import torch.distributed as dist

_KINDS = (MemoryError, OSError, torch.OutOfMemoryError, torch.AcceleratorError, dist.DistError)
_WORDS = re.compile(r"(CUDA|HIP|cuDNN|MIOpen|NCCL) error|CU(BLAS|DNN)_STATUS_|allocate memory|out of memory")
"""Of libraries, and of the host's allocator, whose errors are plain ones of torch."""


def is_of_machine(error: BaseException) -> bool:
    """Whether the error, or one that it came of, is none of the model's making. gloo raises plain errors for a peer that is gone and one
    that does not answer: those go by where they were raised."""
    first: BaseException | None = error
    while first is not None:
        if isinstance(first, _KINDS) or (isinstance(first, RuntimeError) and (_WORDS.search(str(first)) or _is_of_message(first))):
            return True
        first = first.__cause__ or (None if first.__suppress_context__ else first.__context__)
    return False


def _is_of_message(error: BaseException) -> bool:
    """By the innermost function: one of torch.distributed's, but not of its tensors, which refuse what a model does with them."""
    modules: list[str] = []
    trace = error.__traceback__
    while trace is not None:
        modules.append(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next
    innermost = next((name for name in reversed(modules) if name != "torch._ops"), "")
    return f"{innermost}.".startswith("torch.distributed.") and not f"{innermost}.".startswith("torch.distributed.tensor.")

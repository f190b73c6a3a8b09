"""Tensors as a safetensors file, in pieces: copied once to host memory that is used again at the next save, and no more after that.

`safetensors.save` gives the same bytes, but copies everything twice more and holds the interpreter's lock while it does; a training loop
in the same process would stand still. The format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping

import torch

from launcher import devices
from launcher.train import device
from launcher.train.device import Event, Stream
from launcher.train.guard.guard import BadNumbers

HOST = torch.device(devices.CPU)

NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}

_PIECE = 32_768
"""Elements in a piece. Torch takes one thread for so many: the check below does not compete with training for all cores."""


_LOOSE = 1.05
"""Times what is needed, so much may a slab have that is used again."""


class TensorFile:
    """Host copies that may still be under way on the GPU; iterating waits for them and gives the bytes of the file."""

    def __init__(self, tensors: dict[str, torch.Tensor], copied: Event | None, *, finite: bool) -> None:
        """`finite`: an infinity is as bad as a NaN. Masks and the like are buffers, and may hold infinities."""
        self.copied = copied
        self._tensors = tensors
        self._finite = finite

    @property
    def nbytes(self) -> int:
        """Of the file."""
        return len(_header(self._tensors)) + sum(tensor.nbytes for tensor in self._tensors.values())

    def __iter__(self) -> Iterator[bytes | memoryview]:
        """Raises BadNumbers that names the tensor where a number is not one."""
        if self.copied is not None:
            self.copied.synchronize()
        yield _header(self._tensors)
        for name, tensor in self._tensors.items():
            for piece in tensor.view(-1).split(_PIECE):
                self._check(name, piece)
                yield piece.view(torch.uint8).numpy().data

    def _check(self, name: str, piece: torch.Tensor) -> None:
        if not piece.is_floating_point() or piece.element_size() == 1:
            return
        total = piece.sum(dtype=torch.float64).item()  # one pass, nothing allocated; float64 does not overflow by adding
        if not math.isfinite(total) and (self._finite or bool(piece.isnan().any())):
            raise BadNumbers(
                f"{name} has values that are not finite, so there is no checkpoint of it; lower optim.lr, or set train.on_bad=rollback"
            )


class HostMemory:
    """Where tensors are copied to: one slab for each file, allocated at the first save (pinned for a GPU's), used again at all others."""

    def __init__(self) -> None:
        self._slabs: dict[str, torch.Tensor] = {}

    def copy(self, file: str, tensors: Mapping[str, torch.Tensor], stream: Stream | None = None, *, finite: bool = False) -> TensorFile:
        """Start the copies, on `stream` (None: the current one, and whatever the device does next comes after them). On a CPU they are done
        at return (pytorch#144657).
        """
        ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))  # each lies at a multiple of its size
        where = next((tensor.device for tensor in tensors.values() if not tensor.is_cpu), HOST)
        slab, begin, copied = self._slab(file, sum(tensor.nbytes for tensor in tensors.values()), where), 0, None
        copies: dict[str, torch.Tensor] = {}
        beside = device.has_streams(where)
        with device.on(where, stream):
            for name, tensor in ordered:
                place = slab[begin : begin + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
                copies[name] = place.copy_(tensor.detach(), non_blocking=beside)
                begin += tensor.nbytes
            if beside:
                copied = device.event(where)
                copied.record()
        return TensorFile(copies, copied, finite=finite)

    def _slab(self, file: str, size: int, where: torch.device) -> torch.Tensor:
        kept = self._slabs.get(file)
        if kept is None or not size <= kept.numel() <= _LOOSE * size:
            self._slabs.pop(file, None)
            del kept  # before there is another
            self._slabs[file] = device.pinned(size, where)
        return self._slabs[file]


def _header(tensors: Mapping[str, torch.Tensor]) -> bytes:
    entries, end = {}, 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        entries[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)  # what follows is aligned for whoever maps the file
    return len(text).to_bytes(8, "little") + text

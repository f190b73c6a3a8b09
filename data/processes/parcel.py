"""An object in memory without a name, whose descriptor is sent through a socket: how worker processes get tasks and hand over batches.

Tensors and arrays of a batch are written once and then mapped, not copied, by who receives it. What was sent lives in the kernel: it is
there as a whole before a word of it is sent, and gone with the last process that has it. Nothing lies in /dev/shm, which containers often
have 64 MB of. Linux only.
"""

from __future__ import annotations

import io
import math
import mmap
import os
import pickle
import socket
import struct
from collections.abc import Iterable
from typing import Any

import torch

_TICKET = struct.Struct("=q")
_HEAD = struct.Struct("=qq")
"""Bytes of the pickle; how many parts follow it, whose sizes come first."""
_ALIGNED = 64
_MOST = 2
"""Descriptors that go with a ticket."""


def send(through: socket.socket, ticket: int, *descriptors: int) -> None:
    """Raises OSError where nobody receives any more."""
    if descriptors:
        socket.send_fds(through, [_TICKET.pack(ticket)], descriptors)
    else:
        through.send(_TICKET.pack(ticket))


def receive(through: socket.socket) -> tuple[int, list[int]] | None:
    """A ticket, and the descriptors that came with it; None where the other side is gone."""
    try:
        message, descriptors, _, _ = socket.recv_fds(through, _TICKET.size, _MOST, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None
    return (_TICKET.unpack(message)[0], descriptors) if message else None


def memory() -> int:
    """A descriptor of some that is empty, and has no name. Raises OSError."""
    return os.memfd_create("batch", os.MFD_CLOEXEC)


def pack(value: Any) -> int:
    """A descriptor of memory with `value` in it. Raises as `write`."""
    descriptor = memory()
    try:
        write(descriptor, value)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def write(descriptor: int, value: Any) -> None:
    """Over what is there, which stays where it is longer. Raises OSError where there is no memory; whatever pickling raises, and then
    nothing was written."""
    text, buffers = io.BytesIO(), list[pickle.PickleBuffer]()
    _Packer(text, 5, buffer_callback=buffers.append).dump(value)
    parts = [buffer.raw() for buffer in buffers]
    sizes = [part.nbytes for part in parts]
    head = _HEAD.pack(text.tell(), len(parts)) + struct.pack(f"={len(parts)}q", *sizes) + text.getvalue()
    for offset, part in zip(_offsets(len(head), sizes), [memoryview(head), *parts], strict=True):
        while part:
            written = os.pwrite(descriptor, part, offset)
            part, offset = part[written:], offset + written
    end = _offsets(len(head), [*sizes, 0])[-1]  # where the last part is empty
    if os.fstat(descriptor).st_size < end:
        os.ftruncate(descriptor, end)


def unpack(descriptor: int) -> Any:
    """What was packed. The descriptor is closed."""
    try:
        return read(memoryview(mmap.mmap(descriptor, os.fstat(descriptor).st_size, flags=mmap.MAP_SHARED)))
    finally:
        os.close(descriptor)


def read(memory: memoryview) -> Any:
    """What was written there; its tensors and arrays are that memory."""
    length, count = _HEAD.unpack_from(memory)
    sizes = struct.unpack_from(f"={count}q", memory, _HEAD.size)
    start = _HEAD.size + 8 * count
    offsets = _offsets(start + length, sizes)[1:]
    parts = [memory[offset : offset + size] for offset, size in zip(offsets, sizes, strict=True)]
    return _Unpickler(io.BytesIO(memory[start : start + length]), buffers=parts).load()


class _Packer(pickle.Pickler):
    """The elements of plain tensors become parts, as those of arrays do by protocol 5."""

    def persistent_id(self, obj: Any) -> Any:
        if type(obj) is not torch.Tensor or obj.device.type != "cpu" or obj.layout != torch.strided or obj.is_quantized:
            return None
        dense = obj.detach().resolve_conj().resolve_neg()
        if dense.stride() != torch.empty_like(dense, device="meta").stride():  # has holes, or elements that are one
            dense = dense.clone()
        flat = dense.as_strided((dense.numel(),), (1,)).view(torch.uint8)
        return pickle.PickleBuffer(flat.numpy().data), dense.dtype, tuple(dense.shape), dense.stride()


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, pid: Any) -> torch.Tensor:
        part, dtype, shape, stride = pid
        if not math.prod(shape):
            return torch.empty_strided(shape, stride, dtype=dtype)
        return torch.frombuffer(part, dtype=dtype).as_strided(shape, stride)


def _offsets(head: int, sizes: Iterable[int]) -> list[int]:
    """Where the head and the parts behind it lie."""
    found, end = [0], head
    for size in sizes:
        found.append(-(-end // _ALIGNED) * _ALIGNED)
        end = found[-1] + size
    return found

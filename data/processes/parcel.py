"""An object in memory without a name, whose descriptor is sent through a socket: how worker processes get tasks and hand over batches.

Tensors and arrays of a batch are written once and then mapped, not copied, by who receives it. What was sent lives in the kernel: it
arrives whole or not at all, though its sender is killed or stopped a moment later, and is gone with the last process that has it. Nothing
lies in /dev/shm, which containers often have 64 MB of. Linux only.
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


def send(through: socket.socket, ticket: int, value: Any) -> None:
    """Raises OSError where nobody receives any more, or there is no memory; whatever pickling raises."""
    descriptor = pack(value)
    try:
        socket.send_fds(through, [_TICKET.pack(ticket)], [descriptor])
    finally:
        os.close(descriptor)


def receive(through: socket.socket) -> tuple[int, int] | None:
    """A ticket and a descriptor for `unpack`; None where the other side is gone."""
    try:
        message, descriptors, _, _ = socket.recv_fds(through, _TICKET.size, 1, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None
    return (_TICKET.unpack(message)[0], descriptors[0]) if message else None


def pack(value: Any) -> int:
    """A descriptor of memory with `value` in it."""
    text, buffers = io.BytesIO(), list[pickle.PickleBuffer]()
    _Packer(text, 5, buffer_callback=buffers.append).dump(value)
    parts = [buffer.raw() for buffer in buffers]
    sizes = [part.nbytes for part in parts]
    head = _HEAD.pack(text.tell(), len(parts)) + struct.pack(f"={len(parts)}q", *sizes) + text.getvalue()
    descriptor = os.memfd_create("batch", os.MFD_CLOEXEC)
    try:
        for offset, part in zip(_offsets(len(head), sizes), [memoryview(head), *parts], strict=True):
            while part:
                written = os.pwrite(descriptor, part, offset)
                part, offset = part[written:], offset + written
        os.ftruncate(descriptor, _offsets(len(head), [*sizes, 0])[-1])  # where the last part is empty
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def unpack(descriptor: int) -> Any:
    """What was packed; its tensors and arrays are that memory. The descriptor is closed."""
    try:
        memory = mmap.mmap(descriptor, os.fstat(descriptor).st_size, flags=mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0))
    finally:
        os.close(descriptor)
    length, count = _HEAD.unpack_from(memory)
    sizes = struct.unpack_from(f"={count}q", memory, _HEAD.size)
    start, view = _HEAD.size + 8 * count, memoryview(memory)
    offsets = _offsets(start + length, sizes)[1:]
    parts = [view[offset : offset + size] for offset, size in zip(offsets, sizes, strict=True)]
    return _Unpickler(io.BytesIO(view[start : start + length]), buffers=parts).load()


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

"""Objects in memory without a name: what comes out is what went in."""

from __future__ import annotations

import os
import socket
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.processes import parcel

Pair = namedtuple("Pair", "left right")


def through(value: Any) -> Any:
    return parcel.unpack(parcel.pack(value))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6).view(2, 3),
        torch.arange(6).view(2, 3).t(),
        torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        torch.ones(3).expand(4, 3),
        torch.arange(10)[::2],
        torch.arange(10)[3:7],
        torch.zeros(0, 3),
        torch.tensor(3.5, dtype=torch.bfloat16),
        torch.tensor([True, False]),
        torch.tensor([1 + 2j]).conj(),
        torch.rand(2, requires_grad=True),
    ],
)
def test_a_tensor_is_the_same_and_lies_the_same(tensor: torch.Tensor) -> None:
    found = through(tensor)
    assert torch.equal(found, tensor)
    assert found.dtype == tensor.dtype
    assert not found.requires_grad
    assert found.stride() == torch.empty_like(tensor).stride()
    found.add_(1) if found.dtype != torch.bool else found.fill_(True)  # a batch may be changed in place


def test_batches_may_be_of_any_nesting() -> None:
    shared = torch.rand(3)
    value = {"a": [Pair(shared, np.arange(5)), "text", None], "b": (torch.rand(2), np.zeros(0), b"bytes", np.float32(3))}
    found = through(value)
    assert torch.equal(found["a"][0].left, shared)
    assert isinstance(found["a"][0], Pair)
    assert found["a"][0].right.tolist() == [0, 1, 2, 3, 4]
    found["a"][0].right[0] = 7
    assert (found["a"][1:], found["b"][2:]) == (["text", None], (b"bytes", 3))
    assert torch.equal(found["b"][0], value["b"][0])
    assert found["b"][1].shape == (0,)


def test_what_was_sent_is_there_though_the_sender_is_gone() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = len([*Path("/proc/self/fd").iterdir()])
    packed = parcel.pack(torch.ones(100_000))
    parcel.send(theirs, 7, packed)
    os.close(packed)
    theirs.close()
    received = parcel.receive(ours)
    assert received is not None
    ticket, (descriptor,) = received
    assert ticket == 7
    assert parcel.unpack(descriptor).sum() == 100_000
    assert parcel.receive(ours) is None
    assert len([*Path("/proc/self/fd").iterdir()]) == before - 1, "of theirs; of the parcel none is left"
    ours.close()

"""What a worker process does: it makes the batches that it is asked for, until nobody asks any more."""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import socket
import struct
import traceback
from typing import Any

import torch

from data.processes import parcel
from data.processes.maker import Maker, Spent
from data.store.files import first_line

NOTE = struct.Struct("=qqdd")
"""How many notes there have been, and the last: the number of a sample, or COLLATING of maker.py. What Spent has there."""


class Failure(Exception):
    """What went wrong there, as the trainer hears of it: the line for the user, and the traceback as a text."""

    def __init__(self, kind: type[Exception], line: str, stack: str) -> None:
        super().__init__(kind, line, stack)
        self.kind, self.line, self.stack = kind, line, stack

    def __str__(self) -> str:
        return f"in a loader worker\n{self.stack}"


def work(descriptor: int, note: int, made_with: int) -> None:
    """Comes back when the trainer has closed its side."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    torch.set_num_threads(1)
    through, shared = socket.socket(fileno=descriptor), mmap.mmap(note, NOTE.size)
    os.close(note)
    maker = _maker(made_with)
    notes = 0

    def noted(index: int) -> None:
        nonlocal notes
        notes += 1
        NOTE.pack_into(shared, 0, notes, index, *(maker.spent if isinstance(maker, Maker) else Spent()))

    while received := parcel.receive(through):
        ticket, (task, slot) = received
        try:
            if isinstance(maker, Failure):
                raise maker
            parcel.write(slot, maker.make(parcel.unpack(task), noted))
        except Exception as error:  # a user's code, or a batch that does not pickle: the trainer hears of it
            parcel.write(slot, _failure(error))
        os.close(slot)
        try:
            parcel.send(through, ticket)
        except ConnectionError:
            return


def _maker(descriptor: int) -> Maker | Failure:
    """The data sets, made anew: files that they open are this process's own."""
    try:
        with mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) as text:
            os.close(descriptor)
            return pickle.loads(text)  # the trainer's own, in memory that has no name
    except Exception as error:  # a user's __setstate__, or a module that is not found
        line = f"data: the data set cannot be made anew in a loader worker: {type(error).__name__}: {first_line(error)}"
        return Failure(RuntimeError, f"{line}; mend its pickling, or type loader.num_workers=0", traceback.format_exc())


def _failure(error: Exception) -> Any:
    if isinstance(error, Failure):
        return error
    if isinstance(error, ValueError | RuntimeError) and str(error).startswith("data: "):
        return Failure(type(error), str(error), traceback.format_exc())
    line = f"data: a batch cannot be sent from a loader worker: {type(error).__name__}: {first_line(error)}"
    return Failure(RuntimeError, line, traceback.format_exc())

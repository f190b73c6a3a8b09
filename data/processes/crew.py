"""The trainer's side of worker processes: who makes which batch, in which order they are given, and what happens when a worker is lost.

Each worker has a socket of its own and nothing in common with another, so that the kernel tells at once when one is gone, and what the
others do does not hang on it. Batches are asked for ahead, of whoever has least to do, and given in the order that they were asked in.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import pickle
import selectors
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from data.processes import parcel
from data.processes.ahead import copier
from data.processes.maker import COLLATING, Maker, Spent, Task
from data.processes.nursery import START_SECONDS, Nursery
from data.processes.slots import Slot, Slots
from data.processes.worker import NOTE, Failure
from data.sampling.samples import Samples
from data.store.files import first_line, notice

LOSSES = 3
"""Workers that may be lost in an epoch: a machine has bad minutes, but what kills four is here to stay."""
_LOOK_SECONDS = 0.5
_LOST = "SIGKILL: most likely memory was full, type a smaller loader.num_workers or loader.prefetch_factor"
_SLOW = "Where it is only slow, type a larger loader.timeout"


class _Hand:
    """A worker process, as the trainer sees it."""

    def __init__(self, nursery: Nursery, made_with: int) -> None:
        """Raises OSError."""
        self.asked: deque[int] = deque()
        """Tickets of the batches that it is to make, in that order."""
        self.nursery = nursery
        self.waited, self._seen = 0.0, 0
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        note = os.memfd_create("note", os.MFD_CLOEXEC)
        try:
            os.ftruncate(note, NOTE.size)
            self._note = mmap.mmap(note, NOTE.size)
            self.pid = nursery.start(theirs.fileno(), note, made_with)
        except OSError:
            self.socket.close()
            raise
        finally:
            os.close(note)
            theirs.close()

    def at(self) -> int:
        return NOTE.unpack_from(self._note)[1]

    def spent(self) -> Spent:
        return Spent(*NOTE.unpack_from(self._note)[2:])

    def is_late(self, waited: float, limit: float) -> bool:
        """Whether it has been at one sample for more than `limit` of the seconds that we waited, of which these were the last. Before its
        first one it imports what the data set needs, maybe from a file system that is slow."""
        notes = NOTE.unpack_from(self._note)[0]
        self.waited = self.waited + waited if self.asked and notes == self._seen else 0.0
        self._seen = notes
        return self.waited > (limit if notes else limit + START_SECONDS) and limit > 0


class Crew:
    """Must be made and used by the main thread (data/processes/nursery.py)."""

    def __init__(
        self, sets: Mapping[str, Samples], seed: int, count: int, prefetch: int, timeout: float, pin: bool, device: torch.device
    ) -> None:
        """Raises ValueError where the sets cannot be sent; OSError where no process can be started."""
        self.count, self.room = count, count * prefetch
        """Processes; batches that are asked for ahead."""
        self._sets, self._timeout = sets, timeout
        self._copier = copier(device, pin)
        self._tickets = itertools.count()
        self._tasks: dict[int, Task] = {}
        """That somebody still waits for."""
        self._slots, self._lent = Slots(self.room + 2), dict[int, Slot]()
        """By ticket: what a worker writes its batch to."""
        self._made: dict[int, Slot] = {}
        """By ticket: batches that nobody has taken yet."""
        self._losses = 0
        self._selector = selectors.DefaultSelector()
        self._hands: list[_Hand] = []
        self._made_with = _pickled(sets, seed)
        self._nursery = Nursery()
        try:
            for _ in range(count):
                self._add(_Hand(self._nursery, self._made_with))
        except BaseException:
            self.close()
            raise

    def spent(self) -> Spent:
        """Of all workers that there are."""
        each = [hand.spent() for hand in self._hands]
        return Spent(sum(one.reading for one in each), sum(one.decoding for one in each))

    def begin_epoch(self) -> None:
        self._losses = 0

    def batches(self, tasks: Iterable[Task]) -> Iterator[Any]:
        """One after the other; as many as there is room for are asked for ahead. Raises ValueError or RuntimeError in place of a batch that
        could not be made."""
        left, mine, begun = iter(tasks), deque[int](), deque[Any]()
        try:
            self._ask(left, mine)
            while mine or begun:
                if not begun:
                    begun.append(self._begun(mine))
                self._ask(left, mine)
                batch = begun.popleft()
                if isinstance(batch, Failure):
                    raise batch.kind(batch.line) from batch
                if mine and self._is_there(mine[0]):
                    begun.append(self._begun(mine))
                yield self._copier.end(batch)
        finally:
            for ticket in mine:
                self._tasks.pop(ticket, None)
                if ticket in self._made:
                    self._slots.take_back(self._made.pop(ticket))

    def close(self) -> None:
        for hand in self._hands:
            hand.socket.close()
            with contextlib.suppress(OSError):
                hand.nursery.end(hand.pid)
        self._nursery.close()
        self._selector.close()
        self._slots.close()
        for slot in (*self._made.values(), *self._lent.values()):
            slot.close()
        os.close(self._made_with)
        self._hands, self._made, self._lent = [], {}, {}

    def _ask(self, left: Iterator[Task], mine: deque[int]) -> None:
        while len(mine) < self.room and (task := next(left, None)) is not None:
            ticket = next(self._tickets)
            mine.append(ticket)
            self._tasks[ticket] = task
            self._give(min(self._hands, key=lambda hand: len(hand.asked)), ticket)

    def _give(self, hand: _Hand, ticket: int) -> None:
        hand.asked.append(ticket)
        slot = self._lent[ticket] = self._slots.lend()
        task = parcel.pack(self._tasks[ticket])
        try:
            with contextlib.suppress(ConnectionError):  # it is gone: that is seen where its answer is waited for
                parcel.send(hand.socket, ticket, task, slot.descriptor)
        finally:
            os.close(task)

    def _begun(self, mine: deque[int]) -> Any:
        """Of the first of them: a batch on its way to the device, or a Failure, which is not raised before its turn comes."""
        while mine[0] not in self._made:
            self._hear(_LOOK_SECONDS)
        ticket = mine.popleft()
        del self._tasks[ticket]
        batch = self._made.pop(ticket).unpack(self._slots.take_back)
        return batch if isinstance(batch, Failure) else self._copier.begin(batch)

    def _is_there(self, ticket: int) -> bool:
        if ticket not in self._made:
            self._hear(0)
        return ticket in self._made

    def _hear(self, seconds: float) -> None:
        """What the workers have sent by now; nothing yet: wait for so long. Where we were stopped ourselves, that is no time of theirs."""
        before = time.monotonic()
        heard = self._selector.select(seconds)
        waited = min(time.monotonic() - before, 2 * seconds)
        for key, _ in heard:
            hand: _Hand = key.data
            if hand not in self._hands:  # replaced a moment ago
                continue
            if (received := parcel.receive(hand.socket)) is None:
                self._replace(hand)
                continue
            ticket, _ = received
            hand.asked.remove(ticket)
            slot = self._lent.pop(ticket)
            if ticket in self._tasks:
                self._made[ticket] = slot
            else:
                self._slots.take_back(slot)
        if not heard:
            for hand in [*self._hands]:
                if hand in self._hands and hand.is_late(waited, self._timeout):
                    self._replace(hand, f"took more than loader.timeout={self._timeout:g} s and ")

    def _replace(self, hand: _Hand, why: str = "") -> None:
        """By a new one, which makes its batches once more. Raises RuntimeError where that was one too many."""
        at, is_known = self._place_of(hand), hand.nursery is not self._nursery  # died with the last nursery: that was counted once for all
        try:
            ended = hand.nursery.end(hand.pid, is_ending=not why)
        except OSError:
            ended = "died with the process that it was forked from"
            if not is_known:
                self._renew()
        self._remove(hand)
        if not is_known:
            self._count(f"data: a loader worker (pid {hand.pid}) {why}{ended}{at}", _SLOW if why else _LOST)
        try:
            new = _Hand(self._nursery, self._made_with)
        except OSError:  # that one is gone too, by now
            self._renew()
            new = _Hand(self._nursery, self._made_with)
        self._add(new)
        for ticket in hand.asked:
            self._lent.pop(ticket).close()  # and is not lent again: what the lost one still writes there is for nobody
            if ticket in self._tasks:
                self._give(new, ticket)

    def _renew(self) -> None:
        self._nursery.close()
        self._nursery = Nursery()

    def _count(self, line: str, instead: str) -> None:
        self._losses += 1
        if self._losses > LOSSES:
            raise RuntimeError(
                f"{line}; it is the {self._losses}th to be lost in this epoch. {instead}; else look at that sample, or type "
                "loader.num_workers=0"
            )
        notice(f"{line}; another one makes its batches once more")

    def _place_of(self, hand: _Hand) -> str:
        task = next((self._tasks[ticket] for ticket in hand.asked if ticket in self._tasks), None)
        if task is None:
            return ""
        name, index = self._sets[task.whole].name, hand.at()
        return f" while it made a batch of {name}" if index == COLLATING else f" while it read {name}[{index}]"

    def _add(self, hand: _Hand) -> None:
        self._hands.append(hand)
        self._selector.register(hand.socket, selectors.EVENT_READ, hand)

    def _remove(self, hand: _Hand) -> None:
        self._hands = [each for each in self._hands if each is not hand]
        self._selector.unregister(hand.socket)
        hand.socket.close()


def _pickled(sets: Mapping[str, Samples], seed: int) -> int:
    """Memory with what makes batches in it: once, however many workers there are."""
    try:
        text = pickle.dumps(Maker(sets, seed), 5)
    except Exception as error:  # whatever a user's object raises
        raise ValueError(
            f"data: {sets['train'].name} cannot be sent to loader workers: {type(error).__name__}: {first_line(error)}; open files in "
            "__getitem__ and not before, define classes and functions in modules, or type loader.num_workers=0"
        ) from error
    descriptor = os.memfd_create("sets", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(text)
    return descriptor

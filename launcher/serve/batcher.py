"""Requests that are there together are answered together: a batch is what has come while the one before was computed.

No request waits for others to come but `wait` seconds, and that only where more than it are on their way; so a lone request costs what it
would without batching. A queue that is full says so at once. For the idea: Clipper (Crankshaw et al., 2017,
https://arxiv.org/abs/1612.03079, section 4.3).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from launcher.predict.predictor import Predictor, Ready


class Full(Exception):
    """More are waiting than will be answered in time."""


class _Waiting(NamedTuple):
    ready: Ready
    answer: asyncio.Future[dict[str, Any]]


class Batcher:
    """One for all predictors, each of which has a thread."""

    def __init__(self, predictors: Sequence[Predictor], most: int, wait: float, queue: int) -> None:
        """`most`: inputs of a batch. `wait`: seconds that a batch is held open at most. `queue`: inputs that may wait."""
        self._most, self._wait, self._limit = most, wait, queue
        self._waiting: deque[_Waiting] = deque()
        self._there = asyncio.Event()
        self._threads = [ThreadPoolExecutor(1) for _ in predictors]
        self._tasks = [asyncio.create_task(self._work(each, thread)) for each, thread in zip(predictors, self._threads, strict=True)]
        self.on_the_way = 0
        """Requests that have come and are not answered yet."""
        self.batches = self.inputs = 0
        self.seconds = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    async def answer(self, ready: Ready) -> dict[str, Any]:
        """Raises Full; RunError where the program fails."""
        if len(self._waiting) >= self._limit:
            raise Full
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(ready, future))
        self._there.set()
        return await future

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for thread in self._threads:
            thread.shutdown(wait=True, cancel_futures=True)

    async def _work(self, predictor: Predictor, thread: ThreadPoolExecutor) -> None:
        while True:
            while not self._waiting:
                self._there.clear()
                await self._there.wait()
            if self._wait and len(self._waiting) < min(self._most, self.on_the_way):
                await asyncio.sleep(self._wait)
            taken = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            taken = [each for each in taken if not each.answer.cancelled()]  # whose client has gone
            if taken:
                await self._answered(predictor, thread, taken)

    async def _answered(self, predictor: Predictor, thread: ThreadPoolExecutor, taken: Sequence[_Waiting]) -> None:
        began = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(thread, predictor.predict, [each.ready for each in taken])
        except Exception as error:  # whatever it is, those who wait are told, and the next batch is answered
            for each in taken:
                if not each.answer.done():
                    each.answer.set_exception(error)
            return
        self.batches, self.inputs, self.seconds = self.batches + 1, self.inputs + len(taken), self.seconds + time.perf_counter() - began
        for each, answer in zip(taken, answers, strict=True):
            if not each.answer.done():
                each.answer.set_result(answer)

"""Many inputs through one export, in their order: answered in batches on every device, and read beside that where cores are left."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from launcher.errors import ConfigError
from launcher.predict.images import Refused
from launcher.predict.predictor import Predictor, Ready
from launcher.predict.sources import ROWS, Item
from launcher.trust import reading

_AHEAD = 3
"""Batches that are being read while others are answered."""
_FEW_CORES = 2
"""With no more of them, what is read beside a program takes its cores from it, and each waits for the other."""
_TOGETHER = 8
"""Inputs that a thread reads at once: threads that hand over each one by itself wait for each other."""

Chunk = list[tuple[str, Ready | Refused]]
"""Names, and what is to be answered."""


def devices(asked: str) -> list[torch.device]:
    """auto: every accelerator of the machine, or the CPU. Raises ConfigError."""
    if asked != "auto":
        try:
            found = torch.device(asked)
            torch.empty(0, device=found)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(
                f"device={asked}: torch has none here ({str(error).splitlines()[0][:100]}); type device=cpu, or auto"
            ) from error
        return [found]
    if not torch.accelerator.is_available():
        return [torch.device("cpu")]
    kind = torch.accelerator.current_accelerator()
    assert kind is not None, "one is there"
    return [torch.device(kind.type, number) for number in range(torch.accelerator.device_count())]


def items(found: Iterable[Path | str], predictor: Predictor) -> Iterator[Item | Refused]:
    """Inputs in what was found: a table has one in each row."""
    for number, each in enumerate(found):
        if isinstance(each, str):
            yield Item(f"text {number + 1}", text=each)
        elif predictor.rows is not None:
            yield from _of_table(each, predictor)
        elif predictor.preprocessing["kind"] == "text":
            try:
                yield Item(str(each), text=reading.whole(each).decode("utf-8-sig"))
            except (OSError, UnicodeDecodeError) as error:
                yield _named(Refused(f"it is no text that can be read ({getattr(error, 'strerror', None) or error})"), str(each))
        else:
            yield Item(str(each), path=each)


def answered(predictors: Sequence[Predictor], given: Iterable[Item | Refused], batch_size: int) -> Iterator[dict[str, Any]]:
    """A dict for each, `input` first; of one of which nothing can be said, `error`."""
    first = predictors[0]
    if first.device.type == "cpu" and len(predictors) == 1 and (os.cpu_count() or 1) <= _FEW_CORES:
        yield from _in_turn(first, given, batch_size)
        return
    readers = ThreadPoolExecutor(os.cpu_count() or 1)
    runners = [ThreadPoolExecutor(1) for _ in predictors]
    turns = itertools.cycle(zip(runners, predictors, strict=True))
    awaited: deque[Future[Chunk]] = deque()
    running: deque[Future[list[dict[str, Any]]]] = deque()
    source = iter(given)
    together = max(size for size in range(1, _TOGETHER + 1) if batch_size % size == 0)
    chunks = batch_size // together
    try:
        while True:
            while len(awaited) < (_AHEAD + len(predictors)) * chunks and (some := [*itertools.islice(source, together)]):
                awaited.append(readers.submit(_ready, first, some))
            if not awaited and not running:
                return
            if awaited:
                part = [awaited.popleft() for _ in range(min(chunks, len(awaited)))]
                runner, predictor = next(turns)
                running.append(runner.submit(_batch, predictor, part))
            if len(running) > 2 * len(predictors) or not awaited:
                yield from running.popleft().result()
    finally:
        for pool in (readers, *runners):
            pool.shutdown(wait=True, cancel_futures=True)


def _in_turn(predictor: Predictor, given: Iterable[Item | Refused], batch_size: int) -> Iterator[dict[str, Any]]:
    """Read, then answered, in one thread."""
    source = iter(given)
    while some := [*itertools.islice(source, batch_size)]:
        yield from _answers(predictor, _ready(predictor, some))


def _batch(predictor: Predictor, part: Sequence[Future[Chunk]]) -> list[dict[str, Any]]:
    return _answers(predictor, [each for chunk in part for each in chunk.result()])


def _answers(predictor: Predictor, found: Chunk) -> list[dict[str, Any]]:
    ready = [each for _, each in found if isinstance(each, Ready)]
    answers = iter(predictor.predict(ready) if ready else [])
    return [
        {"input": name, **next(answers)}
        if isinstance(each, Ready)
        else {"input": name, "prediction": None, "error": str(each), "guards": [f"input: {each}"]}
        for name, each in found
    ]


def _ready(predictor: Predictor, some: Sequence[Item | Refused]) -> Chunk:
    return [(item.name, _one(predictor, item)) for item in some]


def _one(predictor: Predictor, item: Item | Refused) -> Ready | Refused:
    if isinstance(item, Refused):
        return item
    try:
        if item.path is None:
            return predictor.row(item.row)
        if predictor.images is None:
            return Refused(f"it is a file, and the model takes {predictor.preprocessing['kind']}")
        return predictor.picture(predictor.images.read(item.path))
    except Refused as error:
        return error


def _of_table(path: Path, predictor: Predictor) -> Iterator[Item | Refused]:
    assert predictor.rows is not None, "it takes rows"
    if path.suffix.lower() not in ROWS:
        yield _named(Refused(f"it is no table or array ({', '.join(ROWS)})"), str(path))
        return
    try:
        for number, row in enumerate(predictor.rows.of(path), 1):
            yield Item(f"{path}:{number}", row=row)
    except Refused as error:
        yield _named(error, str(path))


def _named(error: Refused, name: str) -> Refused:
    error.name = name
    return error

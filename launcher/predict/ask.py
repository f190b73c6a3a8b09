"""Many inputs through one export: read and decoded by threads, answered in batches on every device, in their order."""

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
from launcher.predict.rows import SUFFIXES
from launcher.predict.sources import Item

_AHEAD = 3
"""Batches that are being read while others are answered."""


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
                yield Item(str(each), text=each.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                yield _named(Refused(f"it is no text that can be read ({error})"), str(each))
        else:
            yield Item(str(each), path=each)


def answered(predictors: Sequence[Predictor], given: Iterable[Item | Refused], batch_size: int) -> Iterator[dict[str, Any]]:
    """A dict for each, `input` first; of one of which nothing can be said, `error`."""
    first = predictors[0]
    readers = ThreadPoolExecutor(os.cpu_count() or 1)
    runners = [ThreadPoolExecutor(1) for _ in predictors]
    turns = itertools.cycle(zip(runners, predictors, strict=True))
    reading: deque[tuple[str, Future[Ready]]] = deque()
    running: deque[Future[list[dict[str, Any]]]] = deque()
    source = iter(given)
    try:
        while True:
            for item in itertools.islice(source, (_AHEAD + len(predictors)) * batch_size - len(reading)):
                name = item.name if isinstance(item, Item) else str(item.__dict__["name"])
                reading.append((name, readers.submit(_ready, first, item)))
            if not reading and not running:
                return
            if reading:
                part = [reading.popleft() for _ in range(min(batch_size, len(reading)))]
                runner, predictor = next(turns)
                running.append(runner.submit(_batch, predictor, part))
            if len(running) > 2 * len(predictors) or not reading:
                yield from running.popleft().result()
    finally:
        for pool in (readers, *runners):
            pool.shutdown(wait=True, cancel_futures=True)


def _batch(predictor: Predictor, part: Sequence[tuple[str, Future[Ready]]]) -> list[dict[str, Any]]:
    ready: list[Ready] = []
    refused: dict[int, str] = {}
    for place, (_, each) in enumerate(part):
        try:
            ready.append(each.result())
        except Refused as error:
            refused[place] = str(error)
    answers = iter(predictor.predict(ready) if ready else [])
    return [
        {"input": name, "prediction": None, "error": refused[place], "guards": [f"input: {refused[place]}"]}
        if place in refused
        else {"input": name, **next(answers)}
        for place, (name, _) in enumerate(part)
    ]


def _ready(predictor: Predictor, item: Item | Refused) -> Ready:
    """Raises Refused."""
    if isinstance(item, Refused):
        raise item
    if item.path is None:
        return predictor.row(item.row)
    if predictor.images is None:
        raise Refused(f"it is a file, and the model takes {predictor.preprocessing['kind']}")
    return predictor.picture(predictor.images.read(item.path))


def _of_table(path: Path, predictor: Predictor) -> Iterator[Item | Refused]:
    assert predictor.rows is not None, "it takes rows"
    if path.suffix.lower() not in SUFFIXES:
        yield _named(Refused(f"it is no table or array ({', '.join(SUFFIXES)})"), str(path))
        return
    try:
        for number, row in enumerate(predictor.rows.of(path), 1):
            yield Item(f"{path}:{number}", row=row)
    except Refused as error:
        yield _named(error, str(path))


def _named(error: Refused, name: str) -> Refused:
    error.__dict__["name"] = name
    return error

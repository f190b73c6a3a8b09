"""Answers as lines: JSON, CSV or parquet; a file is there whole, or not at all."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from launcher.errors import ConfigError, RunError, plain
from launcher.trust import writing

SUFFIXES = (".jsonl", ".csv", ".parquet")
_FIRST = ("input", "prediction")


def check(to: str) -> Path | None:
    """None is stdout. Raises ConfigError."""
    if not to:
        return None
    path = Path(to).expanduser().absolute()
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"to={to}: answers are written as {', '.join(SUFFIXES)}; type such a name")
    if not path.parent.is_dir():
        raise ConfigError(f"to={to}: there is no directory {path.parent}; make it, or type another")
    return path


def write(answers: Iterable[Mapping[str, Any]], path: Path | None) -> None:
    """Raises RunError where there is no room; then nothing of it is left."""
    if path is None:
        for answer in answers:
            sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")
        sys.stdout.flush()
        return
    spare = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(writing.new(spare), "wb") as file:
            {".jsonl": _lines, ".csv": _table, ".parquet": _parquet}[path.suffix.lower()](answers, file)
            file.flush()
            writing.sync(file.fileno())
        spare.replace(path)
    except OSError as error:
        raise RunError(f"to={path}: it cannot be written ({error.strerror or plain(str(error))}); make room, or type another") from error
    finally:
        spare.unlink(missing_ok=True)


def _lines(answers: Iterable[Mapping[str, Any]], file: IO[bytes]) -> None:
    for answer in answers:
        file.write(json.dumps(answer, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")


def _table(answers: Iterable[Mapping[str, Any]], file: IO[bytes]) -> None:
    import io

    text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="", write_through=True)
    names, rows = _columns(answers)
    table = csv.writer(text)
    table.writerow(names)
    table.writerows([_cell(row.get(name)) for name in names] for row in rows)
    text.flush()
    text.detach()


def _parquet(answers: Iterable[Mapping[str, Any]], file: IO[bytes]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    names, rows = _columns(answers)
    columns = {name: [row.get(name) for row in rows] for name in names}
    arrays = {name: _array(values) for name, values in columns.items()}
    parquet.write_table(pa.table(arrays), file)


def _array(values: Sequence[Any]) -> Any:
    import pyarrow as pa

    if any(isinstance(value, list | dict) for value in values):
        return pa.array([None if value is None else json.dumps(value, ensure_ascii=False) for value in values], pa.string())
    return pa.array(values)


def _columns(answers: Iterable[Mapping[str, Any]]) -> tuple[list[str], list[Mapping[str, Any]]]:
    rows = list(answers)
    names = dict.fromkeys((*_FIRST, *(name for row in rows for name in row)))
    return [*names], rows


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def counted(answers: Iterable[dict[str, Any]], told: dict[str, int], is_strict: bool) -> Iterator[dict[str, Any]]:
    """`told` grows: `inputs`, `errors`, `guarded`. Raises ConfigError where a guard is an error, and there was one."""
    for answer in answers:
        told["inputs"] += 1
        told["errors"] += "error" in answer
        told["guarded"] += bool(answer["guards"])
        if is_strict and answer["guards"]:
            raise ConfigError(f"{plain(answer['input'])}: {answer['guards'][0]} (--strict)")
        yield answer

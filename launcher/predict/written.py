"""Answers as lines: JSON, CSV or parquet; a file is there whole, or not at all. However many there are, a handful is held."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from launcher.errors import ConfigError, RunError, plain
from launcher.trust import writing

SUFFIXES = (".jsonl", ".csv", ".parquet")
GROUP, _GROUP_CHARACTERS = 4096, 16 << 20
"""Answers that parquet has in one group, and of texts no more than that: they are held until it is written."""

Columns = Mapping[str, type[str] | type[float]]
"""Names in their order, and what each holds; a list is JSON in a text. An answer lacks some: those are empty."""


def check(to: str) -> Path | None:
    """None is stdout. Raises ConfigError."""
    if not to:
        return None
    path = Path(to).expanduser().absolute()
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"to={to}: answers are written as {', '.join(SUFFIXES)}; type such a name")
    if path.is_dir():
        raise ConfigError(f"to={to}: there is a directory of that name; type another")
    if not path.parent.is_dir():
        raise ConfigError(f"to={to}: there is no directory {path.parent}; make it, or type another")
    return path


def columns(told: Mapping[str, Any], *, has_top: bool = False, is_drawn: bool = False) -> Columns:
    """Of all answers of a model, by its export's manifest: they are known before the first, so that no answer is waited for."""
    if told["predicts"] == "tokens":
        return {"input": str, "text": str, "continued": str, "error": str}
    is_number = told["predicts"] in ("numbers", "tensors") and len(told["outputs"][0]["shape"]) == 1
    found: dict[str, type[str] | type[float]] = {"input": str, "prediction": float if is_number else str}
    if told["predicts"] == "classes":
        found |= {"class": str, "confidence": float, **({"top": str} if has_top else {})}
    return {**found, "distance": float, "guards": str, **({"drawn": str} if is_drawn else {}), "error": str}


def write(answers: Iterable[Mapping[str, Any]], path: Path | None, names: Columns) -> None:
    """Raises RunError where there is no room; then nothing of it is left."""
    if path is None:
        for answer in answers:
            sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")
        sys.stdout.flush()
        return
    spare = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(writing.new(spare), "wb") as file:
            {".jsonl": _lines, ".csv": _table, ".parquet": _parquet}[path.suffix.lower()](answers, file, names)
            file.flush()
            writing.sync(file.fileno())
        spare.replace(path)
    except OSError as error:
        raise RunError(f"to={path}: it cannot be written ({error.strerror or plain(str(error))}); make room, or type another") from error
    finally:
        spare.unlink(missing_ok=True)


def _lines(answers: Iterable[Mapping[str, Any]], file: IO[bytes], _: Columns) -> None:
    for answer in answers:
        file.write(json.dumps(answer, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")


def _table(answers: Iterable[Mapping[str, Any]], file: IO[bytes], names: Columns) -> None:
    import io

    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    table = csv.writer(text)
    table.writerow(names)
    table.writerows(_cells(answer, names) for answer in answers)
    text.flush()
    text.detach()


def _parquet(answers: Iterable[Mapping[str, Any]], file: IO[bytes], names: Columns) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([(name, pa.string() if kind is str else pa.float64()) for name, kind in names.items()])
    with parquet.ParquetWriter(file, schema) as writer:
        for group in _groups(_cells(answer, names) for answer in answers):
            held = [pa.array(column, field.type) for column, field in zip(zip(*group, strict=True), schema, strict=True)]
            writer.write_table(pa.table(held, schema=schema), len(group))


def _groups(rows: Iterable[list[Any]]) -> Iterator[list[list[Any]]]:
    group: list[list[Any]] = []
    characters = 0
    for row in rows:
        group.append(row)
        characters += sum(len(cell) for cell in row if isinstance(cell, str))
        if len(group) == GROUP or characters > _GROUP_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group


def _cells(answer: Mapping[str, Any], names: Columns) -> list[Any]:
    assert answer.keys() <= names.keys(), f"{answer.keys() - names.keys()} would be left out"
    return [_cell(answer.get(name)) for name in names]


def _cell(value: Any) -> Any:
    value = json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


class Counts:
    """Of answers that have gone by."""

    def __init__(self) -> None:
        self.inputs = self.errors = self.guarded = self.unsure = self.boxes = 0

    def line(self, predicts: str, seconds: float) -> str:
        """How it went, for a person."""
        kinds = {"with a guard": self.guarded, "unsure": self.unsure, "without an answer": self.errors}
        shown = [f"{count:,} {what}" for what, count in kinds.items() if predicts == "classes" or what != "unsure"]
        if predicts == "boxes":
            shown.insert(0, f"{self.boxes:,} boxes")
        elif predicts == "tokens":
            shown = shown[1:]  # a text has no guards
        return f"{self.inputs:,} {'input' if self.inputs == 1 else 'inputs'} in {seconds:.3g} s: {', '.join(shown)}"


def counted(answers: Iterable[dict[str, Any]], counts: Counts, is_strict: bool) -> Iterator[dict[str, Any]]:
    """`counts` grows. Raises ConfigError where a guard is an error, and there was one."""
    for answer in answers:
        guards = answer.get("guards", ())
        counts.inputs += 1
        counts.errors += "error" in answer
        counts.guarded += bool(guards) and "error" not in answer
        counts.unsure += "class" in answer and answer["prediction"] != answer["class"]
        counts.boxes += sum(isinstance(each, dict) for each in found) if isinstance(found := answer.get("prediction"), list) else 0
        if is_strict and guards:
            raise ConfigError(f"{plain(answer['input'])}: {guards[0]} (--strict)")
        yield answer

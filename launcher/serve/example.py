"""A request that this model would answer: what the page is filled with, and what a client is told whose request was another."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from launcher.predict.predictor import Predictor

_MOST = 64
"""Values of a row that are written out; of more it is said how many there are."""
_TAKES = {
    "image": "a picture, as its bytes",
    "text": "a text, as JSON",
    "table": "rows with values by the names of columns, as JSON",
}


def takes(predictor: Predictor, at: str) -> str:
    """One line: what it is, and how it is sent. `at`: host and port that the client knows."""
    kind = predictor.preprocessing["kind"]
    what = _TAKES.get(kind) or f"rows of {'×'.join(map(str, _shape(predictor)))} numbers, as JSON"
    return f"this model takes {what}: {_curl(predictor, kind)} http://{at}/predict"


def _curl(predictor: Predictor, kind: str) -> str:
    if kind == "image":
        return "curl --data-binary @picture.png"
    told = {"text": "To be"} if kind == "text" else {"rows": [row(predictor)]}
    body = json.dumps(told, ensure_ascii=False).replace("'", "'\\''")
    return f"curl -H 'Content-Type: application/json' -d '{body}'"


def row(predictor: Predictor) -> Any:
    """One that is like those of training, as far as that is known."""
    if predictor.preprocessing["kind"] == "table":
        return {name: options[0] if options else mean for name, options, mean in fields(predictor)}
    return _zeros(_shape(predictor)) if _count(predictor) <= _MOST else ["…"]


def fields(predictor: Predictor) -> list[tuple[str, list[str], float]]:
    """Of each column of a table its name, the texts that it may have, and of numbers the mean."""
    found: dict[str, tuple[list[str], float]] = {}
    columns: Sequence[Mapping[str, Any]] = predictor.preprocessing["columns"]
    for each in columns:
        texts, _ = found.setdefault(str(each["column"]), ([], float(f"{each['mean'] or 0.0:.4g}")))
        if each["equals"] is not None:
            texts.append(str(each["equals"]))
    return [(name, texts, mean) for name, (texts, mean) in found.items()]


def _shape(predictor: Predictor) -> list[int]:
    return [int(side) for side in predictor.told["inputs"][0]["shape"][1:]]


def _count(predictor: Predictor) -> int:
    count = 1
    for side in _shape(predictor):
        count *= side
    return count


def _zeros(shape: Sequence[int]) -> Any:
    return [_zeros(shape[1:]) for _ in range(shape[0])] if shape else 0

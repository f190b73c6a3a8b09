"""`predict EXPORT INPUT…`: what an exported model says of files, rows or texts. It needs none of the code that trained the model."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.errors import ConfigError, TrainingFailed
from launcher.exported.folder import PREPROCESSING
from launcher.predict import sources, written
from launcher.verbs import asking
from launcher.verbs.words import Words, text, whole

if TYPE_CHECKING:
    from launcher.predict.predictor import Predictor

_WORDS = Words(
    "predict",
    "EXPORT INPUT…",
    {
        "to": text("FILE.jsonl|.csv|.parquet"),
        "draw": text("DIR", of=("boxes",)),
        **asking.options(batch_size=64, top=1),
        "seed": whole(0, 0, (1 << 63) - 1, asking.TOKENS),
    },
    takes="an export and inputs",
    flags={"--strict": asking.BATCHED},
    least=2,
)
_BAR = 30


def predict(words: list[str]) -> int:
    """A line of JSON for each input on stdout, or a file; on stderr how it went. Exit code 1 where there was an input of which nothing
    could be said. Raises ConfigError, RunError."""
    typed = _WORDS.read(words)
    values, (name, *inputs) = typed.values, typed.names
    to = written.check(values["to"])
    folder = asking.checked(name, typed)
    kind = str(folder.json(PREPROCESSING)["kind"])
    sources.check(inputs, kind)
    predictors = asking.opened(folder, typed)
    from launcher.predict import ask, boxes

    first, began, counts = predictors[0], time.perf_counter(), written.Counts()
    found = sources.paths(inputs, kind)
    is_strict = "--strict" in typed.typed
    if first.predicts in asking.TOKENS:
        if to is None:
            _spoken(first, found, values["seed"], counts)
            return _ended(first, counts, began)
        answers = _continued(first, found, values["seed"])
    else:
        answers = ask.answered(predictors, ask.items(found, first), values["batch_size"])
    if values["draw"]:
        answers = boxes.drawn(answers, (boxes.made(values["draw"]), first.labels))
    columns = written.columns(first.told, has_top=values["top"] > 1, is_drawn=bool(values["draw"]))
    written.write(_shown(written.counted(answers, counts, is_strict), inputs, kind, to is None), to, columns)
    if to is not None:
        print(to)
    return _ended(first, counts, began)


def _ended(predictor: Predictor, counts: written.Counts, began: float) -> int:
    """Say how it went. Raises TrainingFailed where there was an input without an answer."""
    print(counts.line(predictor.predicts, time.perf_counter() - began), file=sys.stderr)
    if predictor.predicts == "boxes" and counts.inputs > counts.errors and not counts.boxes and predictor.asked.unsure:
        limit = predictor.asked.unsure
        less = "0.1" if limit > 0.1 else "0"
        print(f"nothing was found with a score of {limit:g} or more; type unsure={less} to see what is less sure", file=sys.stderr)
    if counts.errors:
        raise TrainingFailed(f"nothing can be said of {counts.errors:,} of {counts.inputs:,} inputs; their lines say why")
    return 0


def _spoken(predictor: Predictor, found: Iterable[Path | str], seed: int, counts: written.Counts) -> None:
    """Each text as it comes, then what the model goes on with, piece by piece."""
    from launcher.predict import ask
    from launcher.predict.images import Refused

    for item in ask.items(found, predictor):
        if isinstance(item, Refused):
            raise ConfigError(f"{item.name}: {item}")
        try:
            pieces = predictor.text(item.text or "", seed)
            sys.stdout.write(item.text or "")
            for piece in pieces:
                sys.stdout.write(piece)
                sys.stdout.flush()
        except Refused as error:
            raise ConfigError(f"{item.name}: {error}") from error
        sys.stdout.write("\n")
        sys.stdout.flush()
        counts.inputs += 1


def _continued(predictor: Predictor, found: Iterable[Path | str], seed: int) -> Iterator[dict[str, Any]]:
    """The same as answers, one for each text."""
    from launcher.predict import ask
    from launcher.predict.images import Refused

    for item in ask.items(found, predictor):
        given = None if isinstance(item, Refused) else item.text
        try:
            if isinstance(item, Refused):
                raise item
            yield {"input": item.name, "text": given, "continued": "".join(predictor.text(given or "", seed))}
        except Refused as error:
            yield {"input": item.name, "text": given, "continued": None, "error": str(error)}


def _shown(answers: Iterable[Mapping[str, Any]], inputs: Sequence[str], kind: str, is_on_screen: bool) -> Iterator[Mapping[str, Any]]:
    """With a bar on a terminal, where answers do not go there themselves."""
    if not sys.stderr.isatty() or (is_on_screen and sys.stdout.isatty()):
        yield from answers
        return
    count, number = sources.count(inputs, kind), 0
    for number, answer in enumerate(answers, 1):
        if number % 32 == 0:
            print(_bar(number, count), end="", file=sys.stderr, flush=True)
        yield answer
    print(_bar(number, number), file=sys.stderr)


def _bar(number: int, count: int) -> str:
    """`count`: 0 where nobody knows."""
    if not count:
        return f"\r{number:,} inputs"
    done = min(_BAR, _BAR * number // count)
    return f"\r{'█' * done}{'·' * (_BAR - done)} {number:,} of {count:,} inputs"

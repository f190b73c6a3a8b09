"""`predict EXPORT INPUT…`: what an exported model says of files, rows or texts. It needs none of the code that trained the model."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.errors import ConfigError, TrainingFailed
from launcher.predict import written
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
    """A line of JSON for each input on stdout, or a file. Exit code 1 where there was an input of which nothing could be said. Raises
    ConfigError, RunError."""
    typed = _WORDS.read(words)
    values, (name, *inputs) = typed.values, typed.names
    to = written.check(values["to"])
    predictors = asking.opened(name, typed)
    from launcher.predict import ask, boxes, sources

    first = predictors[0]
    kind = first.preprocessing["kind"]
    sources.check(inputs, kind)
    found = sources.paths(inputs, kind)
    if first.predicts in asking.TOKENS:
        if to is None:
            return _spoken(first, found, values["seed"])
        answers = _continued(first, found, values["seed"])
    else:
        answers = ask.answered(predictors, ask.items(found, first), values["batch_size"])
    if values["draw"]:
        answers = boxes.drawn(answers, (boxes.made(values["draw"]), first.labels))
    told = {"inputs": 0, "errors": 0}
    columns = written.columns(first.told, has_top=values["top"] > 1, is_drawn=bool(values["draw"]))
    written.write(_shown(written.counted(answers, told, "--strict" in typed.typed), inputs, kind, to is None), to, columns)
    if to is not None:
        print(to)
    if told["errors"]:
        raise TrainingFailed(f"nothing can be said of {told['errors']:,} of {told['inputs']:,} inputs; their lines say why")
    return 0


def _spoken(predictor: Predictor, found: Iterable[Path | str], seed: int) -> int:
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
    return 0


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
    from launcher.predict import sources

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

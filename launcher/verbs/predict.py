"""`predict EXPORT INPUT…`: what an exported model says of files, rows or texts. It needs none of the code that trained the model."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from launcher.errors import ConfigError, TrainingFailed

_OPTIONS = {
    "to": "",
    "draw": "",
    "device": "auto",
    "batch_size": "64",
    "top": "1",
    "unsure": "0.5",
    "classes": "",
    "tokens": "100",
    "seed": "0",
}
_USAGE = (
    "predict EXPORT INPUT… [to=FILE.jsonl|.csv|.parquet] [draw=DIR] [device=cpu] [batch_size=64] [top=1] [unsure=0.5] [classes=a,b] "
    "[tokens=100] [--strict]"
)
_BAR = 30


def predict(words: list[str]) -> int:
    """A line of JSON for each input on stdout, or a file. Exit code 1 where there was an input of which nothing could be said. Raises
    ConfigError, RunError."""
    names, options, is_strict = _read(words)
    from launcher.predict import ask, boxes, sources, written
    from launcher.predict.predictor import Asked, Predictor

    to = written.check(options["to"])
    classes = tuple(name for name in options["classes"].split(",") if name)
    asked = Asked(_number(options, "unsure", 0, 1), _whole(options, "top"), classes, _whole(options, "tokens"))
    batch_size = _whole(options, "batch_size")
    places = ask.devices(options["device"])
    predictors = [Predictor(Path(names[0]).expanduser(), place, asked) for place in places]
    found = [*sources.paths(names[1:], predictors[0].preprocessing["kind"])]
    if predictors[0].predicts == "tokens":
        return _texts(predictors[0], found, _whole(options, "seed", 0))
    drawn = boxes.checked(options["draw"], predictors[0]) if options["draw"] else None
    told = {"inputs": 0, "errors": 0, "guarded": 0}
    answers = ask.answered(predictors, ask.items(found, predictors[0]), batch_size)
    if drawn is not None:
        answers = boxes.drawn(answers, drawn)
    written.write(_shown(written.counted(answers, told, is_strict), len(found), to is None), to)
    if to is not None:
        print(to)
    if told["errors"]:
        raise TrainingFailed(f"nothing can be said of {told['errors']:,} of {told['inputs']:,} inputs; their lines say why")
    return 0


def _texts(predictor: Any, found: Iterable[Any], seed: int) -> int:
    """Each as it comes, then what the model goes on with, piece by piece."""
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


def _shown(answers: Iterable[Mapping[str, Any]], count: int, is_on_screen: bool) -> Iterator[Mapping[str, Any]]:
    """With a bar on a terminal, where answers do not go there themselves."""
    is_bar = sys.stderr.isatty() and not (is_on_screen and sys.stdout.isatty()) and count > 1
    for number, answer in enumerate(answers, 1):
        if is_bar and (number % 32 == 0 or number == count):
            done = min(_BAR, _BAR * number // count)
            print(f"\r{'█' * done}{'·' * (_BAR - done)} {number:,} of {count:,} files", end="", file=sys.stderr, flush=True)
        yield answer
    if is_bar:
        print(file=sys.stderr)


def _read(words: list[str]) -> tuple[list[str], dict[str, str], bool]:
    options = dict(_OPTIONS)
    names: list[str] = []
    for word in words:
        key, is_option, value = word.partition("=")
        if is_option and key in options:
            options[key] = value
        elif word.startswith("--") and word != "--strict":
            raise ConfigError(f"predict {word}: there is no such flag; type {_USAGE}")
        elif is_option and key.isidentifier() and not Path(word).exists():
            raise ConfigError(f"predict {key}=: there is no such option; type {_USAGE}")
        elif word != "--strict":
            names.append(word)
    if len(names) < 2:
        raise ConfigError(f"predict takes an export and inputs: {_USAGE}")
    return names, options, "--strict" in words


def _whole(options: Mapping[str, str], key: str, least: int = 1) -> int:
    if not options[key].isdecimal() or not least <= int(options[key]) <= 1 << 20:
        raise ConfigError(f"{key}={options[key]}: type a whole number from {least}")
    return int(options[key])


def _number(options: Mapping[str, str], key: str, least: float, most: float) -> float:
    try:
        value = float(options[key])
    except ValueError:
        value = -1.0
    if not least <= value <= most:
        raise ConfigError(f"{key}={options[key]}: type a number from {least:g} to {most:g}")
    return value

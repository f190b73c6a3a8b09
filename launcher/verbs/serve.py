"""`serve EXPORT`: a small HTTP server for an exported model, on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from launcher.errors import ConfigError

_OPTIONS = {
    "host": "127.0.0.1",
    "port": "8000",
    "device": "auto",
    "batch_size": "32",
    "wait_ms": "2",
    "queue": "1024",
    "max_mb": "16",
    "seconds": "30",
    "unsure": "0.5",
    "top": "5",
    "classes": "",
    "tokens": "100",
}
_USAGE = (
    "serve EXPORT [port=8000] [host=127.0.0.1] [device=auto] [batch_size=32] [wait_ms=2] [queue=1024] [max_mb=16] [seconds=30] [unsure=0.5]"
)


def serve(words: list[str]) -> int:
    """Raises ConfigError, RunError."""
    name, options = _read(words)
    port = _number(options, "port", 0, 65_535, is_whole=True)
    from launcher.predict import ask
    from launcher.predict.predictor import Asked, Predictor

    try:
        from launcher.serve import server
    except ImportError as error:
        raise ConfigError(f"serve needs starlette and uvicorn ({error}); pip install 'launcher[serve]'") from error
    from launcher.serve.app import Limits

    classes = tuple(each for each in options["classes"].split(",") if each)
    whole = {key: int(_number(options, key, 1, 1 << 20, is_whole=True)) for key in ("batch_size", "queue", "max_mb", "top", "tokens")}
    asked = Asked(_number(options, "unsure", 0, 1), whole["top"], classes, whole["tokens"])
    limits = Limits(
        whole["batch_size"],
        _number(options, "wait_ms", 0, 1000) / 1000,
        whole["queue"],
        whole["max_mb"] << 20,
        _number(options, "seconds", 0.1, 3600),
    )
    predictors = [Predictor(Path(name).expanduser(), place, asked) for place in ask.devices(options["device"])]
    server.serve(predictors, options["host"], int(port), limits)
    return 0


def _read(words: list[str]) -> tuple[str, dict[str, str]]:
    options = dict(_OPTIONS)
    names: list[str] = []
    for word in words:
        key, is_option, value = word.partition("=")
        if is_option and key in options:
            options[key] = value
        elif is_option and key.isidentifier() and not Path(word).exists():
            raise ConfigError(f"serve {key}=: there is no such option; type {_USAGE}")
        else:
            names.append(word)
    if len(names) != 1 or names[0].startswith("-"):
        raise ConfigError(f"serve takes one export: {_USAGE}")
    return names[0], options


def _number(options: Mapping[str, str], key: str, least: float, most: float, *, is_whole: bool = False) -> float:
    try:
        value = float(options[key])
    except ValueError:
        value = float("nan")
    if not least <= value <= most or (is_whole and not options[key].isdecimal()):
        what = "a whole number" if is_whole else "a number"
        raise ConfigError(f"{key}={options[key]}: type {what} from {least:g} to {most:g}")
    return value

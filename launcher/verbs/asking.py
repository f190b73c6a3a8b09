"""What `predict` and `serve` have in common: how an export is to answer, what of that is for which models, and the export opened so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.errors import ConfigError
from launcher.exported.folder import KINDS, LABELS, Folder
from launcher.verbs.words import Option, Typed, number, several, text, whole

if TYPE_CHECKING:
    from launcher.predict.predictor import Predictor

TOKENS = ("tokens",)
SCORED = ("classes", "boxes")
BATCHED = tuple(kind for kind in KINDS if kind not in TOKENS)
"""A text goes on by itself, one after the other."""
_MOST = 1 << 20


def options(*, batch_size: int, top: int) -> dict[str, Option]:
    return {
        "device": text("cpu", "auto"),
        "batch_size": whole(batch_size, 1, _MOST, BATCHED),
        "top": whole(top, 1, _MOST, ("classes",)),
        "unsure": number(0.5, 0, 1, SCORED),
        "classes": several("a,b", SCORED),
        "tokens": whole(100, 1, _MOST, TOKENS),
    }


def checked(name: str, typed: Typed) -> Folder:
    """The export, whole and one that may be asked this: before torch is imported and its program loaded, for that takes seconds. Raises
    ConfigError, RunError."""
    found = Folder(Path(name).expanduser())
    typed.check_model(found.told["predicts"])
    labels: list[Any] = found.json(LABELS) if LABELS in found else []
    if strange := [each for each in typed.values["classes"] if each not in labels]:
        raise ConfigError(f"classes={strange[0]}: the model has {', '.join(map(str, labels[:20]))}; type some of those")
    return found


def opened(folder: Folder, typed: Typed) -> list[Predictor]:
    """One on each device. Raises ConfigError, RunError."""
    from launcher.predict import ask
    from launcher.predict.predictor import Asked, Predictor

    values = typed.values
    asked = Asked(values["unsure"], values["top"], values["classes"], values["tokens"])
    places = ask.devices(values["device"])
    return [Predictor(folder.path, place, asked) for place in (places[:1] if folder.told["predicts"] in TOKENS else places)]

"""What `predict` and `serve` have in common: how an export is to answer, what of that is for which models, and the export opened so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from launcher.exported.folder import KINDS, Folder
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


def opened(name: str, typed: Typed) -> list[Predictor]:
    """One on each device. Raises ConfigError, before anything is loaded for what does not go with this model; RunError."""
    path, values = Path(name).expanduser(), typed.values
    predicts = Folder(path).told["predicts"]
    typed.check_model(predicts)
    from launcher.predict import ask
    from launcher.predict.predictor import Asked, Predictor

    asked = Asked(values["unsure"], values["top"], values["classes"], values["tokens"])
    places = ask.devices(values["device"])
    return [Predictor(path, place, asked) for place in (places[:1] if predicts in TOKENS else places)]

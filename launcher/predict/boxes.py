"""Boxes drawn into the pictures that they were found in."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from launcher.answers.colours import colour_of
from launcher.errors import RunError


def made(to: str) -> Path:
    """The directory. Raises RunError."""
    path = Path(to).expanduser().absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"draw={to}: it cannot be made ({error.strerror}); type another directory") from error
    return path


def drawn(answers: Iterable[dict[str, Any]], into: tuple[Path, list[str]]) -> Iterator[dict[str, Any]]:
    """Each answer with the path of its picture as `drawn`. Raises RunError where there is no room."""
    place, labels = into
    for number, answer in enumerate(answers):
        if "error" not in answer:
            path = place / f"{number:06d}.png"
            try:
                _draw(Path(answer["input"]), answer["prediction"], labels, path)
            except OSError as error:
                path.unlink(missing_ok=True)
                raise RunError(f"{path} cannot be written ({error.strerror or error}); make room, or type another draw=") from error
            answer = {**answer, "drawn": str(path)}
        yield answer


def _draw(picture: Path, found: Iterable[dict[str, Any]], labels: list[str], to: Path) -> None:
    from PIL import Image, ImageDraw

    from data.vision.fitted import FORMATS, rgb

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(picture, formats=FORMATS) as image:
            shown = rgb(image)
    pen = ImageDraw.Draw(shown)
    width = max(1, round(max(shown.size) / 320))
    for each in found:
        red, green, blue = (round(255 * part) for part in colour_of(labels.index(each["class"])))
        pen.rectangle(each["box"], outline=(red, green, blue), width=width)
        left, top = each["box"][:2]
        words = f"{each['class']} {each['score']:.2f}".encode("latin-1", "replace").decode("latin-1")
        pen.text((left + width, top + width), words, fill=(red, green, blue))
    shown.save(to, "png")

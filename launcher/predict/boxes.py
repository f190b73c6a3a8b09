"""Boxes drawn into the pictures that they were found in."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from launcher.answers.colours import colour_of
from launcher.errors import RunError

_LONGEST = 60
"""Characters of a picture's name that are kept: of some scripts each is four bytes, and a name has 255."""


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
    met: dict[str, int] = {}
    for answer in answers:
        if "error" not in answer:
            path = place
            try:
                descriptor, path = _new(place, Path(answer["input"]).stem, met)
                with os.fdopen(descriptor, "wb") as file:
                    _draw(Path(answer["input"]), answer["prediction"], labels, file)
            except OSError as error:
                if path != place:
                    path.unlink(missing_ok=True)
                raise RunError(f"{path} cannot be written ({error.strerror or error}); make room, or type another draw=") from error
            answer = {**answer, "drawn": str(path)}
        yield answer


def _new(place: Path, stem: str, met: dict[str, int]) -> tuple[int, Path]:
    """A file called as the picture, with a number where there is one of that name already: it may be the picture itself. `met`: the last
    number of those. Raises OSError."""
    safe = re.sub(r"[^\w .+-]", "_", stem).strip(" .")[:_LONGEST] or "picture"
    while True:
        number = met.get(safe, 1)
        path = place / (f"{safe}.png" if number == 1 else f"{safe}-{number}.png")
        try:
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), path
        except FileExistsError:
            met[safe] = number + 1


def _draw(picture: Path, found: Iterable[dict[str, Any]], labels: list[str], to: IO[bytes]) -> None:
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

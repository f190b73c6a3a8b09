"""The colours of classes."""

from __future__ import annotations

import colorsys


def colour_of(label: int) -> tuple[float, float, float]:
    """Hues by the golden ratio: those of neighbours are far apart, however many there are."""
    return colorsys.hsv_to_rgb(label * 0.618034 % 1, 1.0, 1.0)


def css(label: int) -> str:
    """The same as a page has it."""
    return "#" + "".join(f"{round(255 * part):02x}" for part in colour_of(label))

"""A table of runs on a terminal: keys down and runs across while they fit, else runs down, in as many blocks of keys as it takes."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence

from launcher.beside.differences import Section, shown
from launcher.trust import reading
from launcher.trust.terminal import one_line

_GAP = "  "
_ENOUGH = 18
"""Characters of a column, below which runs go down rather than that what is in it is shortened."""
_MOST = 24
"""Of a run's name, of a key that heads a column, and of a value below it."""


def width() -> int:
    return max(40, shutil.get_terminal_size((80, 24)).columns)


def middle(text: str, most: int) -> str:
    """Shortened where it is dullest: what ends a path or begins a hash stays."""
    text = one_line(text, 2000)
    if len(text) <= most:
        return text
    begin = (most - 1) // 2
    return f"{text[:begin]}…{text[len(text) - (most - 1 - begin) :]}"


def wrapped(line: str, columns: int) -> list[str]:
    """What goes on is further in than what begins."""
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    return textwrap.wrap(line, columns, subsequent_indent=indent, break_on_hyphens=False) or [""]


def lines(section: Section, labels: Sequence[str], columns: int) -> Iterator[str]:
    """A section as it is printed, its head first."""
    yield from wrapped(f"{section.title}: {section.head}", columns)
    if not section.rows:
        return
    keys = min(max(map(len, section.rows)), max(12, columns * 2 // 5))
    with_change = len(labels) == 2 and section.title == "metrics"
    room = (columns - 2 - keys) // (len(labels) + with_change) - len(_GAP)
    longest = max(len(shown(value)) for values in section.rows.values() for value in values)
    is_wide = room >= min(_ENOUGH, longest)
    yield from _across(section, len(labels), keys, room, with_change) if is_wide else _down(section, labels, columns)


def _across(section: Section, count: int, keys: int, room: int, with_change: bool) -> Iterator[str]:
    rows = [["", *(str(number + 1) for number in range(count)), *(["2 - 1"] if with_change else [])]]
    for key, values in section.rows.items():
        cells = [middle(shown(value), room) for value in values]
        rows.append([middle(key, keys), *cells, *([_change(*values)] if with_change else [])])
    yield from _aligned(rows)


def _change(one: object, other: object) -> str:
    first, second = reading.number(one), reading.number(other)
    return "" if first is None or second is None else f"{second - first:+.3g}"


def _down(section: Section, labels: Sequence[str], columns: int) -> Iterator[str]:
    """One column always stands beside the runs, whatever the width."""
    most = min(_MOST, columns // 3)
    names = ["", *(f"{number}  {middle(label, most)}" for number, label in enumerate(labels, 1))]
    made = [[middle(key, most), *(middle(shown(value), most) for value in values)] for key, values in section.rows.items()]
    while made:
        block, left = [names], columns - 2 - max(map(len, names))
        while made and (len(block) == 1 or left >= len(_GAP) + max(map(len, made[0]))):
            left -= len(_GAP) + max(map(len, made[0]))
            block.append(made.pop(0))
        yield from _aligned([[*row] for row in zip(*block, strict=True)])


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  " + _GAP.join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip()

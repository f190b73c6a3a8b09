"""`compare RUN RUN…`: what differs between runs, or the members of a sweep, and what each came to, on the screen and as files."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from launcher.beside import differences, layout, members, paired
from launcher.beside.differences import Section
from launcher.beside.members import Member
from launcher.beside.paired import Tested
from launcher.charts import canvas, curves
from launcher.config import tree
from launcher.errors import ConfigError, readable
from launcher.rundir import lookup, sweep
from launcher.trust.secret import mask
from launcher.verbs.words import Words, text

_NAME = "compared"
_WORDS = Words(
    "compare",
    "RUN RUN…",
    {"to": text("DIR|FILE.png|.csv|.json")},
    takes="two runs or more, or a sweep, and where files are to be",
)


def compare(words: list[str]) -> int:
    """Print the table; write what `to=` asks for. Raises ConfigError, RunError."""
    words, everywhere = lookup.asked(words)
    names, values, *_ = _WORDS.read(words)
    runs = sweep.runs(names, everywhere=everywhere)
    if len(runs) < 2:
        again = "twice the same run" if len(names) > 1 else "one run"
        raise ConfigError(f"compare was given {again}, {runs[0] if runs else names[0]}; type another beside it: {_WORDS.usage}")
    files = _places(values["to"]) if values["to"] else []
    read = members.read(runs)
    warned, sections, tests = differences.warnings(read), differences.sections(read), list(paired.tested(read))
    contents = [(path, _WRITERS[path.suffix.lower()](read, warned, sections, tests)) for path in files]
    written = [path for path, content in contents if content]
    for path, content in contents:
        if content:
            canvas.put(path, content)
    _print(read, warned, sections, tests)
    drawn = "" if len(written) == len(files) else "; no curves: no run has metrics yet"
    print(f"\nwritten: {', '.join(map(str, written)) or 'nothing'}{drawn}" if files else f"\n{canvas.TO}DIR: curves and table as files")
    return 0


def _places(asked: str) -> list[Path]:
    """Raises ConfigError."""
    path = Path(asked).expanduser().absolute()
    if canvas.is_folder(asked):
        found = [path / f"{_NAME}{suffix}" for suffix in _WRITERS]
    elif path.suffix.lower() in _WRITERS:
        found = [path]
    else:
        raise ConfigError(f"{canvas.TO}{asked}: files are .png, .csv and .json; type one of those, or a directory with / at its end")
    for each in found:
        canvas.check(asked, each)
    return found


def _print(runs: Sequence[Member], warned: Sequence[str], sections: Sequence[Section], tests: Sequence[Tested]) -> None:
    columns, labels = layout.width(), [run.label for run in runs]
    wide = len(str(len(runs)))
    for number, run in enumerate(runs, 1):
        print(f"{number:>{wide}}  {layout.middle(run.label, columns - wide - 14)}  {run.state}")
    for warning in warned:
        print("\n".join(layout.wrapped(readable(f"warning: {warning}"), columns)))
    for section in sections:
        print()
        print("\n".join(layout.lines(section, labels, columns)))
    for test in tests:
        print()
        print("\n".join(line for told in paired.lines(test) for line in layout.wrapped(told, columns)))


def _table(runs: Sequence[Member], _: Sequence[str], sections: Sequence[Section], tests: Sequence[Tested]) -> str:
    """As CSV: a line a key, a column a run. What was tested is in the JSON."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["section", "key", *(run.label for run in runs)])
    for section in sections:
        for key, values in section.rows.items():
            writer.writerow([section.title, key, *(tree.shown(mask.everywhere(value)) for value in values)])
    return out.getvalue()


def _record(runs: Sequence[Member], warned: Sequence[str], sections: Sequence[Section], tests: Sequence[Tested]) -> str:
    found = {
        "runs": [{"label": run.label, "path": str(run.run), "state": run.state} for run in runs],
        "warnings": [*warned],
        **{section.title: {"said": section.head, "rows": section.rows} for section in sections},
        "paired": [
            {
                "split": test.split,
                "samples": test.samples,
                "draws": test.draws,
                "pairs": [{"run": pair.number, "why": pair.why or None, **pair.found} for pair in test.pairs],
            }
            for test in tests
        ],
    }
    return json.dumps(_finite(mask.everywhere(found)), indent=1) + "\n"


def _finite(value: Any) -> Any:
    """As JSON has it, which knows no nan: those are texts."""
    if isinstance(value, dict):
        return {key: _finite(child) for key, child in cast("dict[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_finite(child) for child in cast("list[Any]", value)]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _curves(runs: Sequence[Member], *_: object) -> bytes:
    """Empty where there are none."""
    found = {run.run: drawn for run in runs if (drawn := curves.of(run.run))}
    return curves.png(found, "compare with to=") if found else b""


_WRITERS: dict[str, Callable[..., str | bytes]] = {".png": _curves, ".csv": _table, ".json": _record}
"""Suffix -> what makes the content of such a file."""

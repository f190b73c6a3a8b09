"""How far a program is that says it in its own words, and whether an attempt brought it anywhere."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Iterator
from typing import Any

from launcher.node.place import Place
from launcher.rundir import progress
from launcher.rundir.rundir import RunDir, read_jsonl
from launcher.rundir.tail import Tail
from launcher.trust import reading
from launcher.verdict import headway

_SHOWN_SECONDS = 5.0
"""Between two lines for whoever watches."""
_LOOK_SECONDS = 30.0
"""Between two looks at what it has saved."""
_MOST_FILES = 1000


class Headway:
    """Of rank 0, whose log has the lines."""

    def __init__(self, run: RunDir, place: Place, pattern: str | None) -> None:
        """What the attempt before came to is where this one is until it says more."""
        self._run, self._attempt = run, place.attempt
        self._pattern = re.compile(pattern) if pattern is not None else None
        before = run.read_summary() or {}
        groups = self._pattern.groupindex if self._pattern is not None else ()
        self._numbers = {name: value for name in groups if (value := reading.number(before.get(name))) is not None}
        self._seconds = reading.number(before.get("seconds")) or 0.0
        self.step, self._total, self._last = reading.whole_number(before.get("steps")) or 0, 0, 0
        self._tail = Tail(run.rank_log(place.attempt, 0), from_end=True, bars=True)
        self._began, self._first_step = time.monotonic(), 0
        self._shown = self._looked = self._began
        self._saved = self._newest()

    @property
    def figures(self) -> dict[str, Any]:
        """For the summary: what is known. One that tells the launcher has left it in metrics.jsonl."""
        for line in read_jsonl(self._run.metrics):
            if (step := reading.whole_number(line.get("step"))) is not None:
                self.step = step
                found = {name: reading.number(value) for name, value in line.items() if name not in ("step", "split")}
                self._numbers = {name: value for name, value in found.items() if value is not None}
        steps = {"steps": self.step} if self.step else {}
        return {**self._numbers, **steps, "seconds": self._seconds + time.monotonic() - self._began}

    def look(self) -> None:
        """Called several times a second."""
        now = time.monotonic()
        if self._pattern is not None:
            self._read(self._pattern)
            if now - self._shown > _SHOWN_SECONDS:
                self._show(now)
        if now - self._looked > _LOOK_SECONDS:
            self._looked = now
            if self._newest() > self._saved:
                self._note()

    def end(self, *, has_stopped: bool) -> None:
        """`has_stopped`: it heeded the signal, and has saved what it had then, as far as anybody knows."""
        if self._pattern is not None:
            self._read(self._pattern)
            self._show(time.monotonic())
        if has_stopped or self._newest() > self._saved:
            self._note()

    def _read(self, pattern: re.Pattern[str]) -> None:
        for line in self._tail.lines():
            if not (found := pattern.search(line)):
                continue
            numbers = dict(_numbers(found.groupdict()))
            self.step = int(numbers.pop("step", self.step))
            self._first_step = self._first_step or self.step - 1
            self._total = int(numbers.pop("total", self._total))
            self._numbers |= numbers

    def _show(self, now: float) -> None:
        if not self._total or self.step in (0, self._last):
            return
        self._shown, self._last = now, self.step
        done = self.step - self._first_step
        left = (now - self._began) / done * (self._total - self.step) if done > 0 else 0.0
        print(progress.told_line(self.step, self._total, self._numbers, left), flush=True)

    def _newest(self) -> float:
        """When the newest of what it has saved was changed, seconds since the epoch; 0: there is nothing."""
        newest, count = 0.0, 0
        for folder, _, names in os.walk(self._run.checkpoints):
            for name in names:
                try:
                    newest = max(newest, os.lstat(os.path.join(folder, name)).st_mtime)  # noqa: PTH118 - for each of many files
                except OSError:
                    continue
                if (count := count + 1) > _MOST_FILES:
                    return newest
        return newest

    def _note(self) -> None:
        headway.note(self._run, self._attempt, gained="yes", trained=f"{time.monotonic() - self._began:.1f} 0")


def _numbers(found: dict[str, str | None]) -> Iterator[tuple[str, float]]:
    for name, text in found.items():
        try:
            value = float((text or "").replace(",", ""))
        except ValueError:
            continue
        if math.isfinite(value):
            yield name, value

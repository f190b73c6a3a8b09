"""What a person sees of an attached run: a progress bar on a terminal, plain lines elsewhere.

The screen reads rank 0's log and nothing else, so that a closed pipe or a full terminal never reaches the training processes.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

from launcher import progress


class PlainScreen:
    """rank 0's lines as they are."""

    def line(self, text: str) -> None:
        print(text, flush=True)

    def close(self) -> None:
        pass


class BarScreen:
    """Progress lines move a rich bar; every other line scrolls above it."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn
        from rich.progress import Progress as RichProgress

        columns = (BarColumn(bar_width=24), TaskProgressColumn(), TextColumn("{task.fields[text]}"))
        self._bar: Any = RichProgress(*columns, transient=True)
        self._task = self._bar.add_task("train", total=None, text="starting")
        self._bar.start()

    def line(self, text: str) -> None:
        here = progress.parse(text)
        if here is None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            self._bar.update(self._task, completed=here.step, total=here.steps, text=here.text)

    def close(self) -> None:
        self._bar.stop()


class Screen:
    """Chooses one of them, and goes dark instead of failing when nobody listens any more (`| head -1`)."""

    def __init__(self) -> None:
        self._screen: PlainScreen | BarScreen | None = BarScreen() if sys.stdout.isatty() else PlainScreen()

    def line(self, text: str) -> None:
        if self._screen is None:
            return
        try:
            self._screen.line(text)
        except (BrokenPipeError, OSError):
            self._screen = None
            silence_stdout()

    def close(self) -> None:
        if self._screen is not None:
            with contextlib.suppress(OSError):
                self._screen.close()


def silence_stdout() -> None:
    """Point stdout at nothing, so that neither a later print nor the interpreter's last flush fails."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

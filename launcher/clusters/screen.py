"""What a person sees of an attached run: a progress bar on a terminal, plain lines elsewhere.

The screen reads rank 0's log and nothing else, so that a closed pipe or a full terminal never reaches the training processes. Nor does
one that takes nothing more for now (Ctrl-S, a pager left open) keep the launcher from its work: a thread writes.
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import sys
import threading
from typing import Any, TextIO

from launcher.rundir import progress
from launcher.trust import terminal
from launcher.trust.secret import mask

PENDING_LINES = 1000
"""That wait for a terminal; what comes then is only in the logs."""
PATIENCE_SECONDS = 2.0
"""With one that takes nothing, at the end."""


class PlainScreen:
    """rank 0's lines as they are, but for those that only move a bar."""

    def __init__(self) -> None:
        self._out = _unbuffered()

    def line(self, text: str) -> None:
        if progress.of_batches(text) is None:
            self._out.write(f"{text}\n")

    def close(self) -> None:
        pass


class BarScreen:
    """Progress lines move a rich bar; every other line scrolls above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn
        from rich.progress import Progress as RichProgress

        columns = (BarColumn(bar_width=24), TaskProgressColumn(), TextColumn("{task.fields[text]}", markup=False))
        self._bar: Any = RichProgress(*columns, transient=True, console=Console(file=_unbuffered()))
        self._task = self._bar.add_task("train", total=None, text="starting")
        self._bar.start()

    def line(self, text: str) -> None:
        here = progress.parse(text) or progress.of_batches(text)
        if here is None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            self._bar.update(self._task, completed=here.step, total=here.steps, text=here.text)

    def close(self) -> None:
        self._bar.stop()


class Screen:
    """Chooses one of them, and goes dark instead of failing when nobody listens any more (`| head -1`)."""

    def __init__(self) -> None:
        self._lines: queue.Queue[str | None] = queue.Queue(PENDING_LINES)
        self._thread = threading.Thread(target=self._show, name="screen", daemon=True)
        self._thread.start()

    def _show(self) -> None:
        try:
            screen = BarScreen() if _is_terminal() else PlainScreen()
            while (text := self._lines.get()) is not None:
                screen.line(text)
            screen.close()
        except OSError:
            silence_stdout()

    def line(self, text: str | None) -> None:
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None if text is None else terminal.plain(text))

    def close(self) -> None:
        self.line(None)
        self._thread.join(PATIENCE_SECONDS)


def tell(text: str) -> None:
    """A line on stderr, for as long as somebody takes it."""
    thread = threading.Thread(target=_write_error, args=(f"{mask(text)}\n",), daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)


def _write_error(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, terminal.plain(text).encode(errors="backslashreplace"))


def _is_terminal() -> bool:
    try:
        return sys.stdout.isatty()
    except (AttributeError, ValueError):
        return False


def _unbuffered() -> TextIO:
    """stdout without the lock of Python's own, which a thread that waits for a terminal would hold until the end, and for which the end
    would wait."""
    try:
        number = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):  # a notebook's, which has no descriptor, or none at all
        return sys.stdout or io.StringIO()
    raw: Any = io.FileIO(number, "w", closefd=False)
    return io.TextIOWrapper(raw, sys.stdout.encoding, "backslashreplace", write_through=True)


def silence_stdout() -> None:
    """Point stdout at nothing, so that neither a later print nor the interpreter's last flush fails."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

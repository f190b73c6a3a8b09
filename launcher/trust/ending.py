"""While something is at work that must not stay behind, SIGTERM and SIGHUP are what Ctrl-C is: an exception, by which all is tidied up."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Generator
from types import FrameType


class Told(KeyboardInterrupt):
    """To end, by a signal that is not Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextlib.contextmanager
def ending() -> Generator[None]:
    """Raises Told within. One that was ignored before, as nohup does with SIGHUP, stays so."""
    mine = os.getpid()

    def stop(number: int, _: FrameType | None) -> None:
        if os.getpid() != mine:  # a process that was forked off meanwhile: who ends it means its end, and no tidying up of ours
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        raise Told(number)

    wanted = (signal.SIGTERM, signal.SIGHUP)
    saved = {number: signal.signal(number, stop) for number in wanted if signal.getsignal(number) != signal.SIG_IGN}
    try:
        yield
    finally:
        for number, handler in saved.items():
            signal.signal(number, handler)

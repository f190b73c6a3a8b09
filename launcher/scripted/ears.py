"""What a process is told by signals, and whether others were told as well."""

from __future__ import annotations

import os
import signal
import time
from typing import NamedTuple

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
"""What schedulers and people send to a job that shall end."""


class Heard(NamedTuple):
    number: int
    is_to_all: bool
    """Not from our parent, which signals each of its children: then from a scheduler, which signals every process of a job."""


class Ears:
    """Of the main thread. From here on none of STOPS ends this process; a child has to unblock them."""

    def __init__(self) -> None:
        self._noted: list[int] = []
        if hasattr(signal, "sigtimedwait"):
            signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        else:  # macOS, where nobody says who sent one
            for number in STOPS:
                signal.signal(number, lambda number, _: self._noted.append(number))

    def listen(self, seconds: float) -> Heard | None:
        """The next of them, or None after that time."""
        if not hasattr(signal, "sigtimedwait"):
            time.sleep(seconds)
            return Heard(self._noted.pop(0), is_to_all=True) if self._noted else None
        found = signal.sigtimedwait(STOPS, seconds)
        return Heard(found.si_signo, is_to_all=found.si_pid != os.getppid()) if found is not None else None

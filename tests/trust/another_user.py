"""Being somebody else, which needs root, for one call."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


def as_user(uid: int, do: Callable[[], object]) -> tuple[bool, str]:
    """Whether `do` succeeded, and what it returned or the error, in a process of that user's. One that does not end counts as a success."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            signal.alarm(10)
            said = f"+{do()}"
        except BaseException as error:
            said = f"-{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said[:1] != "-", said[1:]

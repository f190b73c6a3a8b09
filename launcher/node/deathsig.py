"""Dying with the process that started us (Linux): SIGKILL of a parent otherwise leaves its children alive."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Ask the kernel for a signal, SIGKILL, when the parent dies. It may be dead already: whoever can should look again afterwards."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)


def main(argv: list[str]) -> int:
    """`python -m launcher.node.deathsig PARENT COMMAND…` becomes COMMAND, which gets TERM when the process PARENT dies: for a program that
    ends others by it, on whatever machine."""
    die_with_parent(signal.SIGTERM)
    if str(os.getppid()) != argv[1]:
        return 128 + signal.SIGTERM
    os.execvp(argv[2], argv[2:])
    raise AssertionError("exec does not return")


if __name__ == "__main__":
    sys.exit(main(sys.argv))

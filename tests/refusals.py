"""`python refusals.py NAME=ERRNO,… COMMAND…`: the command with system calls that answer so, in it and in whatever it starts.

A filter of the kernel's (seccomp) on this machine's own system calls, so that bash's `ln` meets it as Python does. Exits with 77 where
there is none.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

_NUMBERS = {
    "x86_64": {"symlink": 88, "symlinkat": 266, "link": 86, "linkat": 265, "flock": 73, "fsync": 74},
    "aarch64": {"symlinkat": 36, "linkat": 37, "flock": 32, "fsync": 82},
}
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def refuse(answers: dict[str, int]) -> None:
    """Raises OSError where the kernel takes no filter."""
    numbers = _NUMBERS.get(platform.machine(), {})
    code = struct.pack("HBBI", _LOAD, 0, 0, 0)
    for name, answer in answers.items():
        if name in numbers:
            code += struct.pack("HBBI", _EQUAL, 0, 1, numbers[name]) + struct.pack("HBBI", _RETURN, 0, 0, _ERRNO | answer)
    code += struct.pack("HBBI", _RETURN, 0, 0, _ALLOW)
    buffer = ctypes.create_string_buffer(code)
    program = _Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p).value)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or prctl(_SECCOMP, _FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


def main() -> None:
    answers = {name: getattr(errno, word) for name, _, word in (each.partition("=") for each in sys.argv[1].split(","))}
    try:
        refuse(answers)
    except (OSError, AttributeError):
        sys.exit(77)
    os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()

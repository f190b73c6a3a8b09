"""Every file of a run, a sweep or a checkpoint is opened here to be read: who made it may have meant harm, or a disk was full.

It may be a pipe that nobody writes to, a device without end, a link in a circle, two gigabytes of nothing, no text, brackets a thousand
deep. So it is opened without waiting, must be a regular file, and no more of it is read than such a file has.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import stat
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

WHOLE_BYTES = 16 << 20
"""Of a file that is read as a whole: the ledger of a sweep with sixty thousand members."""
ENTRIES = 1_000_000
"""Of JSON, in lists and objects. One of two bytes, `{}`, takes seventy in memory."""
LINE_BYTES = 1 << 20
DEPTH = 64
"""Of JSON. What is deeper is nothing of ours, and the next to walk through it would fail at a thousand."""

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


# ---------------------------------------------------------------- bytes


@contextlib.contextmanager
def opened(path: Path) -> Generator[io.FileIO]:
    """A regular file, to read. Raises OSError with a word of what else it is, also for a path with a zero in it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except ValueError as error:
        raise OSError(errno.EINVAL, "no path has a zero in it", repr(str(path))) from error
    with io.FileIO(descriptor) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            what = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
            raise OSError(errno.EINVAL, f"it is {what}, not a file", str(path))
        yield file


def is_file(path: Path) -> bool:
    """Of a path that a file names: one that cannot be looked at is none, where `Path.is_file` raises for a name that is too long."""
    try:
        return path.is_file()
    except OSError:
        return False


def whole(path: Path, limit: int = WHOLE_BYTES) -> bytes:
    """All of it. Raises OSError, of one that is longer too."""
    try:
        return _whole(path, limit)
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        return _whole(path, limit)  # NFS: it was replaced while it was read; opened anew it is the new one


def _whole(path: Path, limit: int) -> bytes:
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = b"".join(_pieces(file, limit + 1)) if size <= limit else b""
        if max(size, len(data)) > limit:
            raise OSError(errno.EFBIG, f"it is longer than {limit >> 20} MiB", str(path))
        return data


def _pieces(file: io.FileIO, most: int) -> Iterator[bytes]:
    while most > 0 and (piece := file.read(min(most, LINE_BYTES))):
        most -= len(piece)
        yield piece


def text(path: Path) -> str:
    """All of it, which must be UTF-8. Raises OSError, UnicodeDecodeError."""
    return whole(path).decode("utf-8").replace("\r\n", "\n")


def first_line(path: Path) -> str:
    """Of a file of a few words; what is no text in it is replaced. Raises OSError."""
    with opened(path) as file:
        return file.read(4096).decode("utf-8", "replace").partition("\n")[0].strip()


def last_lines(path: Path, limit: int) -> list[str]:
    """From the end of the file alone: a log may be large. None of what cannot be read."""
    try:
        with opened(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - limit))
            lines = b"".join(_pieces(file, limit)).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    return lines[1:] if size > limit and len(lines) > 1 else lines  # the first one was cut


def lines(path: Path) -> Iterator[bytes]:
    """All of them but those that are longer than a line can be; the last one may be torn. Raises OSError."""
    with opened(path) as raw:
        file = io.BufferedReader(raw, LINE_BYTES)
        while line := file.readline(LINE_BYTES):
            if len(line) < LINE_BYTES or line.endswith(b"\n"):
                yield line
                continue
            while (rest := file.readline(LINE_BYTES)) and not rest.endswith(b"\n"):
                pass


# ---------------------------------------------------------------- JSON


def parsed(data: bytes | str) -> Any:
    """Raises ValueError for whatever is no JSON, or so large or deep that nobody means it."""
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    if text.count(",") > ENTRIES:
        raise ValueError("it has too many entries")
    try:
        value: Any = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if text.count("[") + text.count("{") > DEPTH and _depth(value) > DEPTH:
        raise ValueError("it is nested too deep")
    return value


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level and depth <= DEPTH:
        level: list[Any] = [child for each in level for child in _children(each) if isinstance(child, list | dict)]
        depth += 1
    return depth


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return cast("dict[str, Any]", value).values()
    return cast("list[Any]", value) if isinstance(value, list) else ()


def record(data: bytes | str) -> dict[str, Any]:
    """A JSON object. Raises ValueError."""
    value = parsed(data)
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    return cast("dict[str, Any]", value)


def records(found: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Of lines, those that are a JSON object; others a full disk or an editor has left."""
    for line in found:
        with contextlib.suppress(ValueError):
            yield record(line)


def whole_number(value: object, most: int = 1 << 53) -> int | None:
    """`value` where it counts something: neither below zero nor beyond `most`, and no truth value."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most else None


def number(value: object) -> float | None:
    """`value` where it is a number that can be written out, and no truth value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -1e300 < value < 1e300 else None

"""Whose a file is: what somebody else may write, or put another in the place of, is read and never run
(docs/decisions/0100-whose-a-run-is.md).

Mine are the files of this user, of root, and of whoever owns the launcher's own code: who can change that runs as me already. In a
directory where others may write they can put anything; a sticky one on the way (/tmp) is another matter: they can take nothing away.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from launcher.errors import RunError
from launcher.trust import search_path

WAY_OUT = "LAUNCHER_TRUST_DIRS"
"""Directories, with a colon between, below which nobody is asked for: where owners are not what they seem (a disk that makes everybody
`nobody`, a container, a Windows disk), or everybody who may write is known."""

_ACL = "system.posix_acl_access"
_ACL_USER, _ACL_GROUP, _ACL_WRITE = 0x02, 0x08, 0x02


def fault(path: Path, *, at_work: bool = False) -> str:
    """Why `path`, or what leads to it, may be another's doing, in a few words that name the place; empty where it is mine. What one works
    in was made with any umask: a group of one may write it.
    """
    try:
        *way, last = steps(path)
        return next(filter(None, (_fault(place, on_the_way=True) for place in way)), "") or _fault(last, at_work=at_work)
    except OSError as error:
        return f"{error.filename or path}: {error.strerror}"


def run_fault(path: Path) -> str:
    """Of a run or a sweep: what leads to it, and everything in it. Where others may not enter it, whose things are is all that counts."""
    if found := fault(path):
        return found
    try:
        closed = not path.stat().st_mode & (stat.S_IXGRP | stat.S_IXOTH)
        inside = (Path(place) / name for place, folders, files in os.walk(path) for name in (*folders, *files))
        return next((found for name in inside if (found := _fault_inside(name, closed))), "")
    except OSError as error:
        return f"{error.filename or path}: {error.strerror}"


def _fault_inside(place: Path, closed: bool) -> str:
    """A run that trains removes what it has written, while it is looked at: what is gone is nobody's. Raises OSError."""
    try:
        return _fault(place, closed=closed)
    except FileNotFoundError:
        return ""


def refuse(path: Path) -> None:
    """Raises RunError that says how to go on, where what is in `path` may be another's."""
    if found := run_fault(path):
        raise RunError(f"{path} is read and not run: {found}; {_advice(path)}")


def _advice(path: Path) -> str:
    out = f"{WAY_OUT}={path.parent} before the command says that you know all who write there"
    if is_mine(path.lstat()):
        return f"look through it, and take the right to write from others (chmod -R go-w), or copy it to a directory of your own; {out}"
    flags = "-a --no-preserve=ownership" if os.geteuid() == 0 else "-a"
    return f"look through it, type: cp {flags} {path} COPY, and resume the copy; {out}"


def is_mine(entry: os.stat_result) -> bool:
    return entry.st_uid in _owners()


def name_of(uid: int) -> str:
    import pwd  # 1 ms, for a line that is seldom needed

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


@cache
def _owners() -> frozenset[int]:
    return frozenset({0, os.geteuid(), Path(search_path.PROJECT, "launcher").stat().st_uid})


def _fault(place: Path, *, on_the_way: bool = False, at_work: bool = False, closed: bool = False) -> str:
    if _is_let_out(place):
        return ""
    entry = place.lstat()
    if not is_mine(entry) and place != place.parent:  # whoever owns / is root, by whatever number a container shows it
        return f"{place} belongs to {name_of(entry.st_uid)}"
    if closed or stat.S_ISLNK(entry.st_mode) or (on_the_way and entry.st_mode & stat.S_ISVTX):
        return ""
    if entry.st_mode & stat.S_IWOTH:
        return f"everybody may write {place}"
    if entry.st_mode & stat.S_IWGRP:
        if others := _named_writers(place):
            return f"{others} may write {place}"
        if not ((on_the_way or at_work) and _is_private_group(entry.st_gid)):
            return f"{_group_name(entry.st_gid)} may write {place}"
    return ""


def _is_let_out(place: Path) -> bool:
    listed = [Path(word) for word in os.environ.get(WAY_OUT, "").split(":") if word.startswith("/")]
    return any(place.is_relative_to(folder) for folder in listed)


def steps(path: Path) -> Iterator[Path]:
    """Every directory and every link that is passed on the way to `path`, and at last what it is. Raises OSError where it is not there."""
    place, left, links = Path("/"), [*reversed((Path.cwd() / path).parts[1:])], 0
    yield place
    while left:
        part = left.pop()
        place = place.parent if part == ".." else place / part
        if place.is_symlink():
            yield place
            if (links := links + 1) > 40:  # as many as the kernel follows
                raise OSError(40, "Too many levels of symbolic links", str(path))
            target = place.readlink()
            place = Path("/") if target.is_absolute() else place.parent
            left += reversed(target.parts[target.is_absolute() :])
        else:
            place.lstat()
            yield place


def _is_private_group(gid: int) -> bool:
    """A group of one, called as its user: where each has their own, an open umask lets nobody else in."""
    import grp
    import pwd

    with suppress(KeyError):
        me, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
        return me.pw_uid != 0 and (me.pw_gid, me.pw_name) == (gid, group.gr_name) and set(group.gr_mem) <= {me.pw_name}
    return False


def _group_name(gid: int) -> str:
    import grp

    try:
        return f"group {grp.getgrgid(gid).gr_name}"
    except KeyError:
        return f"group {gid}"


def _named_writers(place: Path) -> str:
    """Users and groups to whom an ACL gives the right to write: in the mode, their bits are the group's."""
    try:
        raw = os.getxattr(place, _ACL)
    except (OSError, AttributeError):  # none, or no Linux
        return ""
    for tag, rights, number in struct.iter_unpack("<HHI", raw[4:]):
        if rights & _ACL_WRITE and tag == _ACL_USER and number not in _owners():
            return name_of(number)
        if rights & _ACL_WRITE and tag == _ACL_GROUP:
            return _group_name(number)
    return ""

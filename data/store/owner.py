"""Whose files are: decoded data that somebody else has put there, or could, is not taken (docs/decisions/0100-whose-a-run-is.md).

The rules are those of launcher/trust/owner.py, which data does not import: mine are the files of this user, of root and of whoever owns
this code, where nobody else may write; on the way to them a sticky directory (/tmp) will do. `LAUNCHER_TRUST_DIRS` lets directories out.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import cache
from pathlib import Path


def fault(path: Path) -> str:
    """Why `path`, what is in it, or what leads to it may be another's doing, in a few words that name the place; empty where it is mine."""
    try:
        *way, last = _steps(path.absolute())
        faults = (*(_fault(place, stat.S_ISVTX) for place in way), *map(_fault, (last, *path.rglob("*"))))
        return next(filter(None, faults), "")
    except OSError as error:
        return f"{error.filename or path}: {error.strerror}"


def way_fault(folder: Path) -> str:
    """The same of a directory in which something of mine lies."""
    try:
        return next(filter(None, (_fault(place, stat.S_ISVTX) for place in _steps(folder.absolute()))), "")
    except OSError as error:
        return f"{error.filename or folder}: {error.strerror}"


def is_mine(entry: os.stat_result) -> bool:
    return entry.st_uid in _owners()


def _fault(place: Path, spared: int = 0) -> str:
    """`spared`: a bit of the mode with which others may write there."""
    if any(place.is_relative_to(word) for word in os.environ.get("LAUNCHER_TRUST_DIRS", "").split(":") if word.startswith("/")):
        return ""
    entry = place.lstat()
    if not is_mine(entry) and place != place.parent:  # whoever owns / is root, by whatever number a container shows it
        return f"{place} belongs to {name_of(entry.st_uid)}"
    if stat.S_ISLNK(entry.st_mode) or entry.st_mode & spared:
        return ""
    if entry.st_mode & stat.S_IWOTH:
        return f"everybody may write {place}"
    # The bits of an access list that lets somebody write are the group's in the mode, so a group of one may be more.
    if entry.st_mode & stat.S_IWGRP and not (spared and _is_private_group(entry.st_gid) and not _has_list(place)):
        return f"group {entry.st_gid} may write {place}"
    return ""


def _steps(path: Path) -> Iterator[Path]:
    """Every directory and every link that is passed on the way to `path`, and at last what it is."""
    for _ in range(40):  # links, as many as the kernel follows
        for place in (*reversed(path.parents), path):
            yield place
            if place.is_symlink():
                path = place.parent / place.readlink() / path.relative_to(place)
                break
        else:
            return
    raise OSError(40, "Too many levels of symbolic links", str(path))


def mine_beside(path: Path) -> Path:
    """Where one of mine goes, beside one that is not."""
    return path.with_name(f"{path.name}-u{os.geteuid()}")


def name_of(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


@cache
def _owners() -> frozenset[int]:
    return frozenset({0, os.geteuid(), Path(__file__).stat().st_uid})


def _is_private_group(gid: int) -> bool:
    """A group of one, called as its user."""
    import grp
    import pwd

    try:
        me, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return me.pw_uid != 0 and (me.pw_gid, me.pw_name) == (gid, group.gr_name) and set(group.gr_mem) <= {me.pw_name}


def _has_list(place: Path) -> bool:
    try:
        return "system.posix_acl_access" in os.listxattr(place)
    except (OSError, AttributeError):  # no such thing, or no Linux
        return False

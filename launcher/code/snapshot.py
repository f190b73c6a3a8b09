"""The code of a run, as it is at submit: which files it is, their hash, and a copy that no later edit reaches.

A job may queue for days and restart for weeks; without a copy it would run whatever the checkout holds by then. What git would list
is copied, committed or not. A package of the project's own that lies elsewhere is laid beside it, so that PYTHONPATH=<copy> finds all.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from launcher.code import git, no_code, no_secret, packages
from launcher.code.code_size import refuse_above_cap, shown
from launcher.errors import ConfigError, RunError

_MOST_WALKED = 20_000
"""Files in one directory that git does not know. A link to a data set would otherwise be walked to its end before it is refused."""


@dataclass(frozen=True)
class Source:
    """The files that a run consists of; nothing is read before `digest` or `copy_to`."""

    files: tuple[tuple[str, Path], ...]
    """(name in the copy, posix and relative; where it is now), sorted."""

    def digest(self) -> str:
        """sha256 over names, executable bits and contents; that of a link is its target. Raises ConfigError for what cannot be read."""
        total = hashlib.sha256()
        for name, _, kind, content in self._contents():
            total.update(b"%b\0%b%d\0" % (os.fsencode(name), kind, len(content)))
            total.update(content)
        return total.hexdigest()

    def copy_to(self, destination: Path) -> None:
        """Make `destination`, whole or not at all; 0700 and 0600, and its group reads it where that may read the directory above.
        Raises RunError where it cannot be written, ConfigError where a file cannot be read.
        """
        spare = destination.with_name(f".{destination.name}.{os.getpid()}")
        try:
            group = 0o050 if destination.parent.stat().st_mode & stat.S_IRGRP else 0
            spare.mkdir(mode=0o700 | group)
            self._write_below(spare, group)
            spare.rename(destination)
        except OSError as error:
            raise RunError(f"{destination} cannot be written ({error.strerror}); make room or choose another runs_dir=…") from error
        finally:
            shutil.rmtree(spare, ignore_errors=True)  # after Ctrl-C as well

    def _contents(self) -> Iterator[tuple[str, Path, bytes, bytes]]:
        """Without what is gone since it was listed, such as an editor's spare."""
        for name, path in self.files:
            with contextlib.suppress(FileNotFoundError):
                yield name, path, *_read(path)

    def _write_below(self, root: Path, group: int) -> None:
        for folder in sorted(_parents(name for name, _ in self.files)):
            (root / folder).mkdir(mode=0o700 | group)
        for name, path, kind, content in self._contents():
            if kind == b"l":
                with contextlib.suppress(OSError):
                    (root / name).symlink_to(os.fsdecode(content))
                    continue
                content = path.read_bytes()  # no links here
            mode = (0o700 | group) & (0o777 if kind == b"x" else 0o666)
            with os.fdopen(os.open(root / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content)


SCRIPT = "script-code"
"""Where in the copy that lies which belongs to a user's own script."""


def find(project: Path, trust: Sequence[str], script: Path | None = None) -> Source:
    """The code of a run: `project`, which holds launcher, models and data, and the packages in `trust` that lie elsewhere.

    In a git work tree that is what git lists below `project`, new files included and ignored ones not; elsewhere the three packages.
    What is installed (site-packages, the standard library) stays where it is, and a trusted package that is nowhere is passed over.
    `script`: the directory of a user's own script, of which what git lists there is taken, or all that is below it.
    Raises ConfigError where it is larger than MOST_BYTES or cannot be listed.
    """
    project = project.resolve()
    listing = _project(project)
    found = _self_contained(listing, (project,))
    for top in dict.fromkeys(name.split(".")[0] for name in trust):
        if top not in packages.OURS:
            more = _trusted(top, project, listing, found)
            in_the_way = _parents(more) & {*found}
            found = {name: here for name, here in found.items() if name not in in_the_way} | more
    if script is not None:
        listing = _by_git(script)
        found |= _below(SCRIPT, _self_contained(_walked(script) if listing is None else listing, (script,)))
    secret = no_secret.left_out({name: here.path for name, here in found.items()}, {name: here.size for name, here in found.items()})
    found = {name: here for name, here in found.items() if name not in secret}
    refuse_above_cap({name: here.size for name, here in found.items()})
    return Source(tuple(sorted((name, here.path) for name, here in found.items())))


# ---------------------------------------------------------------- listing


class _Found(NamedTuple):
    path: Path
    mode: int
    size: int


_Listing = dict[str, _Found]
"""By name relative to the directory that was listed: regular files and links."""


def _project(project: Path) -> _Listing:
    installed = project.name in packages.INSTALLED
    listing = None if installed else _by_git(project)
    if listing is None and not installed and (refusal := git.refusal(project)):
        listing = _refused(project, refusal)
    elif listing is None or "launcher/__init__.py" not in listing:
        listing = {}  # a larger repository around us, such as that of a home directory, says nothing of our files
    for package in packages.OURS:
        if f"{package}/__init__.py" not in listing:
            listing |= _below(package, _walked(project / package))
    return listing


def _refused(project: Path, refusal: str) -> _Listing:
    """Of a repository that git does not list all is taken that is not ignored: what was left out would be missed after the queue."""
    names = git.names_without_its_word(project)
    how = "there is no git to read .gitignore either" if names is None else "what .gitignore names is left out even where it is tracked"
    advice = f"to have git list it: git config --global --add safe.directory {shown(str(project))}"
    print(f"launcher: warning: the code is copied without git ({refusal}); {how}; {advice}", file=sys.stderr)
    return _walked(project) if names is None else _listed(project, names)


def _by_git(folder: Path) -> _Listing | None:
    """What git would list below `folder`, and nested repositories by their own lights. None where git cannot say."""
    names = git.names(folder)
    return None if names is None else _listed(folder, names)


def _listed(folder: Path, names: Iterable[str]) -> _Listing:
    found: _Listing = {}
    for name in no_code.without(folder, names):
        here = None if "__pycache__" in name.split("/") else _look(folder / name)
        if here and stat.S_ISDIR(here.mode):  # a nested repository
            inside = _by_git(here.path)
            found |= _below(name.rstrip("/"), _walked(here.path) if inside is None else inside)
        elif here:
            found[name] = here
    ignored = git.ignored_as_directories(folder, [name for name, here in found.items() if stat.S_ISLNK(here.mode) and here.path.is_dir()])
    return {name: here for name, here in found.items() if name not in ignored}


def _walked(folder: Path) -> _Listing:
    """Everything below `folder` but what is no code. Raises ConfigError where that is more than source can be."""
    found: _Listing = {}
    for place, folders, files in os.walk(folder, onerror=_refuse):
        for name in (*files, *folders):
            here = _look(Path(place, name))
            if here and not stat.S_ISDIR(here.mode) and name != ".git" and not name.endswith(".pyc") and not no_code.is_left_behind(name):
                found[here.path.relative_to(folder).as_posix()] = here
            if len(found) > _MOST_WALKED:
                reason = f"{shown(str(folder))} holds more than {_MOST_WALKED:,} files, which is no code"
                raise ConfigError(f"{reason}; add it, or the link to it, to .gitignore, or move it out of the project")
        folders[:] = [name for name in folders if not no_code.is_no_code(Path(place, name))]
    return found


def _refuse(error: OSError) -> None:
    """A directory that cannot be listed: what it holds would be missed after the queue. Raises ConfigError."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):  # gone meanwhile
        raise _unreadable(Path(error.filename), error) from error


def _look(path: Path) -> _Found | None:
    """None for what is not there, or is no file, link or directory. Raises ConfigError for what cannot be looked at."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(path, error) from error
    known = stat.S_IFMT(status.st_mode) in (stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR)
    return _Found(path, status.st_mode, status.st_size) if known else None


def _below(folder: str, listing: _Listing) -> _Listing:
    return {f"{folder}/{name}": here for name, here in listing.items()}


def _parents(names: Iterable[str]) -> set[str]:
    """Every directory above the names, without the root."""
    found: set[str] = set()
    for name in names:
        while (name := name.rpartition("/")[0]) and name not in found:
            found.add(name)
    return found


# ---------------------------------------------------------------- packages of the user's own


def _trusted(top: str, project: Path, listing: _Listing, known: Mapping[str, object]) -> _Listing:
    """The files of a top-level package or module, by their names in the copy."""
    found: _Listing = {}
    for place in packages.places(top):
        if place.is_file():
            here, name = _look(place), top + "".join(place.suffixes)
            return {name: here} if here else {}
        if place == project / top and top in _parents(known):
            continue
        prefix = f"{place.relative_to(project).as_posix()}/" if place.is_relative_to(project) else "/"
        inside = {name.removeprefix(prefix): here for name, here in listing.items() if name.startswith(prefix)}
        inside = inside or _by_git(place) or _walked(place)
        found = _below(top, _self_contained(inside, (place,))) | found
    return found


# ---------------------------------------------------------------- links


def _self_contained(listing: _Listing, within: tuple[Path, ...]) -> _Listing:
    """The same, but a link to anything that will not be in the copy is replaced by what it leads to.

    `within` are the directories that are being listed, outermost first. Raises ConfigError where a link leads back around one of them.
    """
    links = {name: here for name, here in listing.items() if stat.S_ISLNK(here.mode)}
    if not links:
        return listing
    listing = {name: here for name, here in listing.items() if name not in links or not no_code.is_behind(here.path, within[0])}
    known = {".", *listing, *_parents(listing)}
    found = {name: here for name, here in listing.items() if name not in links}
    for name in links.keys() & listing.keys():
        here = links[name]
        with contextlib.suppress(FileNotFoundError):
            leads_to = os.path.normpath(Path(name).parent / os.fsdecode(_read(here.path)[1]))
            found |= {name: here} if leads_to in known else _behind(name, here, within)
    return found


def _behind(name: str, link: _Found, within: tuple[Path, ...]) -> _Listing:
    real = Path(os.path.realpath(link.path))
    here = _look(real)
    if here is None or stat.S_ISLNK(here.mode):
        return {name: link}  # it leads nowhere, to a device or in a circle, and may go on to
    if stat.S_ISREG(here.mode):
        return {name: here}
    if any(real in (folder, *folder.parents) for folder in within):
        raise ConfigError(f"{shown(str(link.path))} is a link to {shown(str(real))}, around itself; add it to .gitignore")
    return _below(name, _self_contained(_by_git(real) or _walked(real), (*within, real)))


def _read(path: Path, patience: float = 0.2) -> tuple[bytes, bytes]:
    """`l`ink, e`x`ecutable or `f`ile, and the content. Raises ConfigError, FileNotFoundError for what is gone: not for a moment only, while
    an editor puts another in its place."""
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            return b"l", os.fsencode(path.readlink())
        return (b"x" if mode & stat.S_IXUSR else b"f"), path.read_bytes()
    except FileNotFoundError:
        if patience:
            time.sleep(patience)
            return _read(path, 0)
        raise
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> ConfigError:
    reason = f"{shown(str(path))} is to be kept with the run and cannot be read ({error.strerror})"
    return ConfigError(f"{reason}; make it readable, or add it to .gitignore, and type the command again")

"""What git lists below a directory. It may be anybody's: nothing that its configuration names is run, no index is written."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from launcher.errors import ConfigError
from launcher.trust import program

_SECONDS = 60
_SAFE = ("--no-pager", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "submodule.recurse=false",
         "-c", "safe.bareRepository=explicit")  # fmt: skip
"""The last one: a directory that only looks like a repository (HEAD, objects, refs) is none."""
_QUIET = {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none"}
"""The last two: an index that is sparse is filled up from wherever the configuration says, by whatever program it says. Git before 2.45
knows only the second, which no configuration overrides, as one does `protocol.allow`.
"""


def names(folder: Path) -> list[str] | None:
    """Tracked or new, but not ignored; a nested repository with a slash behind it. None where git cannot say.

    Raises ConfigError where it takes too long.
    """
    return _ask(folder, ["ls-files", "-z", "--cached", "--others", "--exclude-standard"])[0]


def tracked(folder: Path, files: Mapping[str, str]) -> list[str]:
    """Of `files` (name in `folder` -> whatever it stands for) what those stand for that git tracks; none where git cannot say."""
    found = _ask(folder, ["--literal-pathspecs", "ls-files", "-z", "--cached", "--", *files])[0] or ()
    return [files[name] for name in found if name in files]


def refusal(folder: Path) -> str:
    """Why git lists nothing of the repository that `folder` is in, in its own words; empty where it does, or there is none."""
    if not any((place / ".git").exists() for place in (folder, *folder.parents)):
        return ""
    found, words = _ask(folder, ["ls-files", "-z", "--cached"])
    return "" if found is not None else words or "there is no git on this machine"


def names_without_its_word(folder: Path) -> list[str] | None:
    """All that no `.gitignore` names, by a repository of our own: for one that git refuses, as where it is another user's."""
    with tempfile.TemporaryDirectory() as ours:
        made, _ = _ask(Path(ours), ["init", "-q", "--bare", "--template=", "."])
        where = [f"--git-dir={ours}", f"--work-tree={folder}"]
        return None if made is None else _ask(folder, [*where, "ls-files", "-z", "--others", "--exclude-standard"])[0]


def ignored_as_directories(folder: Path, links: Sequence[str]) -> set[str]:
    """Of these links to directories, those that git would ignore if they were what they lead to: in `.gitignore`, `data/` is no link.

    Asked of directories of those names beside copies of what says so. A link that is tracked is meant.
    """
    if not links:
        return set()
    top = next((place for place in (folder, *folder.parents) if (place / ".git").exists()), folder)
    names = {(folder / link).relative_to(top).as_posix(): link for link in links}
    with tempfile.TemporaryDirectory() as ours:
        if _ask(Path(ours), ["init", "-q", "--template="])[0] is None:
            return set()
        rules = {".git/info/exclude", *(f"{above.as_posix()}/.gitignore" for name in names for above in Path(name).parents)}
        for name in names:
            Path(ours, name).mkdir(parents=True, exist_ok=True)
        for rule in rules:
            with contextlib.suppress(OSError):
                Path(ours, rule).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(top / rule, Path(ours, rule))
        ignored, _ = _ask(Path(ours), ["check-ignore", "-z", "--stdin"], "\0".join(names))
    tracked = _ask(folder, ["ls-files", "-z", "--cached", "--", *links])[0] if ignored else None
    return {names[name] for name in ignored or ()} - set(tracked or ())


def _ask(folder: Path, words: Sequence[str], given: str = "") -> tuple[list[str] | None, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # a hook's GIT_DIR is not ours
    argv = ["git", "-C", str(folder), *_SAFE, *words]
    try:
        done = program.hear(argv, _SECONDS, os.fsencode(given), environment | _QUIET)
    except (TimeoutError, program.TooMuchError) as error:
        shown = str(folder) if str(folder).isprintable() else ascii(str(folder))
        why = str(error) or f"took more than {_SECONDS} s to list it"
        raise ConfigError(f"{shown}: git {why}; add large directories to .gitignore") from error
    except OSError:
        return None, ""
    listed = [os.fsdecode(name) for name in done.out.split(b"\0") if name]
    if outside := next((name for name in listed if name.startswith("/") or ".." in name.split("/")), None):
        return None, f"its index names {outside[:200]!a}, outside of it"  # git itself adds none, and believes an index that has one
    said = done.err.decode(errors="replace").split("\n")[0].removeprefix("fatal: ")
    return (None, said) if done.status or "./" in listed else (listed, "")  # "./" is a submodule that is not checked out

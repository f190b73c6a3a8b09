"""Where modules are looked for: never in the working directory, which may be anybody's (docs/decisions/0120-whose-modules.md).

`python -m` puts it first, and an empty or relative part of PYTHONPATH means it too. This runs before any module is imported that could lie
there, so it takes none but what Python itself has loaded by then: no pathlib, no contextlib.
"""

import os
import sys

TYPE_CHECKING = False  # typing would be looked for
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
"""Where launcher, models, data and conf lie side by side: a checkout, or site-packages."""

left_out: "list[str]" = []
"""Parts of PYTHONPATH that name another directory in each directory, as they were written."""

_STANDARD = os.path.dirname(os.__file__)


def is_of_this_program() -> bool:
    """Whether this process is ours from its first word on. A notebook, or a program that imports us, keeps its path until it calls us."""
    if sys.argv[:1] == ["-m"]:  # as Python has it while it looks for what -m names
        top = sys.orig_argv[-len(sys.argv)].split(".")[0]
        return top == "launcher" or (top.startswith("-") and top.endswith("mlauncher"))
    return any(os.path.basename(word) == "launcher" for word in sys.argv[:1])


def settle() -> "Callable[[], None]":
    """Ours first, then what the person named by its whole path, then Python's own and what is installed: for this process, and by
    PYTHONPATH for what it starts. Returns what puts everything back.

    What stands behind Python's own library is left as it is: a checkout that `pip install -e` put there is installed wherever one stands.
    """
    path, finders, variable = [*sys.path], [*sys.meta_path], os.environ.get("PYTHONPATH")
    parts = (variable or "").split(os.pathsep)
    named = [part for part in parts if os.path.isabs(part)]
    try:
        here = os.getcwd()
    except OSError:  # it is gone
        here = ""
    anybodys = {here, os.path.join(PROJECT, "launcher"), *(os.path.normpath(os.path.join(here, part)) for part in parts)} - {*named}
    end = path.index(_STANDARD) if _STANDARD in path else len(path)
    before = [entry for entry in path[:end] if os.path.isabs(entry) and entry not in anybodys and entry != PROJECT]
    sys.path[:] = [PROJECT, *before, *path[end:]]
    if variable is not None and named != parts:
        left_out.extend(part for part in parts if part not in named and os.path.normpath(part) != os.curdir)
        os.environ["PYTHONPATH"] = os.pathsep.join(named)
    from importlib.machinery import PathFinder  # Python's, by now

    if not any(isinstance(finder, _PythonsOwn) for finder in finders):
        sys.meta_path.insert(finders.index(PathFinder), _PythonsOwn(PathFinder.find_spec))

    def undo() -> None:
        sys.path[:], sys.meta_path[:] = path, finders
        if variable is not None:
            os.environ["PYTHONPATH"] = variable

    return undo


class _PythonsOwn:
    """A `queue.py` that somebody has beside launcher/ is not Python's: for its own modules, our directory is not looked at."""

    def __init__(self, find: "Callable[..., ModuleSpec | None]") -> None:
        self._find = find

    def find_spec(self, name: str, path: "Sequence[str] | None" = None, target: object = None) -> "ModuleSpec | None":
        if path is not None or name not in sys.stdlib_module_names:
            return None
        return self._find(name, [entry for entry in sys.path if entry != PROJECT])

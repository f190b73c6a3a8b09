"""The verbs, and how an error becomes one line and an exit code."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import sys
import warnings
from importlib import import_module

from launcher.errors import ConfigError, LaunchError, RunError, interrupted, readable
from launcher.trust import search_path

TYPE_CHECKING = False  # typing itself is not free, and a help text needs none of it
if TYPE_CHECKING:
    from typing import TextIO

VERBS = {
    "run": "launcher.verbs.run",
    "render": "launcher.verbs.show",
    "plan": "launcher.verbs.show",
    "resume": "launcher.verbs.run",
    "status": "launcher.verbs.status",
    "logs": "launcher.verbs.logs",
    "why": "launcher.verbs.why",
    "tensorboard": "launcher.verbs.logs",
    "cancel": "launcher.verbs.cancel",
    "drill": "launcher.verbs.drill",
    "doctor": "launcher.verbs.doctor",
    "data": "launcher.verbs.data",
    "collect": "launcher.verbs.collect",
    "plot": "launcher.verbs.plot",
    "evaluate": "launcher.verbs.evaluate",
    "compare": "launcher.verbs.compare",
    "bench": "launcher.verbs.bench",
    "export": "launcher.verbs.export",
    "predict": "launcher.verbs.predict",
    "serve": "launcher.verbs.serve",
}
"""Verb -> the module with the function of that name. Imported when asked for: `status` must not wait for Hydra."""


def main(argv: list[str] | None = None) -> int:
    """Entry of `python -m launcher` and of the console script, and of a notebook's cell, to which it leaves the umask and the search
    path as they were. Returns the exit code (launcher/errors.py).
    """
    words = sys.argv[1:] if argv is None else argv
    _all_streams()
    _any_terminal()
    if _asks_for_help(words):  # in which there is nothing to hide: it does not wait for what hides it
        return _main(words)
    from launcher.trust import terminal
    from launcher.trust.secret import mask
    from launcher.trust.sieve import masked

    umask, streams, put_back = os.umask(0o077), (sys.stdout, sys.stderr), search_path.settle()
    mask.begin()
    sys.stdout, sys.stderr = map(masked, streams)
    try:
        with terminal.guarded(), warnings.catch_warnings():
            if not os.environ.get("LAUNCHER_DEBUG"):
                warnings.showwarning = _warn
            code = _main(words)
    except SystemExit:
        _leave(streams)
        raise
    else:  # what else is raised goes through them: the interpreter prints it
        _leave(streams)
        return code
    finally:
        os.umask(umask)
        put_back()
        if argv is None:
            gc.disable()  # the interpreter ends, and would first search all of Hydra for what can be freed: 9 ms of a plan's 260


def _leave(streams: tuple[TextIO, TextIO]) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # nobody listens, or there is none
            stream.flush()
    sys.stdout, sys.stderr = streams


def _all_streams() -> None:
    """One that was closed (`>&-`) is nothing that is read, or written, on: else the next file that is opened would be the screen."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            with contextlib.suppress(OSError):
                descriptor = os.open(os.devnull, os.O_RDWR)
                if descriptor != number:
                    os.dup2(descriptor, number)
                    os.close(descriptor)
                setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115 - of a number


def _any_terminal() -> None:
    """One that does not know a sign of ours shows its number instead. A notebook's streams know all, and no `reconfigure`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _warn(message: Warning | str, *_: object) -> None:
    """What a library warns of, of a config of the user's as like as not: in one line, without the place in its code."""
    print(readable(f"launcher: warning: {message}"), file=sys.stderr)


def _main(words: list[str]) -> int:
    try:
        return _dispatch(words)
    except KeyboardInterrupt as told:
        return interrupted(told)
    except BrokenPipeError:
        from launcher.clusters.screen import silence_stdout

        silence_stdout()
        return 0
    except PermissionError as error:
        if os.environ.get("LAUNCHER_DEBUG"):
            raise
        from launcher.trust.foreign import refused

        print(f"launcher: {refused(error)}", file=sys.stderr)
        return RunError.exit_code
    except LaunchError as error:
        if os.environ.get("LAUNCHER_DEBUG"):
            raise
        print(f"launcher: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:  # of the machine, not of ours: a disk, a home, a directory that is gone
        if os.environ.get("LAUNCHER_DEBUG"):
            raise
        print(f"launcher: {RunError(_said(error))}", file=sys.stderr)  # whose file names may be of any length, and of several lines
        return RunError.exit_code


def _said(error: OSError) -> str:
    try:
        os.getcwd()  # noqa: PTH109 - pathlib is not loaded for a help text
    except OSError as gone:
        return f"the working directory cannot be read ({gone.strerror}); type: cd, to a directory that is there"
    return f"{error.filename or 'a file'}: {error.strerror or error}; LAUNCHER_DEBUG=1 shows where"


def _asks_for_help(words: list[str]) -> bool:
    return "--help" in words or "-h" in words or words == ["help"]


def _dispatch(words: list[str]) -> int:
    if "-sc" in words or "--shell-completion" in words:
        line = os.environ.get("COMP_LINE", "").split(" ")
        os.environ["COMP_LINE"] = " ".join(line[:1] + line[2:] if line[1:2] and line[1] in VERBS else line)  # Hydra knows no verbs
    verb, rest = ("run", words) if not words or not words[0].isidentifier() else (words[0], words[1:])
    if _asks_for_help(words):
        from launcher.verbs.help import help_text

        print(help_text(), flush=True)
        return 0
    if verb not in VERBS:
        from launcher.config.targets import nearest

        raise ConfigError(f"{verb}: no such verb{nearest(verb, VERBS)}")
    return getattr(import_module(VERBS[verb]), verb)(rest)

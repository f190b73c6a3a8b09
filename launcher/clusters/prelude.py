"""A site's prelude in the job script; which file it is, and what of its neighbours goes with it: launcher/prelude.py."""

from __future__ import annotations

from pathlib import Path

from launcher.shell import command

_OURS = ("builtin", "cd", "command", "date", "echo", "exit", "find", "grep", "kill", "mkdir", "mv", "printf", "read", "rm", "sed", "set",
         "sleep", "sort", "test", "trap", "unset", "wait")  # fmt: skip
"""What the rest of the script calls by these names is bash's or the system's, and no function of a site's."""


def lines(copied: str, ledger: str) -> list[str]:
    """Of the job script: before any variable of ours, so that the prelude takes none of them away. `copied` is the file in the run.

    The first command in it that fails is kept for the ledger; where the prelude ends the shell, that goes there at once.
    """
    folder = str(Path(copied).parent)
    return [
        "",
        "# This site's own lines. Module systems are rarely written for `set -eu`; what fails in them is told below.",
        "launcher_prelude=''",
        "# shellcheck disable=SC2329 # the traps call them",
        "launcher_prelude_note() { # STATUS LINE DEPTH FILE: of a command in the prelude or what it sources; not of the `.` that reads it",
        '    [ "$3" -lt 2 ] || launcher_prelude="${launcher_prelude:-${4##*/} line $2: $(sed -n "$2p" "$4" 2>/dev/null) (status $1)}"',
        "}",
        "# shellcheck disable=SC2329",
        "launcher_prelude_over() {",
        '    printf \'{"time": %s, "event": "prelude", "reason": "it ended the job with status %d"}\\n\' "$(date +%s)" "$1" \\',
        f"        >>{command([ledger])}",
        '    echo "launcher: the prelude ended the job with status $1: it must not call exit"',
        "}",
        "trap 'launcher_prelude_over \"$?\"' EXIT",
        'trap \'launcher_prelude_note "$?" "$LINENO" "${#BASH_SOURCE[@]}" "${BASH_SOURCE[0]:-}"\' ERR',
        "set +eu",
        command(["cd", folder]),
        "# shellcheck source=/dev/null",
        command([".", copied]),
        "trap - DEBUG RETURN EXIT ERR TERM INT HUP USR1 USR2",
        f"unset -f {' '.join(_OURS)}",
        "set +fnvx +o posix",
        "shopt -u nullglob failglob expand_aliases",
        "unset IFS",
        'PATH="${PATH:-/usr/local/bin:/usr/bin:/bin}"',
        "set -eu",
    ]

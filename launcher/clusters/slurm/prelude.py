"""A site's prelude in the job script; which file it is, and what of its neighbours goes with it: launcher/clusters/slurm/prelude_files.py.

It runs in a shell of its own (a subshell), for a shell file may do anything: name a variable of ours readonly, exec, exit, set traps,
options, functions. Of that shell the environment and the soft limits are taken over (prelude.sh); it itself is thrown away.
"""

from __future__ import annotations

from pathlib import Path

from launcher.shell import command

BODY = Path(__file__).with_name("prelude.sh")


def lines(copied: str, ledger: str, strict: bool) -> list[str]:
    """Of the job script: before any variable of ours, so that the prelude takes none of them away. `copied` is the file in the run.

    The first command in it that fails is kept for the ledger. Where it does not come to its end, and where it fails and `strict`, that goes
    there at once and the job ends, before it has made an attempt.
    """
    folder = str(Path(copied).parent)
    failed, environment, limits = (command([f"{folder}/{name}"]) for name in (".failed", ".environment", ".limits"))
    return [
        "",
        BODY.read_text(encoding="utf-8").rstrip("\n"),
        "",
        "# This site's own lines. Module systems are rarely written for `set -eu`; what fails in them is told below.",
        f"rm -f {failed} {environment} {limits}",
        "set +e # behind `||` no ERR trap runs in it",
        "(",
        "    # shellcheck disable=SC2329 # the trap calls it",
        "    launcher_note() { # STATUS LINE DEPTH FILE: of a command in the prelude or what it sources; not of the `.` that reads it",
        f'        [ "$3" -lt 2 ] || [ -s {failed} ] ||',
        f'            echo "${{4##*/}} line $2: $(sed -n "$2p" "$4" 2>/dev/null) (status $1)" >{failed}',
        "    }",
        '    trap \'launcher_note "$?" "$LINENO" "${#BASH_SOURCE[@]}" "${BASH_SOURCE[0]:-}"\' ERR',
        "    set +eu",
        f"    {command(['cd', folder])}",
        "    # shellcheck source=/dev/null",
        f"    {command(['.', copied])}",
        "    trap - DEBUG RETURN EXIT ERR",
        f"    /usr/bin/env -0 >{environment} &&",
        '        /bin/bash -p -c \'for name in c d e f i l m n q r s t u v x; do echo "$name $(ulimit -S "-$name")"; done 2>/dev/null\' '
        f">{limits}",
        ")",
        "launcher_status=$?",
        "set -e",
        f'launcher_finish_prelude "$launcher_status" {command([folder, ledger, "yes" if strict else "no"])}',
    ]

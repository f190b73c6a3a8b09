"""Of a job script: `cluster.env`, and what of it the job's own environment has, under the names that `${oc.env:NAME}` gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from launcher.shell import Late, export, exports, variables


def lines(env: Mapping[str, str | None], others: Iterable[object]) -> list[str]:
    """`others`: what else of the script the job's shell completes."""
    values = {name: value for name, value in env.items() if value is not None}
    late = {name: value for name, value in values.items() if isinstance(value, Late)}
    plain = [export(name, value) for name, value in values.items() if name not in late]
    needed = variables([*late.values(), *others])
    return [*(_ask_for(needed) if needed else ()), *([exports(late)] if late else ()), *plain]


def _ask_for(names: list[str]) -> list[str]:
    """Before anything is made of them: one line and the end where one is not there."""
    return [
        "# What the config calls ${oc.env:NAME}, and the environment of this job has: it is written nowhere.",
        f"for name in {' '.join(names)}; do",
        '    [ -n "${!name+set}" ] || {',
        '        echo "launcher: \\${oc.env:$name}: the environment of this job has no $name; export it where you submit or resume,'
        ' or in cluster.prelude (sbatch hands it on unless this site says --export=NONE)" >&2',
        "        exit 4",
        "    }",
        "done",
    ]

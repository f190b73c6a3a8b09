"""Values as SLURM spells them: time limits, `#SBATCH` lines, options passed on."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from launcher.clusters.slurm_options import OURS, SBATCH, SRUN
from launcher.errors import ConfigError

_TIME = re.compile(
    r"(?:(?P<days>\d+)-(?P<hours>\d+)(?::(?P<minutes>\d+))?(?::(?P<seconds>\d+))?)|(?:(?:(?P<h>\d+):)?(?P<m>\d+):(?P<s>\d+))"
)
_PLAIN = re.compile(r"[A-Za-z0-9_.,:;=@%+/*&|()\[\]-]+")


def seconds_of(time: str | int) -> int:
    """`2:30` is two and a half minutes, `4:00:00` four hours, `1-12:30` a day and a half, as `man sbatch` has it.

    Raises ConfigError, for a bare number too: YAML reads `2:30` without quotes as 150, and sbatch reads 150 as minutes.
    """
    match = _TIME.fullmatch(time) if isinstance(time, str) else None
    if match is None:
        raise ConfigError(f"cluster.time={time!r} is no time limit; type HH:MM:SS or D-HH:MM, in quotes in a yaml: '4:00:00', '1-12:30'")
    part = {name: int(value or 0) for name, value in match.groupdict().items()}
    total = part["days"] * 86_400 + (part["hours"] + part["h"]) * 3_600 + (part["minutes"] + part["m"]) * 60 + part["seconds"] + part["s"]
    if total < 60:
        raise ConfigError(f"cluster.time={time!r} is less than a minute, which SLURM counts in; type at least '1:00'")
    if total > 366 * 86_400:
        raise ConfigError(f"cluster.time={time!r} is more than a year; type D-HH:MM:SS")
    return total


def limit_text(seconds: int) -> str:
    """D-HH:MM:SS, the one spelling that cannot be taken for another."""
    days, rest = divmod(seconds, 86_400)
    return f"{days}-{rest // 3_600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"


def directive(key: str, value: Any) -> str:
    """One `#SBATCH` line. Raises ConfigError for what would end the line and begin another."""
    if value is True:
        return f"#SBATCH --{key}"
    text = str(value)
    if any(ord(mark) < 32 or ord(mark) == 127 for mark in text):
        raise ConfigError(f"cluster.sbatch.{key}={text!r} holds a line break or a control character; leave it out")
    if _PLAIN.fullmatch(text):
        return f"#SBATCH --{key}={text}"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'#SBATCH --{key}="{escaped}"'


def passed_on(command: str, options: Mapping[str, Any], site: Sequence[str]) -> dict[str, Any]:
    """`cluster.sbatch` or `cluster.srun` as options: `true` a bare flag, `null` and `false` absent. Raises ConfigError."""
    known = (SBATCH if command == "sbatch" else SRUN) | set(site)
    found: dict[str, Any] = {}
    for key, value in options.items():
        name = str(key).replace("_", "-")
        if name in OURS:
            raise ConfigError(f"cluster.{command}.{key}: the launcher sets --{name} itself; type {OURS[name]}")
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), 1, 0.5)
            hint = f"did you mean cluster.{command}.{near[0]}?" if near else f"see `man {command}`"
            raise ConfigError(f"cluster.{command}.{key}: {command} has no option --{name}; {hint}")
        if isinstance(value, list | dict):
            raise ConfigError(f"cluster.{command}.{key} is a list; type one value, with commas where {command} wants them")
        if any(ord(mark) < 32 for mark in str(value)):
            raise ConfigError(f"cluster.{command}.{key}={value!r} holds a line break; leave it out")
        if value is not None and value is not False:
            found[name] = value
    return found

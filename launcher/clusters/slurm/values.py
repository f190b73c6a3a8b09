"""Values as SLURM spells them: time limits, `#SBATCH` lines, options passed on."""

from __future__ import annotations

import difflib
import re
from typing import Any

from launcher.clusters.slurm.options import OURS, OURS_OF_SBATCH, SBATCH, SRUN
from launcher.clusters.texts import check_text, options, texts
from launcher.errors import ConfigError
from launcher.shell import Late

_TIME = re.compile(
    r"(?:(?P<days>\d+)-(?P<hours>\d+)(?::(?P<minutes>\d+))?(?::(?P<seconds>\d+))?)|(?:(?:(?P<h>\d+):)?(?P<m>\d+):(?P<s>\d+))",
    re.ASCII,
)
_PLAIN = re.compile(r"[A-Za-z0-9_.,:;=@%+/*&|()\[\]-]+")
_OPTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")


def seconds_of(time: str) -> int:
    """`30` is half an hour, `2:30` two and a half minutes, `4:00:00` four hours, `1-12:30` a day and a half, as `man sbatch` has it.

    Raises ConfigError.
    """
    if not isinstance(time, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(f"cluster.time={time} is no text; put it in quotes in a yaml: '4:00:00'")
    if re.fullmatch(r"[0-9]{1,9}", time):
        time = f"{time}:00"
    match = _TIME.fullmatch(time) if len(time) <= 40 else None
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
    text = check_text(f"sbatch.{key}", value)
    if _PLAIN.fullmatch(text):
        return f"#SBATCH --{key}={text}"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'#SBATCH --{key}="{escaped}"'


def literal_path(directory: str, name: str) -> str:
    """What `--output` needs to write `name` in the working directory `directory`. SLURM puts the two together and then takes % in the
    whole for a pattern, `%x` for the job's name; a backslash anywhere ends that, and each counts once for two.
    """
    if not {"%", "\\"} & set(directory):
        return name
    escaped = directory.replace("\\", "\\\\")
    return f"{escaped}/\\{name}"


def check_containers(kind: str | None, image: str | None, mounts: object, python: str) -> None:
    """Raises ConfigError."""
    if kind not in (None, "pyxis", "apptainer"):
        raise ConfigError(f"cluster.container={kind} cannot be; type pyxis, apptainer or null")
    if (kind is None) != (image is None):
        raise ConfigError("cluster.container and cluster.image go together; type both, or null for both")
    for key, value in (("image", image), ("container_python", python)):
        if value is not None and (not check_text(key, value) or value.startswith("-")):
            raise ConfigError(f"cluster.{key}={value!r} cannot be; type a name or a path")
    for mount in texts("mounts", mounts):
        if isinstance(mount, Late):
            continue  # it was looked at as it was when it was submitted
        if any(mark in check_text("mounts", mount) for mark in ',"'):
            raise ConfigError(f"cluster.mounts: {mount!r} holds a comma or a quote; mount a directory without")
        if not re.fullmatch(r"[^:]+:[^:]+(:[^:]+)?", mount):
            raise ConfigError(f"cluster.mounts: {mount!r} cannot be; type host:container, or host:container:ro")


def passed_on(command: str, given: object, site: object) -> dict[str, Any]:
    """`cluster.sbatch` or `cluster.srun` as options: `true` a bare flag, `null` and `false` absent. Raises ConfigError."""
    known = (SBATCH if command == "sbatch" else SRUN) | {name.replace("_", "-") for name in texts("site_options", site)}
    found: dict[str, Any] = {}
    for key, value in options(command, given).items():
        name = key.replace("_", "-")
        if name in OURS and not (command == "srun" and name in OURS_OF_SBATCH):
            raise ConfigError(f"cluster.{command}.{key}: the launcher sets --{name} itself; type {OURS[name]}")
        if name not in known or not _OPTION.fullmatch(name):
            near = difflib.get_close_matches(name, sorted(known), 1, 0.5)
            hint = f"did you mean cluster.{command}.{near[0]}?" if near else f"see `man {command}`"
            raise ConfigError(f"cluster.{command}.{key}: {command} has no option --{name}; {hint}")
        if isinstance(value, list | dict):
            raise ConfigError(f"cluster.{command}.{key} is a list; type one value, with commas where {command} wants them")
        if name in found:
            raise ConfigError(f"cluster.{command}.{key} is there twice, with - and with _; leave one out")
        if value is not None and value is not False:
            check_text(f"{command}.{key}", value)
            found[name] = value
    return found

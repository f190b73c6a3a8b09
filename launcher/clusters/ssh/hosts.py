"""Machines by name: `cluster.hosts`, or a file of them in the form that DeepSpeed and MPI have (`gpu1 slots=8`)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from launcher.errors import ConfigError
from launcher.trust import reading

_USER, _ADDRESS = r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}@", r"[0-9A-Fa-f:]{2,45}(?:%[A-Za-z0-9_.-]{1,15})?"
_WORD = re.compile(rf"(?:{_USER})?(?:[A-Za-z0-9_][A-Za-z0-9_.-]{{0,252}}|{_ADDRESS})")
"""A name, an address or an alias of ~/.ssh/config, perhaps with a user: no option of ssh, nothing that a ProxyCommand's shell reads."""
_LINE = re.compile(r"(\S+)(?:\s+(?:slots|max_slots|max-slots)\s*=\s*(\d{1,5}))*\s*(?:#.*)?")
_SLOTS = re.compile(r"\sslots\s*=\s*(\d{1,5})")
MOST = 4096
_BYTES = 1 << 20


class Host(NamedTuple):
    name: str
    slots: int | None = None
    """Processes there; None where nobody has said."""


def read(hosts: object, hostfile: str | None) -> list[Host]:
    """In their order, the first is where the others meet. Raises ConfigError that names the key, and the line of the file."""
    if hostfile is not None:
        if hosts:
            raise ConfigError("cluster.hosts and cluster.hostfile are both there; type one of them")
        found = [*_of_file(Path(hostfile).expanduser())]
        key = f"cluster.hostfile={hostfile}"
    else:
        found, key = [*_of_words(hosts)], "cluster.hosts"
    if not found:
        raise ConfigError(f"{key}: there is no host; type cluster.hosts=[gpu1,gpu2], or cluster.hostfile=FILE with a line for each")
    if len(found) > MOST:
        raise ConfigError(f"{key}: {len(found)} hosts, and {MOST} are the most")
    names = [host.name for host in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{key}: {twice} stands there twice; say how many processes it shall have by its slots, or by processes_per_node")
    return found


def _of_words(hosts: object) -> Iterator[Host]:
    """`gpu1`, `{gpu1: 8}`, or the words of a line of a file."""
    if isinstance(hosts, str):
        hosts = hosts.split(",")
    if isinstance(hosts, Mapping):
        hosts = [{name: slots} for name, slots in cast("Mapping[Any, Any]", hosts).items()]
    if not isinstance(hosts, Sequence):
        raise ConfigError(f"cluster.hosts={hosts!r}: type a list, such as cluster.hosts=[gpu1,gpu2]")
    for each in cast("Sequence[Any]", hosts):
        if isinstance(each, Mapping):
            for name, slots in cast("Mapping[Any, Any]", each).items():
                yield Host(_checked(str(name), "cluster.hosts"), _slots(slots, f"cluster.hosts: {name}"))
        else:
            yield from _of_line(str(each), "cluster.hosts")


def _of_file(path: Path) -> Iterator[Host]:
    try:
        lines = reading.whole(path, _BYTES).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cluster.hostfile={path}: it cannot be read ({getattr(error, 'strerror', None) or error}); type a file with a line "
            "for each host, such as: gpu1 slots=8"
        ) from error
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield from _of_line(line.strip(), f"cluster.hostfile={path}, line {number}")


def _of_line(line: str, where: str) -> Iterator[Host]:
    found = _LINE.fullmatch(line)
    if found is None:
        _checked((line.split() or [line])[0] if "=" in line else line, where)
        raise ConfigError(f"{where}: {line!r:.80} is no line of a host; type its name, and how many processes it shall have: gpu1 slots=8")
    slots = _SLOTS.search(line)
    yield Host(_checked(found[1], where), _slots(int(slots[1]), f"{where}: {found[1]}") if slots else None)


def _slots(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MOST:
        raise ConfigError(f"{where} has slots {value!r:.40}; type a whole number from 1")
    return value


def _checked(name: str, where: str) -> str:
    if not _WORD.fullmatch(name):
        raise ConfigError(
            f"{where}: {name!r:.80} is no host that ssh is given here: letters, digits and ._- (user@host too); for a port, a jump host or "
            "another user make an alias of it in ~/.ssh/config, and type that"
        )
    return name

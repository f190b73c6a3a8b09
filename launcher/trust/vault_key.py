"""The key that files are encrypted with: from the environment, or from a file that the environment names; from nowhere else, and written
nowhere."""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from launcher.errors import KeyFault
from launcher.trust import owner, reading

VARIABLE, FILE = "LAUNCHER_KEY", "LAUNCHER_KEY_FILE"
MAKE = "python -c 'import secrets; print(secrets.token_hex(32))'"
"""The command that makes one."""
NONE = "holds no key: 64 hex digits, or base64 of 32 bytes"


def needed(what: str, environment: Mapping[str, str] = os.environ, *, new: bool = False) -> bytes:
    """Raises KeyFault in one line; `what` says who needs it. `new`: nothing is encrypted with it yet, so that any will do; else one that is
    made now would open nothing, and nobody is advised to make it."""
    try:
        key = found(environment)
    except KeyFault as error:
        raise KeyFault(f"{error}; make one with: {MAKE}") if new and NONE in str(error) else error from None
    if key is None:
        advice = f"make one with: {MAKE}, and keep it" if new else "set one of them to the key that it was written with"
        raise KeyFault(f"{what} needs a key, and neither {VARIABLE} nor {FILE} is set; {advice}")
    return key


def found(environment: Mapping[str, str] = os.environ) -> bytes | None:
    """None where nobody has named one. Raises KeyFault for what is none, of which it says nothing."""
    text, path = environment.get(VARIABLE, ""), environment.get(FILE, "")
    here = _parsed(text, VARIABLE) if text else None
    there = _in_file(Path(path)) if path else None
    if here and there and here != there:
        raise KeyFault(f"{VARIABLE} and the file that {FILE} names are two keys; unset one of them")
    return here or there


def spellings(text: str) -> list[str]:
    """Of a text that may be a key, the other ways to write it: they are as secret."""
    key = _bytes(text.strip())
    if key is None:
        return []
    coded = [encode(key).decode().rstrip("=") for encode in (base64.b64encode, base64.urlsafe_b64encode)]
    return [key.hex(), key.hex().upper(), key.hex(" "), key.hex(":"), *coded, repr(key)[2:-1]]


def _parsed(text: str, where: str) -> bytes:
    key = _bytes(text.strip())
    if key is None:
        raise KeyFault(f"{where} {NONE}")
    return key


def _bytes(text: str) -> bytes | None:
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return bytes.fromhex(text)
    if not re.fullmatch(r"[A-Za-z0-9+/_-]{43}=?", text):
        return None
    try:
        key = base64.b64decode(text.rstrip("=").replace("-", "+").replace("_", "/") + "=", validate=True)
    except binascii.Error:
        return None
    return key if len(key) == 32 else None


def _in_file(path: Path) -> bytes:
    """Raises KeyFault where others may read it, or may have written it."""
    where = f"{FILE}={path}"
    if not path.is_absolute():
        raise KeyFault(f"{where} is no whole path, and jobs start elsewhere; type all of it")
    try:
        with reading.opened(path) as file:
            status, data = os.fstat(file.fileno()), file.read(4096)
    except OSError as error:
        raise KeyFault(f"{where} cannot be read ({error.strerror or error})") from error
    if fault := owner.fault(path):
        raise KeyFault(f"{where}: {fault}; put the key into a file of yours that nobody else can write")
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise KeyFault(f"{where} can be read by others (mode {stat.S_IMODE(status.st_mode):o}); type: chmod 600 {path}")
    return _parsed(data.decode("ascii", "replace"), where)

"""Files that are kept out of the copy of a run's code: `.env`, private keys, credentials. A run directory is shown around and archived.

What git tracks was given away by whoever committed it, and the code may need it: it is copied as before. Source is copied whatever it is
called: `secrets.py` is a module.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from launcher.code import git

_EXAMPLE = re.compile(r"\.(example|sample|template|tmpl|dist|defaults?|pub)$")
_SOURCE = re.compile(r"\.(py|pyi|pyx|pxd|ipynb|c|cc|cpp|cu|cuh|h|hpp|rs|go|jl|md|rst|tex)$")
_WHOLE = re.compile(
    r"\.env(rc|\..+)?|.+\.env|id_(rsa|dsa|ecdsa|ed25519)([_.-].*)?|.+\.(key|p12|pfx|p8|jks|keystore|kdbx|ppk|pem)"
    r"|[._](netrc|pgpass|pypirc|npmrc|s3cfg|boto|dockercfg|databrickscfg)|\.(git-credentials|htpasswd|vault-token|my\.cnf)|rclone\.conf|kaggle\.json"
    r"|(.+[._-])?(client[_-]?secrets?|service[_-]?account|credentials?|secrets?)([._-].*)?"
    r"|(.+[._-])?(passwords?|passwd|passphrase|(api|access|private|secret)[_-]?keys?|token)(\.(txt|json|ya?ml|toml|ini|cfg|conf|sh))?"
)
_FOLDERS = frozenset((".ssh", ".aws", ".gnupg", ".kube", ".azure", ".docker", ".gcloud", ".secrets", "secrets", "credentials"))
_KEY = re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY|PuTTY-User-Key-File|openssh-key-v1")
_CERTIFICATE = re.compile(rb"-----BEGIN (CERTIFICATE|PUBLIC KEY)")
_HEAD_BYTES = 4096
_told: set[str] = set()


def left_out(files: Mapping[str, Path], sizes: Mapping[str, int]) -> set[str]:
    """Which of `files` (name in the copy -> where it is) hold secrets and are tracked by no repository. One line says so."""
    suspects = {name for name, path in files.items() if _is_secret(name, path, sizes[name])}
    found = suspects - _tracked(files, suspects)
    if found and (line := ", ".join(sorted(found)[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")) not in _told:
        _told.add(line)
        shown = line if line.isprintable() else ascii(line)
        print(
            f"launcher: warning: {shown}: not copied with the code, for it may hold secrets; have the job read it by its whole path, or, "
            "if it holds none, git add it",
            file=sys.stderr,
        )
    return found


def is_secret_name(name: str) -> bool:
    """By its name alone, posix and relative."""
    *folders, last = name.lower().split("/")
    if _SOURCE.search(last) or _EXAMPLE.search(last):
        return False
    return bool(_WHOLE.fullmatch(last)) or not _FOLDERS.isdisjoint(folders)


def _is_secret(name: str, path: Path, size: int) -> bool:
    if _SOURCE.search(name.lower()):
        return False
    real = path.name if not path.is_symlink() else str(path.readlink())  # under whatever name a link shows it
    if not (is_secret_name(name) or is_secret_name(real.lstrip("/"))):
        return 64 <= size <= 2**16 and bool(_KEY.search(_head(path)))
    head = _head(path)
    return not (name.endswith((".pem", ".key")) and _CERTIFICATE.search(head) and not _KEY.search(head))


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError:
        return b""


def _tracked(files: Mapping[str, Path], names: Iterable[str]) -> set[str]:
    by_folder: dict[Path, set[str]] = {}
    for name in names:
        by_folder.setdefault(files[name].parent, set()).add(name)
    return {name for folder, inside in by_folder.items() for name in git.tracked(folder, {files[each].name: each for each in inside})}

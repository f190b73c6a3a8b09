"""What is secret in this process, and text without it.

A variable of the environment is secret if a config asked for it (`${oc.env:NAME}`) or if its name ends as a secret's does. One whose name
says that it is a place or an account is none. The value is cut out of every text that leaves, in the forms in which it is met; its place
takes `***`. docs/decisions/0090.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

SHORTEST = 6
"""Characters of a value that is cut out. A shorter one is in every other word, and anybody can guess it."""

_SECRET = ("TOKEN", "KEY", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "PASS", "PWD", "CREDENTIAL", "CREDS", "COOKIE", "JWT", "AUTH",
           "DSN")  # fmt: skip
_PUBLIC = (
    r"(USER|LOGNAME|HOME|HOSTNAME|HOST|PWD|OLDPWD|TMP|TEMP|SHELL|LANG)|(.*_)?(USER|HOME|DIR|ROOT|PATH|FOLDER|SCRATCH|WORK|STORE|PROJECT"
    r"|ACCOUNT|PARTITION|QOS|CLUSTER|HOST|GROUP|TMPDIR|STORAGE|RUN|RUN_NAME|EXPERIMENT|EXPERIMENT_NAME)S?"
)
_OF_THE_MACHINE = ("CUDA_", "NCCL_", "OMP_")
_REFERENCE = r"\$\{\s*oc\.env\s*:\s*(\w+)\s*[},]"
_NUMBER = r"(?i)[+-]?[\d_.]+(e[+-]?\d+)?|true|false|null|none"
"""Patterns are compiled when they are first needed, which most commands never do: together they take 3 ms."""


def looks_secret(name: str) -> bool:
    """By its end, `…_TOKENS_2` too."""
    plain = name.upper()
    stem = plain.rstrip("0123456789").rstrip("_")
    said = stem.endswith(_SECRET) or stem.removesuffix("S").endswith(_SECRET) or stem.rpartition("_")[2] in ("PW", "PAT")
    said = said or "SECRET" in plain or "CREDENTIAL" in plain
    return said and plain not in ("PWD", "OLDPWD") and not re.fullmatch(_PUBLIC, plain)


def looks_public(name: str) -> bool:
    """A place, an account: what may be written, and what a directory may be called after."""
    if re.fullmatch(_PUBLIC, name.upper()):
        return True
    from launcher.trust import traces  # most commands ask for no variable

    return name.upper().startswith((*_OF_THE_MACHINE, *traces.variables())) and not looks_secret(name)


class Mask:
    """The secrets of one process, looked up when they are first needed: while a command runs its environment does not change."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._asked: set[str] = set()
        self._shown: list[str] = []
        self._forms: tuple[tuple[str, str], ...] | None = None

    def begin(self) -> None:
        """Another command in this process, as in a notebook: nothing is asked for yet."""
        self._asked, self._shown, self._forms = set(), [], None

    def ask(self, name: str) -> None:
        """A config has asked for it."""
        if name not in self._asked:
            self._asked.add(name)
            self._forms = None

    def asked_in(self, text: str) -> None:
        """All that the text of a config asks for, `${oc.env:${oc.env:WHICH}}` too."""
        while names := re.findall(_REFERENCE, text):
            for name in names:
                self.ask(name)
            text = re.sub(_REFERENCE, lambda found: self._environment.get(found[1], "") + " ", text)

    @property
    def asked(self) -> list[str]:
        return sorted(self._asked)

    def show(self, path: str | Path) -> None:
        """The path of a run has to be told: a value that is part of it is no secret."""
        self._shown.append(str(path))
        self._forms = None

    def forms(self) -> tuple[tuple[str, str], ...]:
        """(a form of a value, its name), the longest first."""
        if self._forms is None:
            found: dict[str, str] = {}
            for name in [name for name in self._environment if looks_secret(name)] + self.asked:
                value = self._environment.get(name, "")
                shown = looks_public(name) or any(value in path for path in self._shown)
                if not shown and _is_worth(value, secret=looks_secret(name)):
                    for form in _forms(value):
                        found.setdefault(form, name)
            self._forms = tuple(sorted(found.items(), key=lambda pair: -len(pair[0])))
        return self._forms

    def __call__(self, text: str) -> str:
        for form, _ in self.forms():
            if form in text:
                text = text.replace(form, "***")
        return text

    def is_quoted_in(self, text: str) -> bool:
        """Whether it holds a piece of one, as a parser's complaint does."""
        text = self(text)
        return any(piece in text for form, name in self.forms() if name in self._asked for piece in re.findall(r"\w{5,}", form))

    def as_reference(self, text: str) -> str:
        """A value that was made of others, as a config may hold it: with `${oc.env:NAME}` where it has a secret, all else as it is."""
        for form, name in self.forms():
            if form in text and form == self._environment.get(name):
                text = text.replace(form, f"${{oc.env:{name}}}")
        return text

    def everywhere(self, value: object) -> object:
        """What json.dumps takes, without secrets in any text or key."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, Mapping):
            return {self(str(key)): self.everywhere(child) for key, child in cast("Mapping[object, object]", value).items()}
        return [self.everywhere(child) for child in cast("list[object]", value)] if isinstance(value, list | tuple) else value


mask = Mask(os.environ)
"""Of this process."""


class Cut:
    """Text that comes in pieces: what may be the beginning of a secret at the end of one is kept back until the next."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._kept = ""

    def __call__(self, text: str, *, last: bool = False) -> str:
        text = self._mask(self._kept + text)
        self._kept = "" if last else text[self._whole(text) :]
        return text[: len(text) - len(self._kept)]

    def _whole(self, text: str) -> int:
        """Up to where it cannot be the beginning of one."""
        forms = [form for form, _ in self._mask.forms()]
        longest = max(map(len, forms), default=1)
        begins = {form[0] for form in forms}
        for at in range(max(0, len(text) - longest + 1), len(text)):
            if text[at] in begins and any(form.startswith(text[at:]) for form in forms):
                return at
        return len(text)


def _is_worth(value: str, *, secret: bool) -> bool:
    """Where the name says nothing, a number is none, nor is a path of this machine: an error that hides which is of no use."""
    if len(value.strip()) < SHORTEST:
        return False
    return secret or not (re.fullmatch(_NUMBER, value.strip()) or _is_path(value.strip()))


def _is_path(value: str) -> bool:
    return bool(re.fullmatch(r"(/[\w.@+-]+)+/?", value)) and Path("/", value.split("/")[1]).is_dir()


def _forms(value: str) -> Iterator[str]:
    """Of the whole, and of each line of it: a private key is shown line by line."""
    from launcher.trust import vault_key  # here, for most commands have nothing to hide

    parts = [
        value.strip(),
        *vault_key.spellings(value),
        *(line.strip() for line in value.splitlines() if len(line.strip()) >= 2 * SHORTEST),
    ]
    for part in dict.fromkeys([value, *parts]):
        yield from (form for form in _spellings(part) if len(form) >= SHORTEST)


def _spellings(text: str) -> Iterator[str]:
    """As it is, as it is quoted, and either of them encoded: most values look the same in all quotes."""
    import shlex

    data = text.encode("utf-8", "surrogateescape")
    inside = (json.dumps(text), json.dumps(text, ensure_ascii=False), repr(text), ascii(text), repr(data)[1:])
    once = dict.fromkeys((text, *(each[1:-1] for each in inside), shlex.quote(text).strip("'"), text.replace("'", "\\'")))
    twice = dict.fromkeys(each for form in once for each in (form, form.replace("\\", "\\\\"), json.dumps(form)[1:-1], repr(form)[1:-1]))
    for form in twice:
        yield from (form, form.replace("/", "\\/"), *_encoded(form.encode("utf-8", "surrogateescape")))


def _encoded(data: bytes) -> Iterator[str]:
    import urllib.parse  # here, for most verbs have nothing to hide and should not wait for it

    quoted = [*(urllib.parse.quote(data, safe=safe) for safe in ("", "/", "/:@")), urllib.parse.quote_plus(data)]
    yield from (*quoted, *(re.sub(r"%..", lambda code: code[0].lower(), each) for each in quoted))
    text = data.decode("utf-8", "replace").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    yield from (text, text.replace('"', "&quot;").replace("'", "&#x27;"), data.hex(), data.hex().upper(), data.hex(" "), data.hex(":"))
    yield from _base64(data)


def _base64(data: bytes) -> Iterator[str]:
    """Wherever it begins in what was encoded: of `user:secret` only the characters that the neighbours have no part in."""
    import base64

    for before in range(3):
        whole = base64.b64encode(b"\0" * before + data).decode().rstrip("=")
        core = whole[-(-8 * before // 6) : (before + len(data)) * 8 // 6]
        yield from (core, core.replace("+", "-").replace("/", "_"))

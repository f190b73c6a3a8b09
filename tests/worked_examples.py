"""Worked examples of a document, as files and commands: what a reader would copy is what a test runs.

    example = of("To add a cluster")          # the section of CONTRIBUTING.md with this heading, up to the next one of its depth
    example.files                             # {"mylab/queue.py": "…", "conf/cluster/queue.yaml": "…"}
    example.commands                          # [["+exp=toy", "cluster=queue"], …]: the words behind `python -m launcher`
    example.write(tmp_path)                   # the files, below there; an __init__.py in every directory of Python files

    typed("Handing a model on", README)       # the command lines of an indented block there, as they are but for comments

A fenced block whose first line is a comment with a path (`# mylab/queue.py`) and nothing else is that file, this line included; before
it may stand `# @package _global_`, which Hydra wants first. Of all other blocks the lines that begin with `python -m launcher ` are
commands; a comment behind one is none of its words.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from helpers import REPO

CONTRIBUTING, README = REPO / "CONTRIBUTING.md", REPO / "README.md"

_FENCED = re.compile(r"^(?P<indent> *)```[^\n]*\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_PATH = re.compile(r"#+ *(?P<path>[\w.-]+(/[\w.-]+)*\.\w+)")


@dataclass(frozen=True)
class Example:
    files: dict[str, str]
    commands: list[list[str]]

    def write(self, home: Path) -> None:
        for name, text in self.files.items():
            place = home / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
            if name.endswith(".py"):
                for folder in (home / name).relative_to(home).parents[:-1]:
                    (home / folder / "__init__.py").touch()


def of(heading: str, document: Path = CONTRIBUTING) -> Example:
    """Raises LookupError where the document has no such section, or it has no file."""
    return _example(section(document.read_text(encoding="utf-8"), heading), f"{document.name}: {heading}")


def typed(heading: str, document: Path) -> list[str]:
    """Raises LookupError where the document has no such section, or it has no command line."""
    lines = re.findall(r"^ {4}(python -m launcher .*)$", section(document.read_text(encoding="utf-8"), heading), re.MULTILINE)
    if not lines:
        raise LookupError(f"{document.name}: {heading} has no command line")
    return [re.sub(r"\s+# .*$", "", line).strip() for line in lines]


def section(text: str, heading: str) -> str:
    """What stands below a heading, up to the next one of its depth or a lesser. Raises LookupError."""
    found = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    if found is None:
        raise LookupError(f"no section {heading!r}")
    rest, depth = text[found.end() :], len(found[1])
    plain = _FENCED.sub(lambda block: re.sub(r"[^\n]", ".", block[0]), rest)  # a comment in a block is no heading
    end = re.search(rf"^#{{1,{depth}}} ", plain, re.MULTILINE)
    return rest[: end.start()] if end else rest


def _example(text: str, where: str) -> Example:
    files: dict[str, str] = {}
    commands: list[list[str]] = []
    for block in _FENCED.finditer(text):
        body = re.sub(rf"^{block['indent']}", "", block["body"], flags=re.MULTILINE)
        first = _PATH.fullmatch(body.removeprefix("# @package _global_\n").partition("\n")[0].strip())
        if first is not None:
            files[first["path"]] = body
        else:
            found = re.findall(r"^python -m launcher (.*)$", body, re.MULTILINE)
            commands += [shlex.split(words, comments=True) for words in found]
    if not files:
        raise LookupError(f"{where}: no fenced block begins with the path of a file")
    return Example(files, commands)

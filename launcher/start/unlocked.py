"""Whether the key is there that a run needs: asked before any process of it starts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from launcher.config import tree
from launcher.errors import KeyFault
from launcher.rundir.rundir import RunDir
from launcher.trust import vault, vault_key


def check(config: Mapping[str, Any], here: RunDir | None = None) -> None:
    """`here`: where the run goes on that has the config. Raises KeyFault or RunError in one line; nothing has changed then."""
    environment = {**os.environ, **_of_the_job(config)}
    if config.get("train", {}).get("encrypt"):
        vault_key.needed("train.encrypt=true", environment)
        vault.check()
    marks = dict(_marks(here.checkpoints)) if here is not None else {}
    if not marks:
        return
    vault.check()
    name, newest = next(iter(marks.values())), next(iter(marks))
    ours = vault.mark(vault_key.needed(f"{here}: its checkpoints are encrypted (with the key {newest[:8]}), and going on", environment))
    if ours not in marks:  # any: a header may be damaged
        raise KeyFault(
            f"{here}: {name} is encrypted with the key {newest[:8]}, and yours is {ours[:8]}; set {vault_key.VARIABLE} or {vault_key.FILE} "
            "to the one that it was written with; nothing was changed"
        )


def _of_the_job(config: Mapping[str, Any]) -> Mapping[str, str]:
    """A batch job gets this one of its config; a key itself never lies there."""
    path = tree.look_up(config, f"cluster.env.{vault_key.FILE}")
    return {vault_key.FILE: path} if isinstance(path, str) else {}


def _marks(folder: Path) -> Iterator[tuple[str, str]]:
    """Of the keys of sealed files, the newest checkpoints first: the mark, and a file that has it."""
    found: dict[str, str] = {}
    with suppress(OSError):
        for path in sorted(folder.glob("step_*"), reverse=True):
            for file in sorted(path.iterdir()):
                with suppress(OSError):
                    if mark := vault.key_of(vault.start_of(file)):
                        found.setdefault(mark, f"{path.name}/{file.name}")
    yield from found.items()

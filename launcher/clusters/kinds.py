"""To which cluster a run was sent: the class that its frozen config names, for those who read no yaml and want no option.

What a run directory says is anybody's word. A class of ours is imported as it stands there; one of a user's own package only where the run
says that it trusts it, this user has given that trust (launcher/compose/trusted.py notes it), and nobody else can have written the run.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import cast

from launcher.clusters.batch import Batch
from launcher.clusters.protocol import Cluster
from launcher.errors import ConfigError, RunError
from launcher.rundir.rundir import RunDir
from launcher.trust import noted, owner, reading

_OURS = "launcher.clusters."
_TARGET = re.compile(r"^cluster:\n(?: .*\n)*?  _target_: ([A-Za-z_]\w*(?:\.[A-Za-z_]\w*){1,9})$", re.MULTILINE | re.ASCII)
_TRUST = re.compile(r"^trust:\n((?:- .*\n)+)", re.MULTILINE)
_CONFIG_BYTES = 1 << 18


class Unknown(Batch):
    """Of a run whose config does not say: what is true of all of them."""


def of(run: RunDir) -> type[Cluster]:
    """Raises RunError where the config does not say, or names what may not be imported."""
    try:
        text = reading.whole(run.config, _CONFIG_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise RunError(f"{run.config} cannot be read ({error.strerror or error}), so it is not known on which cluster it is") from error
    found = _TARGET.search(text)
    if found is None:
        raise RunError(f"{run.config} does not say on which cluster it is")
    target = found[1]
    if not target.startswith(_OURS):
        _refuse_foreign(run, text, target)
    return named(target, str(run))


def named(target: str, where: str) -> type[Cluster]:
    """The class itself; what it is called has been looked at. Raises RunError."""
    module, _, name = target.rpartition(".")
    try:
        kind = getattr(import_module(module), name, None)
    except ImportError as error:
        raise RunError(f"{where}: its cluster {target} cannot be imported ({error})") from error
    if not isinstance(kind, type) or Cluster not in kind.__mro__:
        raise RunError(f"{where}: {target} is no cluster; it has to inherit launcher.clusters.protocol.Cluster")
    return cast("type[Cluster]", kind)


def _refuse_foreign(run: RunDir, text: str, target: str) -> None:
    from launcher.config import targets  # reads source, which few need

    listed = _TRUST.search(text)
    said = {line[2:] for line in listed[1].splitlines()} if listed else set[str]()
    given = noted.words(noted.TRUSTED)
    trust = [name for name in said if target.startswith(f"{name}.") and any(f"{name}.".startswith(f"{known}.") for known in given)]
    if not trust:
        raise RunError(f"{run}: its cluster {target} is of a package that you do not trust; look through the run, and resume it to say so")
    if why := owner.run_fault(run.path):
        raise RunError(f"{run}: its cluster {target} is not asked, for {why}")
    try:
        targets.check_trust(trust)
        targets.check({"cluster": {"_target_": target}}, trust)
    except ConfigError as error:
        raise RunError(f"{run}: {error}") from error

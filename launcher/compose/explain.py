"""Hydra's errors, several lines each, as one that names the key and the nearest that exists."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from launcher import CONF
from launcher.config import tree
from launcher.config.config import GROUPS
from launcher.config.targets import nearest

SEVERAL = r"(?:Ambiguous value for argument|Sweep parameters) '([^']+)'"
"""Hydra's words for a comma that would make a sweep of a run."""


def explain(error: Exception, arguments: list[str]) -> str:
    """Hydra's several lines as one that names the key and the nearest that exists."""
    text = f"{error}\n{error.__cause__ or ''}"
    missing = re.search(r"Could not (?:override|append|delete|find)[^']*'([^']+)'", text)
    unknown = re.search(r"Key '([^']+)' (?:is )?not in", text)
    if missing and "Available options in" in text:
        group, _, choice = missing.group(1).rpartition("/")
        choices = re.findall(r"^\t(\S+)$", text.split("Available options in", 1)[1], flags=re.M)
        return f"{group}={choice}: no such choice{nearest(choice, choices)}"
    if present := re.search(r"Could not append to config\. An item is already at '([^']+)'", text):
        return f"{present[1]}: it is there already; type {present[1]}=… without +"
    if missing or unknown:
        key = missing.group(1) if missing else unknown.group(1) if unknown else ""
        full = re.search(r"full_key: (\S+)", text)
        key = full.group(1) if full and "." in full.group(1) else key
        if key == "exp":
            return "exp: what this yaml sets would go below `exp`; its first line must be: # @package _global_"
        return f"{key}: no such key{_suggest(key, known_keys(arguments))}"
    several = re.search(SEVERAL, text)
    if several:
        return f"{several.group(1)}: several values for one run; add -m to train each, or type key=[a,b] for a list"
    if isinstance(error, OverrideParseException):
        if re.search(r"[{,]\s*(['\"])[^'\"]*\1\s*:", error.override):  # as JSON and yaml have it, and Hydra's grammar has not
            return f"{error.override}: this cannot be read; leave out the quotes around keys in braces: {{a:1}}"
        return f"{error.override}: this cannot be read; type key=value, and quote what has spaces or signs in it: \"key='a b'\""
    merging = re.search(r"Error merging override (\S+)", text)
    if merging:
        return f"{merging.group(1)}: {_plainly(text.splitlines()[1])}"
    first, *more = text.strip().splitlines()
    detail = f" {more[0]}" if more and first.endswith(":") else ""
    full = re.search(r"full_key: (\S+)", text) if detail else None
    return f"{full.group(1) if full else getattr(error, 'override', None) or 'config'}: {_plainly(first)}{detail}"


_PLAINLY = {
    "Incompatible key type": "a key there is no text; quote it, or leave it out",
    "Cannot merge DictConfig with ListConfig": "keys with values belong there and no list; type key=value for each",
    "is not Optional": "null cannot be there; leave it out",
}
"""OmegaConf's words for a kind of value, which are about its own classes."""


def _plainly(text: str) -> str:
    return next((ours for theirs, ours in _PLAINLY.items() if theirs in text), text)


def _suggest(key: str, known: list[str]) -> str:
    """The same word elsewhere (`lr`: optim.lr), or else what is nearest among the keys beside it."""
    parent, dot, word = key.rpartition(".")
    if parent in ("cluster.env", "cluster.sbatch", "cluster.srun") and parent in known:
        return f"; to add it there, type +{key}=…"
    if parent.startswith("optim.groups"):  # the dots of a pattern are no levels of keys
        return "; to add a pattern there, type '+optim.groups={…}'"
    if parent.endswith(".options") and parent in known:  # keywords of another package, which no yaml of ours spells out
        return f"; to add it there, type +{key}=…"
    elsewhere = [name for name in known if name.rpartition(".")[2] == word]
    if elsewhere:
        return f"; did you mean {elsewhere[0]}?"
    beside = {name.removeprefix(parent + dot) for name in known if name.rpartition(".")[0] == parent and "[" not in name} - {"_target_"}
    return nearest(word, sorted(beside), prefix=parent + dot)


def known_keys(arguments: list[str]) -> list[str]:
    """Every key of the config that the group choices among `arguments` compose, for suggestions."""
    GlobalHydra.instance().clear()
    choices = [word for word in arguments if re.match(rf"\+?({'|'.join(GROUPS)})=[\w-]+$", word)]
    extra = [after for flag, after in itertools.pairwise(arguments) if flag in ("--config-dir", "-cd")]
    search = [f"hydra.searchpath=[{','.join(f'file://{Path(path).resolve()}' for path in extra)}]"] if extra else []
    for overrides in ([*choices, *search], []):
        try:
            with initialize_config_dir(str(CONF), **version_base()):
                config = compose("config", overrides=overrides)
        except (HydraException, OmegaConfBaseException):
            continue
        return [*GROUPS, *(path for path, _ in tree.walk(OmegaConf.to_container(config)))]
    return list(GROUPS)


def version_base() -> dict[str, str]:
    """1.3 warns where version_base is left out (and changes directory as 1.1 did), 1.4 warns where it is given."""
    return {"version_base": "1.3"} if hydra.__version__ < "1.4" else {}

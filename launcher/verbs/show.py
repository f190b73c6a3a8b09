"""`render` and `plan`: what a run would be. They write nothing and import nothing that starts one."""

from __future__ import annotations

from launcher.compose.compose import compose
from launcher.compose.freeze import Frozen, freeze
from launcher.errors import ConfigError
from launcher.trust import terminal


def render(words: list[str]) -> int:
    """Print the script that `run` would start."""
    terminal.exactly(_frozen(words, "render").script)
    return 0


def plan(words: list[str]) -> int:
    """Print the frozen plan as JSON."""
    print(_frozen(words, "plan").plan.to_json(), end="")
    return 0


def _frozen(words: list[str], verb: str) -> Frozen:
    if "-m" in words or "--multirun" in words:
        raise ConfigError(f"{verb} shows one run; leave out --multirun")
    frozen: list[Frozen] = []
    compose(words, lambda config, overrides: frozen.append(freeze(config, overrides)))
    if not frozen:
        raise SystemExit(0)  # --cfg, --info and the like: Hydra has answered
    return frozen[0]

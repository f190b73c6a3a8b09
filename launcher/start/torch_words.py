"""Variables of the user's that torch reads: a word there that it does not know ends every process, with a traceback from each."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Mapping

from launcher.errors import ConfigError
from launcher.trust import program

_HARMLESS = (
    *("TORCH_HOME", "TORCH_EXTENSIONS_DIR", "TORCH_CUDA_ARCH_LIST"),
    *("TORCHINDUCTOR_CACHE_DIR", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"),
)
"""Places and lists that many sites set, which no start depends on or only a GPU's; a try takes seconds."""
_READ = re.compile(r"(PY)?TORCH(?!ELASTIC_)\w*")
_DROPPED = re.compile(r"LOGLEVEL|(TORCHELASTIC|PET|ACCELERATE|FSDP)_\w*|(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)")
"""job.sh drops those itself, or sets them right."""
_TRY = """
import torch, torch.distributed as distributed, torch.distributed.run
distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))(torch.ones(1)).sum().backward()
"""
_SECONDS = 60.0
"""A start takes three; one of these words has torch wait for ever."""


def check(environment: Mapping[str, str] = os.environ) -> None:
    """Try them, where there are any, in a process of its own. Raises ConfigError, with torch's own words,
    where it starts without them alone.
    """
    names = tuple(sorted(name for name in environment if _READ.fullmatch(name) and name not in _HARMLESS))
    if names and (problem := _problem(tuple(sorted(environment.items())), names)):
        raise ConfigError(problem)


@functools.cache
def _problem(environment: tuple[tuple[str, str], ...], names: tuple[str, ...]) -> str:
    clean = {name: value for name, value in environment if not _DROPPED.fullmatch(name)}
    clean.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    said = _said(clean)
    if said is None or _said({name: value for name, value in clean.items() if name not in names}, _SECONDS / 3) is not None:
        return ""  # also where the machine is so busy that it may only have been slow
    blamed = [name for name in names if name in said or re.search(rf"(?<!\w){re.escape(clean[name])}(?!\w)", _words(said))] or names
    shown = ", ".join(f"{name}={clean[name]}" for name in blamed)
    return f"{shown}: torch does not start with it ({_words(said)}); unset it, or give it a word that torch knows"


def _said(environment: Mapping[str, str], seconds: float = _SECONDS) -> str | None:
    """On stderr, where it fails."""
    try:
        argv = [sys.executable, "-c", _TRY]  # which looks where it stands first
        done = program.hear(argv, seconds, environment=environment, place="/")
    except program.TooMuchError as error:
        return f"it {error}"
    except TimeoutError:
        return f"it did not come to its end within {seconds:.0f} s"
    except OSError:
        return None
    return (done.err.decode(errors="replace") or f"it ended with status {done.status}") if done.status else None


def _words(said: str) -> str:
    """The exception's, on one line: those behind its name, or on the next line."""
    lines = [re.sub(r"^\[rank0\]:\s*", "", line).strip() for line in said.splitlines() if line.strip()]
    for number in range(len(lines) - 1, -1, -1):
        if found := re.fullmatch(r"[\w.]*(?:Error|Exception):\s*(.*)", lines[number]):
            return " ".join((found[1] or " ".join(lines[number + 1 : number + 2])).split())[:200]
    return lines[-1][:200] if lines else ""

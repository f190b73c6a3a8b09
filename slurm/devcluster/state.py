"""Where everything is, what is remembered between commands, and how to call a program."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

STATE = Path(os.environ.get("DEVCLUSTER_STATE") or "/run/launcher-devcluster")
CONF = STATE / "slurm.conf"
LOGS = STATE / "log"
MOUNTS = STATE / "mnt"
"""Mounts made below this directory of the host appear on the nodes too."""

MARK = "LAUNCHER_DEVCLUSTER_OF"
"""In the environment of every process that this program leaves behind, with STATE and the head node's network: the network
namespace of whoever calls, for a container on this host may have a cluster of its own and shows its processes here."""

NETWORK = "10.213.0"
HEAD = f"{NETWORK}.1"
BRIDGE = "ldcbr0"
MOST_NODES = 32


class Failed(Exception):
    """What went wrong and what to do about it, in one line or with the last lines of a log."""


class Misused(Exception):
    """A command that does not exist, or words it does not take."""


class Shape(TypedDict):
    """What `up` was asked for, and what `set` changed since."""

    nodes: int
    accounting: bool
    settings: dict[str, str]


def names(count: int) -> list[str]:
    return [f"node{n}" for n in range(1, count + 1)]


def address(node: str) -> str:
    return f"{NETWORK}.{10 + int(node.removeprefix('node'))}"


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def load() -> Shape:
    """The cluster that `up` finished. Raises Failed where there is none, or only one of before a reboot."""
    try:
        kept = json.loads((STATE / "cluster.json").read_text())
    except FileNotFoundError:
        kept = {}
    if kept.pop("boot", None) != _boot():
        raise Failed("no cluster is up: cluster up")
    return kept


def save(shape: Shape) -> None:
    (STATE / "cluster.json").write_text(json.dumps({"boot": _boot(), **shape}))


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One command at a time. A STATE in which nothing but the lock is left is removed with it, so that whoever waited must look again."""
    check_place()
    while True:
        STATE.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            lock = (STATE / "lock").open("a")
        except FileNotFoundError:
            continue
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_file(lock.fileno(), STATE / "lock"):
                continue
            STATE.chmod(0o755)
            try:
                yield
            finally:
                if [path.name for path in STATE.iterdir()] == ["lock"]:
                    shutil.rmtree(STATE)
            return


def _is_file(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    return False


def check_place() -> None:
    """SLURM's files know no quoting, a socket's path ends at 107 bytes, and `down` removes the whole directory."""
    if not re.fullmatch(r"/[\w./-]{1,70}", str(STATE)) or STATE.parent == STATE:
        raise Failed(f"DEVCLUSTER_STATE={STATE}: an absolute path of at most 70 letters, digits and . _ - / is needed")
    found = {path.name for path in STATE.iterdir()} if STATE.is_dir() else set()
    # mount points are what somebody's rm -rf of a living cluster leaves
    if "lock" not in found and any(not re.fullmatch(r"mnt|node\d+", name) for name in found):
        raise Failed(f"DEVCLUSTER_STATE={STATE} is not a directory of this program, and down would remove it: name another")


def run(*argv: str | Path, check: bool = True, timeout: float = 30) -> str:
    """A program's stdout. Raises Failed with the line of its stderr that says why."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_", "SRUN_", "SINFO_"))}
    env = {**kept, "SLURM_CONF": str(CONF)}
    try:
        done = subprocess.run(argv, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise Failed(f"{Path(argv[0]).name} gave no answer in {timeout:g} s") from None
    if check and done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
        raise Failed(f"{' '.join(str(word) for word in argv)}: {next((line for line in said if 'error: ' in line), said[-1])}")
    return done.stdout


def daemon_path(name: str) -> str:
    """Debian keeps daemons in /usr/sbin, which is not on everybody's PATH."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or ""

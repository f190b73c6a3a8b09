"""What a first run may meet: each condition is a context that makes it so and takes it back, however the run ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from peers.contenders import REPO, Wish

CLUSTER = REPO / "slurm/devcluster/cluster"
ALLOCATION = "interactive"
"""Name of the job from inside which another is submitted."""

_HIDDEN_HERE = """set -e
for directory in $(printf %s "$PATH" | tr : ' '); do
    [ -e "$directory/sacct" ] || continue
    directory=$(readlink -f "$directory")
    layer="$PWD/.hidden$directory"; mkdir -p "$layer"
    mknod "$layer/sacct" c 0 0
    mount -t overlay overlay -o "ro,lowerdir=$layer:$directory" "$directory"
done
exec "$@"
"""


def _as_it_is(argv: list[str]) -> list[str]:
    return argv


def _without_sacct(argv: list[str]) -> list[str]:
    """White-outs, seen by this command alone."""
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", _HIDDEN_HERE, "sh", *argv]


def _in_an_allocation(argv: list[str]) -> list[str]:
    """As typed in the shell of an interactive job."""
    return [
        "salloc",
        f"--job-name={ALLOCATION}",
        "--nodes=1",
        "--ntasks=1",
        "--cpus-per-task=1",
        "--mem=1G",
        "--time=60",
        "srun",
        "--ntasks=1",
        *argv,
    ]


@dataclass(frozen=True)
class Condition:
    name: str
    make: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    wrap: Callable[[list[str]], list[str]] = _as_it_is
    wish: Wish = Wish()  # noqa: RUF009 (frozen)
    bound: int = 180
    """Seconds for the whole run."""
    directory: str = "run"
    env: tuple[tuple[str, str], ...] = ()


def cluster(*words: str) -> str:
    done = subprocess.run([sys.executable, CLUSTER, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"cluster {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


@contextlib.contextmanager
def _hidden(*commands: str) -> Generator[None]:
    try:
        for command in commands:
            cluster("hide", "all", command)
        yield
    finally:
        for command in commands:
            cluster("show", "all", command)


_OWN_NAME = r"""
sed "s/^[0-9.]* $0\$/127.0.1.1 $0/" /etc/hosts >"$1"
mount --bind "$1" /etc/hosts
[ "$(hostname --ip-address)" = 127.0.1.1 ] || { umount /etc/hosts; exit 1; }
"""


@contextlib.contextmanager
def _loopback() -> Generator[None]:
    """As Debian's installer leaves a node: its own name is 127.0.1.1 to itself, the others' names are right."""
    nodes = sorted(set(subprocess.run(["sinfo", "-hN", "-o%N"], capture_output=True, text=True, check=True).stdout.split()))
    done: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        try:
            for node in nodes:
                cluster("exec", node, "--", "sh", "-e", "-c", _OWN_NAME, node, f"{place}/{node}")
                done.append(node)  # what lies under ours is the cluster's own
            yield
        finally:
            for node in done:
                cluster("exec", node, "--", "umount", "/etc/hosts")


@contextlib.contextmanager
def _listener() -> Generator[None]:
    """Somebody's web server has the port that torchrun takes by default."""
    command = [sys.executable, CLUSTER, "exec", "node1", "--", sys.executable, "-m", "http.server", "29500"]
    null = subprocess.DEVNULL
    with subprocess.Popen(command, cwd="/", stdin=null, stdout=null, stderr=null) as server:
        try:
            time.sleep(1)
            if server.poll() is not None:
                raise RuntimeError("nothing listens on port 29500 of node1")
            yield
        finally:
            server.terminate()


def usable() -> str:
    """Why no run can be started here; empty if one can."""
    if os.geteuid() != 0:
        return "the development cluster needs root"
    if shutil.which("sbatch") is None:
        return "no SLURM is installed (slurm/devcluster)"
    if subprocess.run([sys.executable, CLUSTER, "status"], capture_output=True, check=False).returncode:
        return "the development cluster is not up: slurm/devcluster/cluster up"
    return ""


def accounting() -> bool:
    """Whether sacct has a database to ask."""
    return subprocess.run(["sacct", "--noheader"], capture_output=True, check=False).returncode == 0


def slurm_version() -> str:
    return subprocess.run(["sbatch", "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]


@contextlib.contextmanager
def _preempting() -> Generator[None]:
    """Once, when a job has run for 25 s: one with priority takes all nodes for a moment."""
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(1):
            ages = subprocess.run(["squeue", "-h", "-p", "batch", "-t", "RUNNING", "-o", "%M"], capture_output=True, text=True, check=False)
            if any(minutes != "0" or int(seconds) >= 25 for minutes, _, seconds in (age.rpartition(":") for age in ages.stdout.split())):
                wish = ["--partition=urgent", "--nodes=3", "--exclusive", "--time=1", "--output=/dev/null", "--wrap=sleep 1"]
                subprocess.run(["sbatch", *wish], cwd="/", capture_output=True, check=True)
                return

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        is_over.set()
        watching.join()


def _of_a_script(name: str, script: str) -> tuple[Condition, Condition]:
    wish = Wish(script=script)
    return Condition(name, wish=wish, bound=240), Condition(f"{name} preempted", _preempting, wish=wish, bound=300)


_SLOW = (("SAVE_SECONDS", "40"), ("TOY_SABOTAGE", "slow_save"))

CONDITIONS = {
    each.name: each
    for each in (
        Condition("plain"),
        Condition("no sacct", lambda: _hidden("sacct"), _without_sacct),
        Condition("spaces in the path", directory="a run of mine"),
        Condition("port 29500 busy", _listener),
        Condition("own name is 127.0.1.1", _loopback),
        Condition("inside an allocation", wrap=_in_an_allocation),
        Condition("no scontrol on nodes", lambda: _hidden("scontrol")),
        Condition("40 s saves under a 2 min limit", wish=Wish(minutes=2, warning=60), bound=900, env=_SLOW),
        Condition("sweep of 50", wish=Wish(members=50, minutes=30, memory_gb=20), bound=3600),
        *_of_a_script("DDP script", "ddp.py"),
        *_of_a_script("Accelerate script", "nlp_example.py"),
        *_of_a_script("Lightning script", "mnist.py"),
        *_of_a_script("Trainer script", "text_trainer.py"),
        *_of_a_script("torchtitan-shaped script", "titan.py"),
    )
}


def scratch_default() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "launcher-first-run"

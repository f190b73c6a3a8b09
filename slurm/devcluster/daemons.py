"""The daemons of the head node; how one is started, and how long it is waited for."""

from __future__ import annotations

import contextlib
import secrets
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from processes import end, marked, marked_environment
from state import CONF, LOGS, STATE, Failed, daemon_path, run


def daemon(name: str, *argv: str, env: dict[str, str] | None = None) -> None:
    """Starts what puts itself into the background; what it says before that goes to its log."""
    log = LOGS / f"{name}.log"
    with log.open("ab") as stream:
        env = {**marked_environment(), **(env or {})}
        done = subprocess.run([daemon_path(name), *argv], env=env, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, check=False)
    if done.returncode:
        raise Failed(f"{name} does not start\n{tail(log)}")


def until(done: Callable[[], bool], seconds: float, otherwise: Callable[[], str], *logs: Path) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise Failed("\n".join([f"{otherwise()} ({seconds:g} s)", *(f"{log.name}:\n{tail(log)}" for log in logs)]))
        time.sleep(0.1)


def tail(log: Path, lines: int = 15) -> str:
    with contextlib.suppress(OSError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    return f"{log} is not there"


def start_munge() -> None:
    if not marked("munged"):
        key = STATE / "munge.key"
        if not key.exists():
            key.touch(mode=0o600)
            key.write_bytes(secrets.token_bytes(128))
        places = {"socket": "munge.socket", "key-file": key.name, "pid-file": "munged.pid", "seed-file": "munged.seed"}
        words = [f"--{option}={STATE / file}" for option, file in places.items()]
        daemon("munged", "--force", *words, f"--log-file={LOGS}/munged.log")


def start_controller() -> None:
    if not marked("slurmctld"):
        daemon("slurmctld", "-f", str(CONF))
        until(lambda: "is UP" in run("scontrol", "ping", check=False), 10, lambda: "slurmctld does not answer", LOGS / "slurmctld.log")


def stop_controller() -> None:
    end(lambda: marked("slurmctld"), signal.SIGTERM)

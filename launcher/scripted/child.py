"""The user's program as a child of this process: with what torchrun has told it, told when to stop, gone when this process is."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from launcher.code.snapshot import SCRIPT
from launcher.devices import CPU
from launcher.errors import ConfigError
from launcher.node.deathsig import die_with_parent
from launcher.plan import Plan
from launcher.rundir.rundir import RunDir
from launcher.scripted.ears import STOPS, Ears

POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 10.0
"""For a program that a scheduler has told by itself: a second signal would end one that has put its handlers away and is about to leave."""


class Child:
    def __init__(self, run: RunDir, plan: Plan, script: Mapping[str, Any], *, goes_on: bool) -> None:
        """Start it. `goes_on`: an earlier attempt has begun. Raises ConfigError where it cannot be started."""
        self.name = str(script["file"])
        self._signal = signal.Signals[f"SIG{script['stop_signal']}"]
        self._ears = Ears()
        words = [str(word) for word in (*script["args"], *(script["resume_args"] if goes_on else ()))]
        argv, environment = _command(run, plan, script, words)
        environment["LAUNCHER_STOP_SIGNAL"] = str(script["stop_signal"])
        run.checkpoints.mkdir(exist_ok=True)
        try:
            self._process = subprocess.Popen(argv, env=environment, preexec_fn=self._as_child)
        except (OSError, subprocess.SubprocessError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise ConfigError(f"script={self.name}: it cannot be started ({why}); its first line names its interpreter") from error

    def _as_child(self) -> None:
        """Between fork and exec. The signals of the job may reach it by themselves, before ours and of another kind: only the one that it
        asks for has an effect."""
        os.setpgid(0, 0)
        die_with_parent()
        for number in STOPS:
            signal.signal(number, signal.SIG_DFL if number == self._signal else signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)

    def wait(self, is_to_stop: Callable[[], bool], beside: Callable[[], None]) -> tuple[int, str]:
        """Until it has ended: its exit code, below zero the signal it died of; and what asked it to stop: `signal`, `file`, `peer` where
        torchrun ends us because another process has failed, or nothing. `is_to_stop` and `beside` are called meanwhile."""
        asked, due = "", 0.0
        while (code := self._process.poll()) is None:
            heard = self._ears.listen(POLL_SECONDS)
            beside()
            if heard is not None and not heard.is_to_all:
                asked = "peer"
                self._process.send_signal(self._signal)
            elif not asked and (asked := "signal" if heard else "file" if is_to_stop() else ""):
                print(f"launcher: {self.name} is asked to stop ({self._signal.name}) and has all the time there is", flush=True)
                has_it = heard is not None and heard.number == self._signal
                due = time.monotonic() + (_PATIENCE_SECONDS if has_it else 0.0)
            if due and time.monotonic() >= due:
                due = 0.0
                self._process.send_signal(self._signal)
        with contextlib.suppress(OSError):  # what it has started and left: the next attempt would meet it
            os.killpg(self._process.pid, signal.SIGKILL)
        return code, asked


def die_alike(code: int) -> None:
    """Of the signal that it died of, so that torchrun and whoever reads its table see what a process without us would have shown."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # one core of it is enough
    with contextlib.suppress(OSError, ValueError):
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)


def _command(run: RunDir, plan: Plan, script: Mapping[str, Any], words: list[str]) -> tuple[list[str], dict[str, str]]:
    """What is executed and its environment. Python finds what lies beside a file, as always; of a module, what lies in the directory that
    the command was typed in, or the copy of it."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if plan.world.device == CPU:  # Accelerate would train one model in each process, and another program take the GPU that is there
        environment |= {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    copied = Path(plan.project, SCRIPT)
    places = [_ours_alone(run, plan) if place == plan.project else place for place in environment.get("PYTHONPATH", "").split(os.pathsep)]
    if script["module"]:
        places.insert(0, str(copied if copied.is_dir() else plan.directory))
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    if script["module"]:
        return [sys.executable, "-m", str(script["file"]), *words], environment
    environment.pop("PYTHONSAFEPATH", None)
    file = Path(script["file"])
    if (copied / file.name).is_file():
        file = copied / file.name
    return [*([sys.executable] if file.suffix == ".py" else []), str(file), *words], environment


def _ours_alone(run: RunDir, plan: Plan) -> str:
    """A directory that has `launcher` and nothing else: our `models` and `data` would be found before packages of the script's own with
    those names. The project itself where there are no links."""
    place = run.attempts / ".path"
    try:
        place.mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):  # another rank's
            (place / "launcher").symlink_to(Path(plan.project, "launcher"))
        return str(place)
    except OSError:
        return plan.project

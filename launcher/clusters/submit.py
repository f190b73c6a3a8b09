"""The only place that starts a process."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from launcher import PROJECT
from launcher.errors import BY_EXIT_CODE, ClusterError, ConfigError, LaunchError, NoAnswer, NoScheduler
from launcher.trust.secret import mask

if TYPE_CHECKING:
    import subprocess


def start(argv: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a job script in a session of its own: a Ctrl-C typed here reaches us alone, and we decide what it means."""
    import subprocess  # here, for most who ask whether there is a scheduler start nothing

    return _ours(argv, subprocess.DEVNULL)


def linked(argv: Sequence[str]) -> subprocess.Popen[bytes]:
    """A connection that is talked through: its three streams are pipes. Raises NoScheduler where its program is not there."""
    import subprocess

    from launcher.node.deathsig import die_with_parent

    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(argv, bufsize=0, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True, preexec_fn=die_with_parent)
    except FileNotFoundError:
        raise NoScheduler(f"{argv[0]}: not found; install it on {os.uname().nodename}, or type cluster=local") from None


def as_node(argv: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """The processes of a node, on it; what they say before they have logs of their own goes into this one. Raises OSError."""
    import subprocess

    from launcher.node.deathsig import die_with_parent
    from launcher.trust import writing

    descriptor = writing.to_append(log)
    try:
        return subprocess.Popen(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    finally:
        os.close(descriptor)


def _ours(argv: Sequence[str], stdin: int, stdout: int | None = None, place: Path | None = None) -> subprocess.Popen[bytes]:
    """The kernel kills it when this process dies, however it dies; torchrun's workers ask the same of torchrun."""
    import subprocess

    from launcher.node.deathsig import die_with_parent

    return subprocess.Popen(argv, stdin=stdin, stdout=stdout, cwd=place, start_new_session=True, preexec_fn=die_with_parent)


def end(process: subprocess.Popen[bytes], grace: float = 0.0) -> None:
    """Of what `start` has started: told first where it needs `grace` seconds to end others, else at once."""
    import subprocess

    if grace and process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    process.wait()


TIDY_SECONDS = 10.0
"""From a signal to the end of a process of ours, which may be in the middle of a long call of a library."""
_COMPLAINT = 1 << 14
"""Bytes: longer is no complaint, and is searched for words."""


class Reply(NamedTuple):
    """What a program of the scheduler answered."""

    status: int
    out: str
    err: str
    program: str
    """Its name, and the cluster that it was to ask where that is another."""

    @property
    def words(self) -> str:
        """Its own words of complaint, on one line, without `program: error:` before each."""
        lines = [re.sub(r"^\w+: (error: )?", "", line).strip() for line in self.err.splitlines()]
        return "; ".join(line for line in lines if line) or f"it ended with status {self.status} and no word"


def ask(argv: list[str], seconds: float, text: str = "", environment: Mapping[str, str] | None = None) -> Reply:
    """Run a program of the scheduler, in this environment, by default our own. Raises ClusterError where it is missing, does not answer
    within `seconds` or does not stop answering.
    """
    from launcher.trust import program

    name = " ".join([argv[0], *(word for word in argv[1:] if word.startswith("--clusters="))])
    try:
        said = program.hear(argv, seconds, text.encode(errors="replace"), environment)
    except FileNotFoundError:
        raise NoScheduler(
            f"{argv[0]}: not found; type this on a login node of the cluster, or cluster=local to train on this machine"
        ) from None
    except TimeoutError:
        raise NoAnswer(f"{name} did not answer within {seconds:.0f} s") from None
    except program.TooMuchError as error:
        raise NoAnswer(f"{name} {error}") from None
    except OSError as error:
        raise ClusterError(f"{argv[0]} cannot be run ({error.strerror})") from error
    return Reply(said.status, _text(said.out), _text(said.err[:_COMPLAINT]), name)


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace").replace("\r\n", "\n")


class Found(NamedTuple):
    """What preparing the data has found."""

    pinned: dict[str, Any]
    """Keywords of the constructor."""
    holds: dict[str, int]
    """What a sample has, by a model's keywords: num_classes and others."""


def prepare_data(node: dict[str, Any]) -> Found:
    """Find, download and decode the data in a process of its own, before anything is started: it may import what it likes, its
    progress bar has the terminal, and its error is one line now instead of one per rank later.

    Raises ConfigError or RunError.
    """
    return _prepared("data", node)


def try_model(node: dict[str, Any]) -> None:
    """Have a model's constructor look at what its initial weights are, in a process of its own too. Raises ConfigError."""
    _prepared("model", node)


def look_at_data(config: dict[str, Any], picture: Path) -> dict[str, Any]:
    """What would be trained on (launcher/train/look.py), in a process of its own too. Raises ConfigError or RunError."""
    return _answered("launcher.train.look", "data", {"config": config, "picture": str(picture)})


def time_updates(given: dict[str, Any]) -> dict[str, Any]:
    """How long an update takes on a device (launcher/train/probe.py), in a process of its own too. Raises ConfigError or RunError."""
    return _answered("launcher.train.probe", "train.device_probe", given)


def export(asked: dict[str, Any]) -> dict[str, Any]:
    """Make a folder of a run (launcher/export/make.py), in a process of its own too. Raises ConfigError or RunError."""
    return _answered("launcher.export", "export", asked)


def _prepared(group: str, node: dict[str, Any]) -> Found:
    answer = _answered("launcher.train.prepare", group, {group: node})
    return Found(answer["pinned"], answer["holds"])


def _answered(module: str, group: str, given: dict[str, Any]) -> dict[str, Any]:
    import subprocess

    process = _ours([sys.executable, "-m", module], subprocess.PIPE, subprocess.PIPE, PROJECT)  # where -m looks first
    told = json.dumps({**given, "asked": mask.asked, "directory": str(Path.cwd()), "path": sys.path})
    said = _heard(process, told.encode())
    try:
        answer = json.loads(said.splitlines()[-1])
    except (ValueError, IndexError):
        raise ConfigError(f"{group}: preparing it ended with status {process.returncode} and no answer; see above") from None
    if "error" in answer:
        raise BY_EXIT_CODE.get(answer["exit_code"], LaunchError)(answer["error"])
    return answer


def _heard(process: subprocess.Popen[bytes], told: bytes) -> bytes:
    """All that it says to its end. Who is told to end meanwhile tells it so and waits for it to tidy up; told twice, not any longer."""
    import subprocess

    from launcher.trust.ending import ending

    with ending():
        try:
            return process.communicate(told)[0]
        except KeyboardInterrupt:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(TIDY_SECONDS)
            raise
        finally:
            process.kill()
            process.wait()


def become(module: str, words: list[str]) -> int:
    """Replace this process by `python -m module` (TensorBoard), which would look in the working directory first."""
    start = "import sys; sys.path[:] = filter(None, sys.path); from runpy import run_module as run; "
    argv = [sys.executable, "-c", f"{start}run({module!r}, run_name='__main__', alter_sys=True)", *words]
    sys.stdout.flush()
    os.execv(argv[0], argv)

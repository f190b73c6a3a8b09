"""A place where everything that goes wrong is seen: files that nobody may make, a secret, a module; and one verb called in it."""

from __future__ import annotations

import gc
import io
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
import unicodedata
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from fuzz.texts import MODULE, SECRET, TOUCH
from launcher import errors
from launcher.cli import main

MOST_SECONDS, MOST_BYTES, MOST_CHARACTERS = 2.0, 200 << 20, 1_100
HANGS = 30.0
"""Seconds after which a verb is not waited for."""
VALUE = "-".join(("s3cr3t", "canary", "value", "91"))
CODES = {0, *errors.BY_EXIT_CODE, errors.LaunchError.exit_code}
LEVELS = 8
"""Of directories between the sandbox and where commands are typed: `../` stays within."""


class Hang(BaseException):
    """It did not come back."""


@dataclass
class Answer:
    """How one verb ended."""

    words: tuple[str, ...]
    code: int = 0
    out: str = ""
    err: str = ""
    raised: str = ""
    """A traceback."""
    seconds: float = 0.0
    """Of CPU, with all children that have ended: the machine may have other things to do."""
    memory: int = 0
    faults: list[str] = field(default_factory=list[str])


class Sandbox:
    """Directories of one worker. `home` is where commands are typed; all else in `root` is not the launcher's to touch."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root.joinpath("outside", *(f"level{number}" for number in range(LEVELS)), "home")
        self.canary = root / "canary"
        self.state = root / "state"
        self.home.mkdir(parents=True)
        self.canary.mkdir()
        for place in (self.home.parent, self.home):
            (place / "decoy").write_text("as it was\n")
        self.code = root / "code"
        self.code.mkdir()
        for place in (self.home, self.code):
            (place / f"{MODULE}.py").write_text(f"open({str(self.canary / 'imported')!r}, 'w')\n\n\nclass Thing:\n    pass\n")
        self._before = self.listed()

    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "PYTHONPATH") if name in os.environ}
        paths = [*filter(None, kept.get("PYTHONPATH", "").split(os.pathsep)), str(self.code)]
        places = {
            "HOME": self.root / "user",
            "TMPDIR": self.root / "tmp",
            "XDG_STATE_HOME": self.state,
            "LAUNCHER_CACHE": self.root / "cache",
        }
        for place in places.values():
            place.mkdir(exist_ok=True)
        return {**kept, "PYTHONPATH": os.pathsep.join(paths), **{name: str(place) for name, place in places.items()}, SECRET: VALUE}

    def text(self, text: str) -> str:
        """With the canary's path in it."""
        return text.replace(TOUCH, str(self.canary / "x"))

    def listed(self) -> frozenset[str]:
        """Every path but what is in a run's copy of the code."""
        found = set[str]()
        for place, folders, files in os.walk(self.root):
            found.update(f"{place}/{name}" for name in (*folders, *files))
            folders[:] = [name for name in folders if name != "code"]
        return frozenset(found)

    def clean(self) -> None:
        """As it was at first."""
        for path in sorted(self.listed() - self._before, reverse=True):
            place = Path(path)
            with suppress(FileNotFoundError):
                shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
        self._before = frozenset(path for path in self._before if Path(path).exists())

    def call(self, *words: str, writes: tuple[Path, ...] = ()) -> Answer:
        """One verb, and what is wrong with how it ended. `writes`: where it may; nowhere else is anything new or gone afterwards."""
        before = self.listed()
        answer = _called(words)
        answer.faults += judged(answer)
        allowed = tuple(f"{place}/" for place in (*writes, self.state))
        changed = {path for path in before ^ self.listed() if not f"{path}/".startswith(allowed)}
        for path in sorted(changed):
            answer.faults.append(f"{'canary' if path.startswith(str(self.canary)) else 'outside'}: {path!r}")
        for path in sorted(changed):
            with suppress(OSError):
                shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink()
        return answer

    def secrets_in(self, *places: Path) -> list[str]:
        """Files that hold what nobody may write."""
        paths = [Path(name) for name in self.listed() if name.startswith(tuple(f"{place}/" for place in places))]
        paths = [path for path in paths if path.is_file() and not path.is_symlink()]
        return [f"secret: {path}" for path in paths if VALUE.encode() in path.read_bytes()]


def _called(words: tuple[str, ...]) -> Answer:
    answer = Answer(words)
    saved, streams = (sys.stdout, sys.stderr), [io.TextIOWrapper(io.BytesIO(), "utf-8", newline="\n") for _ in range(2)]
    memory, begun = _memory(), _cpu()
    signal.signal(signal.SIGALRM, _hang)
    signal.setitimer(signal.ITIMER_REAL, HANGS)
    gc.disable()
    sys.stdout, sys.stderr = streams
    try:
        answer.code = main([*words])
    except SystemExit as stop:
        answer.code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception:  # this is the fault that is looked for
        answer.raised = traceback.format_exc()
    except Hang:
        answer.raised = "it did not come back"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.enable()
        sys.stdout, sys.stderr = saved
    answer.seconds, answer.memory = _cpu() - begun, _peak() - memory
    for stream in streams:
        with suppress(ValueError):
            stream.flush()
    answer.out, answer.err = (stream.buffer.getvalue().decode("utf-8", "replace") for stream in streams)
    return answer


def judged(answer: Answer) -> list[str]:
    """What is wrong with an answer, whatever was asked."""
    found = [f"traceback: {answer.raised.strip().splitlines()[-1]}"] if answer.raised else []
    found += ["traceback: printed"] if "Traceback (most recent call last)" in answer.out + answer.err else []
    found += [f"exit code {answer.code}"] if answer.code not in CODES else []
    found += ["secret: printed"] if VALUE in answer.out + answer.err else []
    found += [f"{answer.seconds:.1f} s"] if answer.seconds > MOST_SECONDS else []
    found += [f"{answer.memory >> 20} MB"] if answer.memory > MOST_BYTES else []
    shown = answer.err if answer.words[:1] == ("render",) else answer.out + answer.err
    found += ["terminal: a control character"] if any(map(_commands, shown)) else []
    if answer.code and not answer.raised:
        lines = [line for line in answer.err.splitlines() if not line.startswith("launcher: warning:")]
        found += [] if len(lines) == 1 and lines[0].startswith("launcher: ") else [f"shape: {len(lines)} lines"]
    found += [f"shape: a line of {len(line):,}" for line in answer.err.splitlines() if len(line) > MOST_CHARACTERS][:1]
    return found


def _commands(mark: str) -> bool:
    """Of a terminal; not what joins letters."""
    return unicodedata.category(mark) in ("Cc", "Cf", "Cs", "Zl", "Zp") and mark not in "\n\t\u200c\u200d"


def _hang(number: int, frame: FrameType | None) -> None:
    raise Hang


def _cpu() -> float:
    return time.process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def _memory() -> int:
    """What this process has now; from now on the kernel measures the peak anew."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) << 10 if found else 0

"""The exception tree and the exit codes.

    LaunchError               1   anything below, shown as one line on stderr
    ├── TrainingFailed        1   a rank raised
    │   └── RankLost          1   a rank was killed or hung: nothing says that it would happen again
    ├── ConfigError           2   the command or the config cannot be meant
    ├── RunError              3   the run directory
    │   ├── CheckpointError   3   a checkpoint
    │   └── KeyFault          3   no key, or another than files were encrypted with: nothing says that they are damaged
    ├── ClusterError          4   the cluster refused, or cannot be reached
    │   ├── NoScheduler       4   its programs are not on this machine
    │   └── NoAnswer          4   they are, and nobody answers: what was asked may have been done
    ├── Stopped              75   stopped on request and resumable (EX_TEMPFAIL)
    └── Interrupted         130   Ctrl-C (128 + SIGINT); 143 by SIGTERM and 129 by SIGHUP, where that leaves nothing to go on with

A message says what was asked, why it cannot be, and what to type instead, in one line.
"""

from __future__ import annotations

import re

_CHARACTERS = 1_000
_COMMANDS = (
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
"""Control characters of both kinds but line break and tab, marks for direction, what has no width, halves of characters. Not what joins
letters: names in Persian and families of faces need that."""


def plain(text: str) -> str:
    """What a terminal takes for text, of one line or several: every command in it as its number."""
    return re.sub(_COMMANDS, _number, text)


def _number(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def readable(message: str) -> str:
    """One line as a terminal shows it, of a long one its beginning, and its end, for that says what to type."""
    line = plain(" ".join(message.split()))
    return line if len(line) <= _CHARACTERS else f"{line[: _CHARACTERS * 3 // 4]} … {line[-_CHARACTERS // 4 :]}"


def said(error: Exception) -> str:
    """What is wrong with a file, by the error that reading it raised: of a kind of value Python speaks in words about our code."""
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]}"
    if isinstance(error, TypeError | AttributeError | IndexError) or "to unpack" in str(error):
        return "something in it is of another kind than belongs there"
    return str(error)


class LaunchError(Exception):
    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(readable(message))  # whatever was quoted in it


class TrainingFailed(LaunchError):
    exit_code = 1


class RankLost(TrainingFailed):
    exit_code = 1


class ConfigError(LaunchError):
    exit_code = 2


class RunError(LaunchError):
    exit_code = 3


class CheckpointError(RunError):
    exit_code = 3


class KeyFault(RunError):
    exit_code = 3


class ClusterError(LaunchError):
    exit_code = 4


class NoScheduler(ClusterError):
    exit_code = 4


class NoAnswer(ClusterError):
    exit_code = 4


class Stopped(LaunchError):
    exit_code = 75


class Interrupted(LaunchError):
    exit_code = 130

    def __init__(self, message: str, by: BaseException | None = None) -> None:
        """`by`: what was raised where it came (launcher/trust/ending.py)."""
        super().__init__(message)
        self.exit_code = interrupted(by)


def interrupted(by: BaseException | None) -> int:
    """The exit code of who was told to end by a KeyboardInterrupt, which is Ctrl-C where it has no number of a signal."""
    return 128 + getattr(by, "number", 2)


BY_EXIT_CODE: dict[int, type[LaunchError]] = {
    error.exit_code: error for error in (TrainingFailed, ConfigError, RunError, ClusterError, Stopped, Interrupted)
}
"""Turns the exit code that a rank left in its error file back into the error the launcher raises."""

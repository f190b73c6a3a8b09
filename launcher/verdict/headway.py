"""Whether attempts get a run anywhere, judged in one way for all that start the next one: the launcher on this machine (attend.py), the
batch shell, and where that has no Python, the first node. `python -m launcher.verdict.headway RUN_DIR ATTEMPT LIMIT` prints why that
attempt of a batch job should not begin, or nothing.

An attempt has got somewhere that left a newer checkpoint and spent a tenth of its time between its first step and the last one it saved:
one that trains a step, saves it and ends has spent nothing there.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import RunError
from launcher.rundir.rundir import RunDir, write_atomic
from launcher.trust import reading

LEAST_SHARE = 0.1
"""Of an attempt's time, in training that was kept. Whoever pays nine parts of start-up for one of training would want to hear of it."""
MOST_FRUITLESS = 3
"""Attempts in a row that ended by themselves; one may be a cold file cache."""
MOST_LEFT = 10
"""Attempts in a row that brought no newer checkpoint, whoever ended them."""
MOST_ATTEMPTS = 100
"""That are looked back at."""
GOOD_SHARE = 0.8
"""Of a time limit that is advised, in training."""
_FOREIGN = ("requeued-preempted", "requeued-node", "requeued-doctor", "taken", "")
"""Ends that are not the run's doing; the empty one is of an attempt that had no time to say anything."""


@dataclass(frozen=True)
class Attempt:
    ended: str
    gained: bool
    """It left a newer checkpoint than there was, or whoever stays with a script has seen that it saved."""
    lasted: float | None
    """Seconds; None: nobody has noted it."""
    trained: float
    """Seconds from its first step to the last one that it saved."""
    slowest: float
    """Seconds of its slowest step."""

    @property
    def share(self) -> float:
        """Of its time in training; a whole where that is not known."""
        return self.trained / self.lasted if self.lasted else 1.0

    @property
    def is_good(self) -> bool:
        return self.gained and self.share >= LEAST_SHARE


def note(run: RunDir, attempt: int, **words: str) -> None:
    """For `stuck`: `checkpoint`, the name of the newest one when it began, empty for none; `lasted`, in seconds. A batch job's shell writes
    the same files."""
    with contextlib.suppress(RunError):  # a full disk: then nobody judges it
        for name, word in words.items():
            write_atomic(run.attempt(attempt) / name, f"{word}\n")


def stuck(run: RunDir, numbers: Sequence[int], limit: float | None = None, who: str = "", ended: str = "") -> str:
    """Why no attempt should follow these, the newest last; empty where one may. `limit`: seconds that each may last; `who`: theirs;
    `ended`: how the last one did, where it is not written down yet."""
    bad: list[Attempt] = []
    left, all_left = 0, True
    for attempt in _backwards(run, numbers, ended):
        if attempt.is_good:
            break
        all_left = all_left and not attempt.gained
        left += all_left
        if not _is_foreign(attempt, limit):
            bad.append(attempt)
        if len(bad) >= MOST_FRUITLESS or left >= MOST_LEFT:
            return _reason(bad, left, all_left, limit, who, run)
    return ""


def _is_foreign(attempt: Attempt, limit: float | None) -> bool:
    """Also one that was warned long before its limit: its shortness is not its own."""
    if attempt.ended == "requeued-limit" and attempt.gained:
        return limit is None or attempt.lasted is None or 2 * attempt.lasted <= limit
    return attempt.ended in _FOREIGN


def _reason(bad: Sequence[Attempt], left: int, all_left: bool, limit: float | None, who: str, run: RunDir) -> str:
    of = f" of {who}" if who else ""
    newest = run.newest_checkpoint() or "none"
    timed = [attempt for attempt in bad if attempt.ended == "requeued-limit" and attempt.lasted]
    advice = f"; in a new run: cluster.time={_time(timed, limit)}" if limit and timed and len(timed) == len(bad) else ""
    if all_left:
        return f"{left} attempts{of} in a row brought no new checkpoint (newest: {newest}){advice}"
    if advice:
        return (
            f"{len(bad)} attempts{of} in a row reached their time limit of {limit:.0f} s with less than a tenth of it in training, "
            f"the rest in start-up, evaluation and saves{advice}"
        )
    ends = ", ".join(attempt.ended.removeprefix("requeued-") for attempt in reversed(bad))
    return f"{len(bad)} attempts{of} in a row ended ({ends}) with less than a tenth of their time in training (newest checkpoint: {newest})"


def _time(attempts: Sequence[Attempt], limit: float) -> str:
    """A limit of which most is training, in whole minutes, from what start-up and steps have been seen to take."""
    rest = max(min((attempt.lasted or limit) - attempt.trained, limit) for attempt in attempts)
    wanted = max(rest / (1 - GOOD_SHARE), rest + 10 * max(attempt.slowest for attempt in attempts))
    minutes = math.ceil(wanted / 60)
    return f"{minutes // 60}:{minutes % 60:02d}:00"


# ---------------------------------------------------------------- what is in the directories of attempts


def _backwards(run: RunDir, numbers: Sequence[int], ended: str) -> Iterator[Attempt]:
    """The newest first; read as they are asked for."""
    after = _step(run.newest_checkpoint())
    for number in reversed(numbers):
        place = run.attempt(number)
        before, trained = _step(_word(place / "checkpoint")), _numbers(place / "trained")
        yield Attempt(
            ended=_word(place / "ended") or ended,
            gained=after > before or _word(place / "gained") == "yes",
            lasted=next(iter(_numbers(place / "lasted")), None),
            trained=next(iter(trained), 0.0),
            slowest=trained[1] if len(trained) > 1 else 0.0,
        )
        after, ended = before, ""


def _step(checkpoint: str) -> int:
    digits = checkpoint.rpartition("_")[2]
    return int(digits) if digits.isdecimal() else -1


def _word(path: Path) -> str:
    try:
        return reading.first_line(path)[:200]
    except OSError:
        return ""


def _numbers(path: Path) -> list[float]:
    """Those at the start of a file; none from where a word is not one."""
    found: list[float] = []
    for word in _word(path).split():
        if not word.replace(".", "", 1).isdecimal() or len(word) > 12:
            break
        found.append(float(word))
    return found


def of_job(run: RunDir, attempt: int, limit: float) -> str:
    """Why this attempt of a batch job should not begin, after those before it of the same job with no other's in between."""
    job, first = _word(run.attempt(attempt) / "job"), attempt
    while first > max(0, attempt - MOST_ATTEMPTS) and _word(run.attempt(first - 1) / "job") == job:
        first -= 1
    return stuck(run, range(first, attempt), limit, f"job {job}")


def main(argv: list[str]) -> int:
    print(of_job(RunDir(argv[1]), int(argv[2]), float(argv[3])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))

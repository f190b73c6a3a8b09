"""`logs RUN` and `tensorboard [RUN]`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from launcher.clusters import queues, submit
from launcher.errors import ConfigError
from launcher.rundir import lookup, sweep
from launcher.rundir.rundir import RunDir
from launcher.rundir.tail import Tail
from launcher.trust import reading
from launcher.verdict import standing
from launcher.verdict.jobs import waiting

ASK_EVERY_SECONDS = 5.0
"""Between two questions to a scheduler whether a run that is followed may go on."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]  # raises, as the base class exits
        raise ConfigError(f"{self.prog}: {message}; see python -m launcher --help")


def logs(words: list[str]) -> int:
    """Print the logs of one attempt, all ranks' or one's; with -f follow them, across attempts, until the run ends."""
    parser = _Parser("logs", add_help=False)
    parser.add_argument("run")
    parser.add_argument("-f", "--follow", action="store_true")
    parser.add_argument("--rank", type=int)
    parser.add_argument("--attempt", type=int)
    parser.add_argument("--all", action="store_true")
    asked = parser.parse_args(words)
    run = lookup.find(asked.run, everywhere=asked.all)
    newest = run.newest_attempt()
    attempt = newest if asked.attempt is None else asked.attempt
    if not asked.follow:
        _check(run, attempt, asked.rank)
    _Follower(run, asked.rank, asked.follow).run(attempt)
    return 0


def _check(run: RunDir, attempt: int | None, rank: int | None) -> None:
    if attempt is None:
        raise ConfigError(f"{run} has no attempt yet, so no log; add -f to wait for it")
    if rank is not None and not run.rank_log(attempt, rank).exists():
        raise ConfigError(f"{run} has no log of rank {rank} in attempt {attempt}; see {run.attempts}")
    if not run.attempt(attempt).is_dir():
        raise ConfigError(f"{run} has no attempt {attempt}; the newest is {run.newest_attempt()}")


def _warn_of(path: Path) -> None:
    try:
        with reading.opened(path):
            return
    except FileNotFoundError:  # not yet
        return
    except OSError as error:
        print(f"launcher: warning: {path} cannot be read ({error.strerror})", file=sys.stderr)


class _Follower:
    """The lines of one attempt after the other."""

    def __init__(self, run: RunDir, rank: int | None, follow: bool) -> None:
        self._run = run
        self._rank = rank
        self._follow = follow
        self._tails: dict[str, Tail] = {}
        self._next_question = 0.0
        self._alive = True
        self._told = ""

    def run(self, attempt: int | None) -> None:
        while True:
            alive = self._follow and self._goes_on()  # asked first, so that the read below sees everything
            if attempt is not None:
                self._print(attempt)
            newest = self._run.newest_attempt()
            if self._follow and newest is not None and (attempt is None or newest > attempt):
                attempt, self._tails = newest, {}
                print(f"--- attempt {newest}", flush=True)
            elif not alive:
                return
            else:
                time.sleep(0.2)

    def _print(self, attempt: int) -> None:
        names = [f"rank_{self._rank}.log"] if self._rank is not None else self._names(attempt)
        for name in names:
            if name not in self._tails:
                self._tails[name] = Tail(self._run.attempt(attempt) / name)
                _warn_of(self._tails[name].path)
            tail = self._tails[name]
            mark = "" if name == "rank_0.log" or self._rank is not None else f"[{name.removesuffix('.log').replace('_', ' ')}] "
            for line in tail.lines():
                print(f"{mark}{line}", flush=True)

    def _names(self, attempt: int) -> list[str]:
        found = [path.name for path in self._run.attempt(attempt).glob("rank_*.log")]
        return sorted((name for name in found if name[5:-4].isdecimal()), key=lambda name: (int(name[5:-4]), name))

    def _goes_on(self) -> bool:
        """Whether there may be more. A scheduler is not asked more often than every few seconds."""
        if time.monotonic() >= self._next_question:
            now = standing.standing(self._run, queues.ask([self._run]))
            self._alive = now.alive or now.word == "unknown" or self._is_new()
            if standing.job_ids(self._run):
                self._next_question = time.monotonic() + ASK_EVERY_SECONDS
            if now.waits and now.job is not None and now.job.reason != self._told:
                self._told = now.job.reason
                print(f"launcher: job {now.job.id} is {waiting(now.job)}", file=sys.stderr)
        return self._alive

    def _is_new(self) -> bool:
        """On this machine: submitted, or an attempt that has not come to its first rank yet."""
        newest = self._run.newest_attempt()
        place = self._run.plan if newest is None else self._run.attempt(newest)
        began = sum(event["event"] == "started" for event in self._run.read_events())
        return not standing.job_ids(self._run) and began <= (newest or 0) and time.time() - place.stat().st_mtime < 60


def tensorboard(words: list[str]) -> int:
    """Become TensorBoard on one run, on the members of a sweep, or on the directories of all runs. It listens on localhost."""
    words, everywhere = lookup.asked(words)
    named = bool(words) and not words[0].startswith("-")
    found = sweep.find(words[0], everywhere=everywhere) if named else None
    runs = [lookup.find(words[0], everywhere=everywhere)] if named and found is None else _runs(everywhere)
    options = words[1:] if named else words
    if not runs and found is None:
        raise ConfigError("no runs yet; start one with: python -m launcher +exp=cifar")
    if found is not None:
        where = ["--logdir", str(found.tensorboard)]
    elif len(runs) == 1:
        where = ["--logdir", str(runs[0].tensorboard)]
    else:
        roots = dict.fromkeys(str(run.path.parent.parent) for run in runs)
        where = ["--logdir", next(iter(roots))] if len(roots) == 1 else ["--logdir_spec", ",".join(roots)]
    return submit.become("tensorboard.main", [*where, *options])


def _runs(everywhere: bool) -> list[RunDir]:
    known = lookup.known()
    if not known.here and known.elsewhere and not everywhere:
        raise ConfigError(f"no runs in this project, {len(known.elsewhere)} elsewhere; for those: python -m launcher tensorboard --all")
    return known.all() if everywhere else known.here

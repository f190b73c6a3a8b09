"""`logs RUN` and `tensorboard [RUN]`."""

from __future__ import annotations

import argparse
import sys
import time

from launcher import lock, submit
from launcher.errors import ConfigError
from launcher.rundir import RunDir, all_runs, find
from launcher.tail import Tail


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]  # raises, as the base class exits
        raise ConfigError(f"{self.prog}: {message}; see python -m launcher --help")


def logs(words: list[str]) -> int:
    """Print one rank's log of one attempt; with -f follow it, across attempts, until the run ends."""
    parser = _Parser("logs", add_help=False)
    parser.add_argument("run")
    parser.add_argument("-f", "--follow", action="store_true")
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--attempt", type=int)
    asked = parser.parse_args(words)
    run = find(asked.run)
    newest = run.newest_attempt()
    attempt = newest if asked.attempt is None else asked.attempt
    if attempt is None and not asked.follow:
        raise ConfigError(f"{run} has no attempt yet, so no log; add -f to wait for it")
    if attempt is not None and not asked.follow and not run.rank_log(attempt, asked.rank).exists():
        raise ConfigError(f"{run} has no log of rank {asked.rank} in attempt {attempt}; see {run.attempts}")
    _print_logs(run, attempt, asked.rank, asked.follow)
    return 0


def _print_logs(run: RunDir, attempt: int | None, rank: int, follow: bool) -> None:
    tail = Tail(run.rank_log(attempt, rank)) if attempt is not None else None
    while True:
        alive = lock.is_held(run.lock)  # asked first, so that the read below sees everything
        for line in tail.lines() if tail else ():
            print(line, flush=True)
        newest = run.newest_attempt()
        if follow and newest is not None and (attempt is None or newest > attempt):
            attempt, tail = newest, Tail(run.rank_log(newest, rank))
            print(f"--- attempt {newest}", flush=True)
        elif not follow or not (alive or _starting(run)):
            return
        else:
            time.sleep(0.2)


def _starting(run: RunDir) -> bool:
    """Submitted, or an attempt that has not come to its first rank yet."""
    newest = run.newest_attempt()
    place = run.plan if newest is None else run.attempt(newest)
    began = sum(event["event"] == "started" for event in run.read_events())
    return began <= (newest or 0) and time.time() - place.stat().st_mtime < 60


def tensorboard(words: list[str]) -> int:
    """Become TensorBoard on one run, or on the directories of all runs. It listens on localhost."""
    runs = [find(words[0])] if words and not words[0].startswith("-") else all_runs()
    options = words[1:] if words and not words[0].startswith("-") else words
    if not runs:
        raise ConfigError("no runs yet; start one with: python -m launcher +exp=cifar")
    if len(runs) == 1:
        where = ["--logdir", str(runs[0].tensorboard)]
    else:
        roots = dict.fromkeys(str(run.path.parent.parent) for run in runs)
        where = ["--logdir", next(iter(roots))] if len(roots) == 1 else ["--logdir_spec", ",".join(roots)]
    return submit.become([sys.executable, "-m", "tensorboard.main", *where, *options])

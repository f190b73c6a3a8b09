"""`run` and `resume`: the verbs that make or continue a run."""

from __future__ import annotations

import os
import sys
import time

from omegaconf import DictConfig

from launcher.clusters import queues
from launcher.compose import check
from launcher.compose.compose import compose
from launcher.compose.freeze import resolve
from launcher.errors import ConfigError, Interrupted, LaunchError, TrainingFailed
from launcher.rundir import lookup, sweep
from launcher.rundir.objective import Objective, is_number
from launcher.start import inside
from launcher.start.launch import go_on, launch
from launcher.verdict import standing

WAIT_SECONDS = 5.0
"""Between two looks at a batch job that a sweeper waits for."""


def run(words: list[str]) -> int:
    """Train here, or submit. The last line of stdout is the run directory."""
    inside.refuse(os.environ)
    for warning in check.check_environment(os.environ):
        _warn(warning)
    if "-m" in words or "--multirun" in words:
        return _sweep(words)
    compose(words, launch)
    return 0


def _sweep(words: list[str]) -> int:
    """`-m`: all members to a scheduler at once, one after the other on this machine."""
    from launcher.compose.members import OtherSweeper, compose_members
    from launcher.start import array  # here, for Hydra's inner parts cost a single run 40 ms

    try:
        members = compose_members(words)
    except OtherSweeper:  # it composes its members itself, from the results of those before
        compose(words, _launch_and_wait)
        return 0
    if array.is_for_a_scheduler(members[0].config):
        array.launch(members)
        return 0
    if len(members) == 1:
        launch(members[0].config, members[0].overrides)
        return 0
    failures: list[LaunchError] = []
    for member in members:
        try:
            launch(member.config, member.overrides)
        except Interrupted:
            raise
        except LaunchError as error:  # the sweep goes on with its next member
            failures.append(error)
            print(f"launcher: {' '.join(member.overrides)}: {error}", file=sys.stderr)
    if failures:
        raise type(failures[0])(f"{len(failures)} of the sweep's runs failed; the first: {failures[0]}")
    return 0


def resume(words: list[str]) -> int:
    """Continue a run from its newest good checkpoint, by the plan it was submitted with, or with other values under `cluster`."""
    words, everywhere = lookup.asked(words)
    inside.refuse(os.environ)
    run, changes = words[:1], words[1:]
    if not run or any("=" not in word for word in changes):
        raise ConfigError("resume takes one run or sweep: a path, an id or a name; for example: python -m launcher resume cifar")
    found = sweep.find(words[0], everywhere=everywhere)
    if found is not None and changes:
        raise ConfigError(f"resume {changes[0]}: the members of a sweep keep their clusters; name one run")
    if found is not None:
        from launcher.start import array

        array.resume(found)
        return 0
    here = lookup.find(words[0], everywhere=everywhere, acts=True)
    go_on(here, changes)
    return 0


def _launch_and_wait(config: DictConfig, overrides: list[str]) -> float:
    """A member for a sweeper that needs its result: the config's `objective` out of its summary, as it is.

    Which way is better is said to the sweeper itself (`hydra.sweeper.direction` and the like), whatever `mode` says. Without a validation
    part it is the test part's, and a line says so.
    Raises TrainingFailed where there is none.
    """
    here = launch(config, overrides)
    while standing.standing(here, queues.ask([here])).alive:
        time.sleep(WAIT_SECONDS)
    summary, asked = here.read_summary() or {}, Objective.of(resolve(config)["objective"])
    by = asked.found_in([summary], same_name=True)
    value = summary.get(by.metric)
    if not is_number(value):
        raise TrainingFailed(f"{here} ended without {asked.metric}; see: python -m launcher why {here}")
    if by != asked:
        _warn(f"{here} has no {asked.metric}; the sweeper is told {by.metric}")
    return float(value)


def _warn(text: str) -> None:
    print(f"launcher: warning: {text}", file=sys.stderr)

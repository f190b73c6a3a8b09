"""`evaluate RUN`: look closely at what a run has learnt: here by default, or as a job.

Its processes start as those of a training do, from a plan of their own below the run, but for the module they run:
launcher/evaluation/__main__.py. The run's config says everything but where that is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shlex
import shutil
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from launcher.clusters import queues, submit
from launcher.compose import check, preflight, trusted
from launcher.compose.compose import compose
from launcher.compose.freeze import Frozen, build_cluster, freeze, resolve, stored_config
from launcher.config import pretrained
from launcher.errors import ClusterError, ConfigError, Interrupted, NoAnswer, RunError
from launcher.rundir import evaluated, lookup, rundir
from launcher.rundir.evaluated import ANY, NEWEST, SPLITS, Asked
from launcher.rundir.rundir import RunDir
from launcher.start import torch_words, unlocked
from launcher.start.launch import pin, warn_of_edits
from launcher.start.move import changed
from launcher.trust import owner
from launcher.trust.ending import ending
from launcher.verbs.words import CHECKPOINT, Typed, Words, one_of, yes_no
from launcher.verdict import standing

WORKER, MODULE = " launcher.train.worker ", " launcher.evaluation "
JOBS = "jobs"
_WORDS = Words("evaluate", "RUN", {"split": one_of(*SPLITS, default=ANY), "checkpoint": CHECKPOINT, "robustness": yes_no(False)})
_KEYS = re.compile(r"\+{0,2}(data|cluster|loader)\.[^=]+=|(data|cluster|strategy)=|train\.(precision|accumulate)=")
_EXAMPLE = "python -m launcher evaluate cifar"


def evaluate(words: list[str]) -> int:
    """Evaluate here and print where the page is, or submit that. Raises any LaunchError; one that is refused has changed nothing."""
    words, everywhere = lookup.asked(words)
    if not words or "=" in words[0] or words[0].startswith("-"):
        raise ConfigError(f"evaluate takes one run: a path, an id or a name; for example: {_EXAMPLE}")
    ours, rest = _WORDS.picked(words[1:])
    flags, others = _sorted_out(rest)
    here = lookup.find(words[0], everywhere=everywhere, acts=True)
    owner.refuse(here.path)
    os.umask(rundir.umask_of(here))
    asked = _asked(here, ours)
    with ending(), _in_directory(here, others):
        frozen, when = _frozen(here, flags, others)
        _warn_of_plain(here)
        job = _directory(frozen, asked)
        _start(job, frozen, when, here)
    return 0


def _sorted_out(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hydra's flag for more yamls, and what is of the config. Raises ConfigError for a word that is neither."""
    flags: list[str] = []
    others: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        if "--config-dir" in (before, word.partition("=")[0]) or "-cd" in (before, word.partition("=")[0]):
            flags.append(word)
        elif _KEYS.match(word):
            others.append(word)
        else:
            raise ConfigError(
                f"evaluate {word}: an evaluation takes split=…, checkpoint=…, robustness=…, data=…, cluster=…, strategy=…, "
                "keys below data, cluster and loader, train.precision and train.accumulate; all else is the run's"
            )
    return flags, others


def _asked(here: RunDir, ours: Typed) -> Asked:
    """Raises RunError for a run that is not done."""
    now = standing.standing(here, queues.ask([here]))
    standing.check_saved(here, now, f"checkpoint={NEWEST}", "checkpoint" in ours.typed)
    return Asked(str(here), **ours.values)


def _say(what: str) -> None:
    print(f"evaluate: {what}", file=sys.stderr, flush=True)


def _warn_of_plain(here: RunDir) -> None:
    if unlocked.mark_of(here):
        places = shlex.join(map(str, (evaluated.folder(here), here.tensorboard / "evaluation")))
        print(
            f"launcher: warning: the checkpoints of {here} are encrypted, and an evaluation of it is not: report.html shows "
            f"samples, predictions.parquet says what became of each; when you have read it, type: rm -r {places}",
            file=sys.stderr,
        )


@contextlib.contextmanager
def _in_directory(here: RunDir, words: Sequence[str]) -> Generator[None]:
    """Where the run was started, for its data may lie beside that; other data are meant from here."""
    place, before = Path(here.read_plan().directory), Path.cwd()
    if any(word.lstrip("+").startswith("data") for word in words) or not place.is_dir():
        yield
        return
    os.chdir(place)
    try:
        yield
    finally:
        os.chdir(before)


def _frozen(here: RunDir, flags: list[str], words: list[str]) -> tuple[Frozen, str]:
    """The run's config in a world of the evaluation's own, prepared; and when its job would start."""
    config = _config(here, flags, words)
    values = resolve(config)
    trusted.refuse_more(here, values["trust"])
    trusted.note(trusted.mine(values["trust"]))
    unlocked.check(values, here)
    with open_dict(config):
        if pretrained.is_named(values["model"]):
            config.model = pretrained.without(values["model"])
        _of_the_world(config, values, any(word.startswith("strategy") for word in words))
    frozen = _planned(config, here, words)
    when = frozen.cluster.check(frozen)
    torch_words.check()
    if frozen.cluster.attached:
        warn_of_edits(here, here.read_plan(), "is evaluated")
    _say("preparing the data")
    found = submit.prepare_data(values["data"])
    pin(config, values["data"], found.pinned)
    check.check_held(values, found.holds)
    return _planned(config, here, words), when


def _config(here: RunDir, flags: list[str], words: list[str]) -> DictConfig:
    """The run's, with the cluster as for a new run; and with other data, where those are chosen."""
    chosen = [group for group in ("cluster", "data") if group == "cluster" or any(word.startswith("data=") for word in words)]
    of_groups = [word for word in words if word.lstrip("+").partition("=")[0].partition(".")[0] in chosen]
    found: list[DictConfig] = []
    compose([*of_groups, *flags], lambda config, _: found.append(config))
    config = preflight.created(stored_config(here))
    with open_dict(config):
        for group in chosen:
            config[group] = OmegaConf.to_container(found[0][group])
    return changed(config, [word for word in words if word not in of_groups])


def _of_the_world(config: DictConfig, values: dict[str, Any], is_split: bool) -> None:
    """One process has the whole model, however it was split before; a batch is what any world can share."""
    world = build_cluster(values["cluster"]).world()
    if world.size == 1 and not is_split:
        config.strategy = {"_target_": "launcher.strategies.ddp.DDP"}
    config.train.batch_size = world.size * values["train"]["accumulate"]
    config.train.device_probe = config.train.encrypt = False  # nothing is trained or saved
    config.train.adversarial = None


def _planned(config: DictConfig, here: RunDir, words: list[str]) -> Frozen:
    with open_dict(config):
        config.name, config.id, config.runs_dir = JOBS, None, str(evaluated.folder(here))
    frozen = freeze(config, words, goes_on=True)
    if frozen.script.count(WORKER) != 1:
        raise ConfigError(f"runs_dir: the name `{WORKER.strip()}` in a path is not for an evaluation; rename the directory")
    plan = dataclasses.replace(frozen.plan, name=f"evaluate-{here.path.parent.name}"[:64])
    return frozen._replace(plan=plan, script=frozen.cluster.render(plan).replace(WORKER, MODULE))


def _directory(frozen: Frozen, asked: Asked) -> RunDir:
    try:
        job = rundir.create(Path(frozen.plan.run_dir), frozen.plan.umask)
    except FileExistsError:
        raise RunError(f"{frozen.plan.run_dir} is there already; type the command again") from None
    try:
        frozen.cluster.prepare(frozen, job)
        evaluated.write(job, asked)
        job.freeze(frozen.plan, frozen.config, frozen.script)
        job.log_event("submitted", overrides=list(frozen.plan.overrides), version=frozen.plan.version, code_hash=frozen.plan.code_hash)
    except BaseException:
        _discard(job)
        raise
    return job


def _start(job: RunDir, frozen: Frozen, when: str, here: RunDir) -> None:
    if not frozen.cluster.attached:
        try:
            frozen.cluster.start(job, when)
        except NoAnswer:
            raise  # there may be a job now
        except ClusterError:
            _discard(job)
            raise
        print(f"page    in {evaluated.folder(here)}, once it is done", flush=True)
        return
    _say("starting its processes")
    try:
        page = frozen.cluster.see_through(job)["page"]
    except (Interrupted, KeyboardInterrupt):
        _discard(job)
        raise
    except BaseException:
        evaluated.clear(here, job.path.name)  # what a process that was killed has begun; its logs stay
        raise
    _discard(job)  # where it failed it stays, with its logs
    print(page, flush=True)


def _discard(job: RunDir) -> None:
    """With the folders that it was made in, where nothing else is in them, and what it has begun."""
    evaluated.clear(RunDir(job.path.parents[2]), job.path.name)
    shutil.rmtree(job.path, ignore_errors=True)
    with contextlib.suppress(OSError):
        job.path.parent.rmdir()
        job.path.parent.parent.rmdir()

"""From a run and a split to what its folder holds: restore, evaluate as training does, join what the processes saw, write."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import safetensors.torch as safetensors
import torch

import launcher
from launcher.answers.finder import Finder
from launcher.errors import CheckpointError, ConfigError, LaunchError, RunError
from launcher.evaluation import boxes, classes, numbers, page, pngs, robustness, tokens, written
from launcher.evaluation.findings import Findings, Gallery, Metric, Picture, Texts
from launcher.evaluation.pictures import png
from launcher.evaluation.robustness import Shaken
from launcher.evaluation.taken import Nothing, Rows, Taker, Watched, fingerprint, joined
from launcher.node.entry import enter, read_config
from launcher.node.place import Place
from launcher.node.pulse import END, EVALUATION
from launcher.plan import Plan
from launcher.rundir import evaluated
from launcher.rundir.evaluated import BEST, NEWEST, Asked
from launcher.rundir.rundir import RunDir, write_atomic
from launcher.train import loop
from launcher.train.build import build
from launcher.train.checkpoint.manifest import Checkpoint, by_step, describe, directory_name, verify
from launcher.train.checkpoint.state import restore
from launcher.train.checkpoint.stored import record_in, state_of
from launcher.train.job import Job
from launcher.train.record.board import Board, grid
from launcher.train.work import join
from launcher.train.world import world
from launcher.train.world.ranks import Ranks

_FINDINGS: Mapping[str, Callable[[Rows, dict[str, float], Sequence[str]], Findings]] = {
    "classes": classes.findings,
    "numbers": numbers.findings,
    "boxes": boxes.findings,
    "tokens": tokens.findings,
}


def work(run: RunDir, plan: Plan, place: Place, where: dict[str, Any]) -> None:
    """`run` is that of the evaluation; what it asks for says which one is evaluated. Nothing of that one is written but the folder."""
    asked = evaluated.read(run)
    source = RunDir(asked.run)
    config = read_config(run)
    claim = enter(run, place, where)
    process = join(run, plan, place, claim, config, where, source.checkpoints)
    job = build(process, config)
    asked = asked._replace(split=_split(job, asked.split))
    if job.loader.evaluation(asked.split).samples == 0:
        others = ", ".join(each for each in evaluated.SPLITS if job.loader.evaluation(each).samples)
        raise ConfigError(f"split={asked.split}: the data have no such part; type split= and one of {others}")
    shaken = Shaken(job, config) if asked.robustness else None
    checkpoint = _checkpoint(source, asked.checkpoint, job.ranks)
    job.state = restore(job.parts, checkpoint, job.ranks.rank)
    where["step"] = job.state.step
    aside = written.Aside(source, asked.split, run.path.name) if job.ranks.is_first else None
    try:
        _evaluate(run, source, asked, job, process.precision, aside, config, shaken)
    except BaseException:
        if aside is not None:
            aside.drop()
        raise
    job.watch.outside(END)
    job.loader.close()
    if job.ranks.is_first:
        where_it_is = str(evaluated.folder(source) / asked.split / written.PAGE)
        ending = {"state": "done", "page": where_it_is, "name": plan.name, "id": plan.id, "attempt": place.attempt, "finished": time.time()}
        write_atomic(run.summary, json.dumps(ending, indent=2) + "\n")
        write_atomic(run.outcome(place.attempt), "done\n")
    job.ranks.wait()
    del job
    world.leave(process.accelerator, process.ranks)


def _split(job: Job, asked: str) -> str:
    if asked != evaluated.ANY:
        return asked
    if job.loader.evaluation("test").samples:
        return "test"
    if job.ranks.is_first:
        print("the data have no test part: this is the validation part (split=val)")
    return "val"


def _checkpoint(source: RunDir, wanted: str, ranks: Ranks) -> Checkpoint:
    """The same on every rank; one of them has read all of it. Raises CheckpointError. Nothing is set aside: it is another's to keep."""
    step, problem = ranks.from_first(_good(source, wanted) if ranks.is_first else None)
    if problem:
        raise CheckpointError(problem)
    return describe(source.checkpoints / directory_name(step))


def _good(source: RunDir, wanted: str) -> tuple[int, str]:
    """The step of one that is whole, or what is wrong."""
    steps = by_step(source.checkpoints)
    if not steps:
        return 0, f"{source.checkpoints} has no checkpoint; resume the run first"
    if wanted == BEST:
        step = state_of(record_in(describe(steps[0][1]), "state.json")).best_step
        steps = [each for each in steps if each[0] == step]
        if not steps:
            return 0, f"{source.checkpoints} has none of its best step {step} (train.keep_best=true keeps it); leave out checkpoint=best"
    elif wanted != NEWEST:
        known = ", ".join(str(step) for step, _ in steps)
        steps = [each for each in steps if str(each[0]) == wanted]
        if not steps:
            return 0, f"{source.checkpoints} has none of step {wanted}; type checkpoint= and one of {known}"
    problem = ""
    for step, path in steps:
        try:
            verify(path)
            return step, ""
        except LaunchError as error:
            problem = str(error)
            print(f"checkpoint {path.name} is damaged and passed over: {problem}")
    return 0, f"{problem}; no checkpoint of {source} that was asked for is good"


def _evaluate(
    run: RunDir,
    source: RunDir,
    asked: Asked,
    job: Job,
    precision: str,
    aside: written.Aside | None,
    config: Mapping[str, Any],
    shaken: Shaken | None,
) -> None:
    kind, taker = _taker(job.task)
    watched: Any = Watched(job.task, taker, lambda: job.watch.outside(EVALUATION))
    if not job.coordinate.counts_samples:
        watched.take = lambda outputs, batch: None  # another rank has the same
    board = _Shown(Board(aside.path / written.BOARD, 0)) if aside is not None else job.board
    job.task, job.board = watched, cast("Board", board)
    values = loop.evaluate_split(job, asked.split)
    rows = _joined(run, watched.rows(), job)
    table = shaken(job, asked.split) if shaken else None
    if aside is None or not isinstance(board, _Shown):
        return
    findings = (
        _FINDINGS[kind](rows, values, job.class_names)
        if kind
        else Findings(metrics={n: Metric(v) for n, v in values.items() if n != "samples"})
    )
    findings.parts += board.parts(asked.split) if kind in ("", "tokens") else []
    if table is not None:
        findings.parts[1:1] = robustness.parts(table)
        findings.details["robustness"] = table
    known = {
        "run": source.label,
        "split": asked.split,
        "samples": int(values["samples"]),
        "predicts": kind or "tensors",
        "checkpoint": asked.checkpoint,
        "step": job.state.step,
        "weights": "average" if job.config.ema_decay else "model",
        "precision": precision,
        "data": str(config["data"]["_target_"]),
        "data_is_standin": job.is_standin,
        "fingerprint": fingerprint(rows),
        "torch": torch.__version__,
        "launcher": launcher.__version__,
        "finished": time.time(),
    }
    _write(aside, known, findings, board)


def _write(aside: written.Aside, known: dict[str, Any], findings: Findings, board: _Shown) -> None:
    made = pngs.pngs(findings, print)
    extra = {name: metric.value for name, metric in findings.metrics.items()}
    extra |= {f"{name}_low": metric.low for name, metric in findings.metrics.items() if metric.low is not None}
    extra |= {f"{name}_high": metric.high for name, metric in findings.metrics.items() if metric.high is not None}
    board.scalars(known["step"], known["split"], extra)
    shown_as = {f"{known['split']}/{name.removesuffix('.png')}": data for name, data in made.items()}
    board.matrices(shown_as)
    for tag, data in shown_as.items():
        board.picture(tag, data, known["step"])
    board.close()
    if findings.columns:
        told = {name: str(known[name]) for name in ("run", "split", "step", "fingerprint")}
        aside.write(written.PREDICTIONS, written.predictions(findings.columns, told))
    for name, data in made.items():
        aside.write(name, data)
    shown = {"run": known["run"], "split": known["split"], "samples": f"{known['samples']:,}", "step": f"{known['step']:,}"}
    shown |= {"weights": known["weights"], "precision": known["precision"], "data": known["data"], "launcher": known["launcher"]}
    if findings.resamples:
        shown["intervals"] = f"95 %, percentile bootstrap of {findings.resamples:,} draws, seed 0"
    warning = (
        "The data are the built-in stand-in, and not the real set: these figures say nothing of that." if known["data_is_standin"] else ""
    )
    aside.write(written.PAGE, page.page(f"{known['run']}, {known['split']}", shown, findings, warning).encode())
    aside.write(written.REPORT, written.report(known, findings))
    aside.put()
    for name, metric in findings.metrics.items():
        interval = f"  {metric.low:.4f} to {metric.high:.4f}" if metric.low is not None and metric.high is not None else ""
        print(f"{name:<16}{metric.value:.4f}{interval}")


def _taker(task: Any) -> tuple[str, Taker]:
    kind = str(getattr(task, "predicts", ""))
    if kind == "boxes":
        return kind, boxes.Taker(Finder(**task.predicting))
    if kind == "numbers" and hasattr(task, "losses"):
        return kind, numbers.Taker(task.losses)
    if kind in ("classes", "tokens"):
        return kind, classes.Taker() if kind == "classes" else tokens.Taker()
    return "", Nothing()


def _joined(run: RunDir, own: Rows, job: Job) -> Rows:
    """What all processes saw, on the first; by files, for it may be more than a message should be. Empty on others. Raises RunError."""
    ranks = job.ranks
    if ranks.size == 1:
        return joined([own])
    problem = ""
    if job.coordinate.counts_samples:
        try:
            safetensors.save_file({name: each.contiguous() for name, each in own.items()}, _rows_of(run, ranks.rank))
        except OSError as error:
            problem = f"{run} cannot be written ({error.strerror or error}); make room, and evaluate again"
        except Exception as error:  # what safetensors makes of a full disk
            problem = f"{run} cannot be written ({error}); make room, and evaluate again"
    if problems := [each for each in ranks.gather(problem) if each]:
        raise RunError(problems[0])
    if not ranks.is_first:
        ranks.wait()
        return {}
    paths = [path for path in (_rows_of(run, rank) for rank in range(ranks.size)) if path.exists()]
    whole = joined([safetensors.load_file(path) for path in paths])
    for path in paths:
        path.unlink()
    ranks.wait()
    return whole


def _rows_of(run: RunDir, rank: int) -> Path:
    return run.path / f"rows_{rank}.safetensors"


class _Shown:
    """A board that also keeps what a task shows on it."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._texts: list[tuple[str, str]] = []
        self._images: list[tuple[str, torch.Tensor]] = []
        self._matrices: list[tuple[str, torch.Tensor, Sequence[str], int]] = []

    def text(self, tag: str, text: str, step: int = 0) -> None:
        self._texts.append((tag, text))
        self._board.text(tag, text, step)

    def images(self, tag: str, images: torch.Tensor, step: int) -> None:
        self._images.append((tag, images))
        self._board.images(tag, images, step)

    def matrix(self, tag: str, counts: torch.Tensor, names: Sequence[str], step: int) -> None:
        self._matrices.append((tag, counts, names, step))

    def matrices(self, drawn: Collection[str]) -> None:
        """Those that came, once it is known of which there is a chart with names and counts."""
        for tag, counts, names, step in self._matrices:
            self._board.matrix(tag, counts, names, step, is_drawn=tag in drawn)

    def picture(self, tag: str, data: bytes, step: int) -> None:
        from io import BytesIO

        import numpy as np
        from PIL import Image

        pixels = np.asarray(Image.open(BytesIO(data)).convert("RGB")).copy()
        self._board.images(tag, torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255, step)

    def parts(self, split: str) -> list[Texts | Gallery]:
        """Without its split, which the page has in its title."""
        made: list[Texts | Gallery] = []
        for tag, text in self._texts:
            made.append(Texts(tag.removeprefix(f"{split}/"), [("", "\n".join(line.removeprefix("    ") for line in text.splitlines()))]))
        for tag, images in self._images:
            picture = (grid(images, 8).clamp(0, 1) * 255).byte()
            made.append(Gallery(tag.removeprefix(f"{split}/"), [Picture(png(picture), "")], is_broad=True))
        return made

    def __getattr__(self, name: str) -> Any:
        return getattr(self._board, name)

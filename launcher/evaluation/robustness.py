"""`robustness=true`: how often a classifier of pictures is right under attacks and corruptions (launcher/train/robust/ has them, with their
sources), as a table and as curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from launcher.errors import ConfigError
from launcher.evaluation.findings import Chart, Part, Series, Table, shown
from launcher.node.pulse import EVALUATION
from launcher.train import data_set
from launcher.train.buffers import averaged_buffers
from launcher.train.evaluate import evaluating
from launcher.train.job import Job
from launcher.train.record.pace import counted
from launcher.train.robust.table import FGSM, PGD, Robustness

_LEFT_OUT = "leave out robustness=true"
_TITLES = {FGSM: "FGSM (Goodfellow et al., 2015)", PGD: "PGD (Madry et al., 2018)"}


class Shaken:
    """What is needed to shake a split's pictures; refused before anything is computed where that cannot be."""

    def __init__(self, job: Job, config: Mapping[str, Any]) -> None:
        """Raises ConfigError."""
        if getattr(job.task, "predicts", "") != "classes":
            raise ConfigError(f"robustness=true: attacks and corruptions are for classes of pictures, and this task has none; {_LEFT_OUT}")
        if job.coordinate.dp_size != job.coordinate.mesh.size or job.stepper.is_collective:
            raise ConfigError("robustness=true: an attack needs the whole model in each process; type strategy=ddp")
        said: Any = getattr(data_set.first(config["data"]), "preprocessing", None) or {}
        mean, std = (list(map(float, said.get(name) or ())) for name in ("mean", "std"))
        if said.get("kind") != "image" or len(mean) not in (1, 3) or len(mean) != len(std):
            raise ConfigError(f"robustness=true: the data do not say how pictures are standardised (`preprocessing`); {_LEFT_OUT}")
        self._said, self._seed = (mean, std), int(config["seed"])

    def __call__(self, job: Job, split: str) -> dict[str, Any]:
        """The table of the split, the same on every rank: {"samples", "clean", "rows": [{"kind", "strength", "accuracy"}, …]}."""
        part, here = job.loader.evaluation(split), job.coordinate
        first = part.samples * here.dp_rank // here.dp_size
        own, whole = (Robustness(*self._said, seed=self._seed, first=first) for _ in range(2))
        with job.parts.ema.applied(), averaged_buffers(job.parts.model, job.peers), evaluating(job.parts.model):
            for batch in counted(part, len(part), "attacks and corruptions") if job.ranks.is_first else part:
                job.watch.outside(EVALUATION)
                own.update(job.evaluated, batch)
        for state in job.ranks.gather_tensors(own.state()):
            whole.merge(state)
        return whole.table()


def parts(found: Mapping[str, Any]) -> list[Part]:
    clean, rows = float(found["clean"]), found["rows"]
    curves = {
        kind: [(row["strength"], row["accuracy"]) for row in rows if row["kind"] == kind]
        for kind in dict.fromkeys(each["kind"] for each in rows)
    }
    attacked = [
        Series(_TITLES[kind], [0.0, *(255 * strength for strength, _ in curve)], [clean, *(accuracy for _, accuracy in curve)])
        for kind, curve in curves.items()
        if kind in _TITLES
    ]
    corrupted = {kind: curve for kind, curve in curves.items() if kind not in _TITLES}
    made: list[Part] = [Chart("attacks", "Accuracy under attack", "largest change of a pixel, of 255", "accuracy", attacked)]
    if corrupted:
        severities = [strength for strength, _ in next(iter(corrupted.values()))]
        means = [sum(curve[place][1] for curve in corrupted.values()) / len(corrupted) for place in range(len(severities))]
        line = Series("mean of all corruptions", [0.0, *severities], [clean, *means])
        note = f"The mean over {len(corrupted)} corruptions (after Hendrycks and Dietterich, 2019); severity 0 is the clean split."
        made.append(Chart("corruptions", "Accuracy under corruptions", "severity", "accuracy", [line], False, note))
    made.append(
        _table("Under attack", "of 255", [(_TITLES[kind], curve) for kind, curve in curves.items() if kind in _TITLES], 255.0, clean)
    )
    made += [_table("Under corruptions", "severity", [*corrupted.items()], 1.0, clean)] if corrupted else []
    return made


def _table(title: str, unit: str, curves: Sequence[tuple[str, Sequence[tuple[float, float]]]], times: float, clean: float) -> Table:
    strengths = [f"{times * strength:g}" for strength, _ in curves[0][1]]
    rows = [[kind.replace("_", " "), shown(clean), *(shown(accuracy) for _, accuracy in curve)] for kind, curve in curves]
    return Table(title, (unit, "clean", *strengths), rows, "Accuracy at each strength.")

"""Each run beside the first, sample by sample, where both have predictions of the same split and the same samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from launcher.beside import predictions, significance
from launcher.beside.members import Member
from launcher.beside.predictions import Predictions
from launcher.trust.terminal import one_line

_AT_ONCE = 32
"""Runs whose differences are in memory together."""


@dataclass
class Pair:
    """One run beside the first. What could not be tested has `why` and nothing else."""

    number: int
    """Of the other run, counted from 1."""
    why: str = ""
    found: dict[str, Any] = field(default_factory=dict[str, Any])
    """accuracy, loss: {first, other, difference, low, high}; mcnemar, wilcoxon: {p, holm, …}."""


@dataclass(frozen=True)
class Tested:
    split: str
    samples: int
    draws: int
    pairs: list[Pair]


def tested(runs: Sequence[Member]) -> Iterator[Tested]:
    """By split. A split that no two runs have predictions of is not there."""
    having = [{*predictions.splits(run.run)} for run in runs]
    for split in sorted({name for names in having for name in names}):
        if sum(split in names for names in having) > 1:
            yield _split(split, runs, having)


def _split(split: str, runs: Sequence[Member], having: Sequence[set[str]]) -> Tested:
    try:
        first = predictions.read(runs[0].run, split) if split in having[0] else None
        why = "" if first else "run 1 has no predictions of it"
    except ValueError as error:
        first, why = None, f"run 1: {error}"
    if first is None:
        return Tested(split, 0, 0, [Pair(number, why) for number in range(2, len(runs) + 1)])
    pairs: list[Pair] = []
    for begin in range(1, len(runs), _AT_ONCE):
        some = range(begin, min(begin + _AT_ONCE, len(runs)))
        pairs += _some(first, [(place + 1, _read(runs[place], split, split in having[place])) for place in some])
    for name in ("mcnemar", "wilcoxon"):
        of = [pair.found[name] for pair in pairs if name in pair.found]
        for each, corrected in zip(of, significance.holm([each["p"] for each in of]), strict=True):
            each["holm"] = corrected
    return Tested(split, len(first.sample), significance.draws_for(len(first.sample)), pairs)


def _read(run: Member, split: str, is_there: bool) -> Predictions | str:
    """Or why not."""
    try:
        return predictions.read(run.run, split) if is_there else "no predictions of it"
    except ValueError as error:
        return str(error)


def _some(first: Predictions, others: Sequence[tuple[int, Predictions | str]]) -> list[Pair]:
    import numpy as np

    pairs: list[Pair] = []
    columns: list[Any] = []
    places: list[dict[str, Any]] = []
    for number, other in others:
        pair = Pair(number, other if isinstance(other, str) else _unlike(first, other))
        pairs.append(pair)
        if pair.why or isinstance(other, str):
            continue
        if first.right is not None:
            pair.found["accuracy"] = _means(first.right, other.right)
            alone = int((first.right & ~other.right).sum()), int((other.right & ~first.right).sum())
            pair.found["mcnemar"] = {"first_alone": alone[0], "other_alone": alone[1], "p": significance.mcnemar(*alone)}
            columns.append(other.right.astype(float) - first.right)
            places.append(pair.found["accuracy"])
        change = other.loss - first.loss
        if not np.isfinite(change).all():
            pair.found["bad_losses"] = int((~np.isfinite(change)).sum())
            continue
        pair.found["loss"] = _means(first.loss, other.loss)
        if first.right is None:
            pair.found["wilcoxon"] = {"p": significance.wilcoxon(change)}
        columns.append(change)
        places.append(pair.found["loss"])
    for place, (low, high) in zip(places, significance.bootstrap(np.stack(columns, 1)) if columns else (), strict=True):
        place |= {"low": low, "high": high}
    return pairs


def _means(first: Any, other: Any) -> dict[str, float]:
    before, after = float(first.mean()), float(other.mean())
    return {"first": before, "other": after, "difference": after - before}


def _unlike(first: Predictions, other: Predictions) -> str:
    """Why what both came to cannot be paired; empty where it can."""
    import numpy as np

    if first.fingerprint and other.fingerprint and first.fingerprint != other.fingerprint:
        return "its predictions are of other data, or of the same seen otherwise (another fingerprint)"
    if not np.array_equal(first.sample, other.sample):
        return f"its samples are not those of run 1 ({len(other.sample):,} and {len(first.sample):,})"
    if (first.label is None) != (other.label is None):
        return "one has classes and the other has not"
    if first.label is not None and not np.array_equal(first.label, other.label):
        return f"{int((first.label != other.label).sum()):,} labels are not those of run 1"
    return ""


def lines(test: Tested) -> Iterator[str]:
    """As they are printed; 80 columns are enough."""
    counted = f", {test.samples:,} samples" if test.samples else ""
    yield f"paired on {one_line(test.split, 40)}{counted}: each run beside run 1"
    for pair in test.pairs:
        if pair.why:
            yield f"  {pair.number}  not tested: {pair.why}"
            continue
        for name in ("accuracy", "loss"):
            if each := pair.found.get(name):
                yield (
                    f"  {pair.number}  {name:<8}  {each['other']:.5g} - {each['first']:.5g} = {each['difference']:+.3g}"
                    f"  95 %: {each['low']:+.3g} to {each['high']:+.3g}"
                )
        if each := pair.found.get("mcnemar"):
            alone = f"{each['other_alone']:,} right in it alone, {each['first_alone']:,} in 1 alone"
            yield f"  {pair.number}  McNemar   p = {each['p']:.2g}{_holm(each, test)}  {alone}"
        if each := pair.found.get("wilcoxon"):
            yield f"  {pair.number}  Wilcoxon  p = {each['p']:.2g}{_holm(each, test)}"
        if bad := pair.found.get("bad_losses"):
            yield f"  {pair.number}  loss      not tested: {bad:,} are no finite numbers"
    if any(not pair.why for pair in test.pairs):
        yield f"  95 %: paired bootstrap, percentiles of {test.draws:,} draws of all samples, seed {significance.SEED}"
    if any("mcnemar" in pair.found for pair in test.pairs):
        yield "  McNemar's test (1947), exact and two-sided, of the samples that one alone has right"
    if any("wilcoxon" in pair.found for pair in test.pairs):
        yield "  Wilcoxon's signed-rank test (1945), two-sided, of the losses"
    if len(test.pairs) > 1 and any(not pair.why for pair in test.pairs):
        yield "  Holm: p corrected for the number of runs beside the first (1979)"


def _holm(found: dict[str, Any], test: Tested) -> str:
    return f" (Holm {found['holm']:.2g})" if len(test.pairs) > 1 else ""

"""How far an input is from those of training: statistics of samples, fitted when a model is exported and asked when it predicts.

A sample becomes a few numbers (of an image: brightness and spread of each channel, edges, colour, repeated values), and its distance is
Mahalanobis's from the mean of the training samples. Those held out of the fit say where the limit is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from launcher.predict.room import Room

QUANTILE = 0.997
"""Of held-out training samples that are nearer than the limit."""
_HELD_OUT = 5
"""Every fifth sample."""
_LEAST_SAMPLES = 50
_WIDE = 256
"""Columns above which a row is told by a summary: a covariance of more says little and takes megabytes."""
_TINY = 1e-3
"""Of a spread, in units of the model's input: what is flatter counts as flat."""
_STEPS = 64
"""Quantiles by which a statistic becomes one with normal scores: photographs' have long tails, within which noise would not be far."""
_SHRUNK = 0.2
"""What is added to each variance, as a share of it: where statistics nearly say the same, the little that is left of them would decide."""


def fit(batches: Iterable[torch.Tensor]) -> dict[str, Any]:
    """What `guards.json` says. `batches`: of what the model is given, floating (N, C, H, W) or (N, …), of the training split and without
    what training draws. Raises ValueError where they are too few, or no numbers."""
    told: list[torch.Tensor] = []
    kind, names = "", [""]
    room = Room()
    for batch in batches:
        if not batch.is_floating_point() or batch.ndim < 2:
            raise ValueError(f"there are no statistics of inputs of {batch.dtype} {tuple(batch.shape)}")
        kind = kind or _kind(batch)
        found, names = statistics(batch, kind, room)
        told.append(found.cpu())
    values = torch.cat(told) if told else torch.zeros(0, 1)
    values = values[values.isfinite().all(1)]
    if len(values) < _LEAST_SAMPLES:
        raise ValueError(f"statistics of the training inputs take {_LEAST_SAMPLES} samples, and there are {len(values)}")
    is_held = torch.arange(len(values)) % _HELD_OUT == _HELD_OUT - 1
    fitted, held = values[~is_held], values[is_held]
    steps = fitted.quantile(torch.linspace(0.002, 0.998, _STEPS, dtype=torch.float64), dim=0)
    spread = fitted.std(0).clamp_min(_TINY)
    scores = _scores(fitted, steps, spread)
    covariance = scores.T @ scores / len(scores) + _SHRUNK * torch.eye(len(spread), dtype=torch.float64)
    power, axes = torch.linalg.eigh(covariance)
    whitening = axes @ torch.diag(power.clamp_min(_SHRUNK).rsqrt())
    made = {"kind": kind, "names": names, "steps": steps.T.tolist(), "spread": spread.tolist(), "whitening": whitening.tolist()}
    distances = (_scores(held, steps, spread) @ whitening).norm(dim=1)
    # The place in order of n+1 (Vovk's conformal one): of few samples it is the farthest.
    place = min(math.ceil((len(distances) + 1) * QUANTILE), len(distances)) - 1
    limit = float(distances.sort().values[place])
    return {**made, "limit": limit, "quantile": QUANTILE, "samples": len(fitted), "held_out": len(held)}


class Nearness:
    """Of samples, whether they are as those of training were. One thread may ask at a time."""

    def __init__(self, made: Mapping[str, Any]) -> None:
        """`made` by `fit`, perhaps by a stranger. Raises KeyError, TypeError, ValueError where it is not."""
        self._kind, self._names = str(made["kind"]), [str(name) for name in made["names"]]
        if self._kind not in ("image", "row", "summary"):
            raise ValueError(f"statistics of the kind {self._kind!r:.40}")
        steps, self._spread, self._whitening = (torch.tensor(made[name], dtype=torch.float64) for name in ("steps", "spread", "whitening"))
        self.limit, self._quantile = float(made["limit"]), float(made["quantile"])
        self._room = Room()
        count = len(self._names)
        if steps.shape != (count, _STEPS) or self._spread.shape != (count,) or self._whitening.shape != (count, count):
            raise ValueError("statistics of another number of columns")
        self._steps = steps.T.contiguous()
        is_finite = self._steps.isfinite().all() and self._whitening.isfinite().all() and math.isfinite(self.limit)
        if not (self._spread > 0).all() or not is_finite:
            raise ValueError("statistics without a spread, or a limit")

    def far(self, batch: torch.Tensor) -> list[tuple[float, str]]:
        """Of each sample its distance in units of the limit, and a line of what is unlike training where it is above 1, else empty."""
        if self._kind != ("summary" if self._kind == "summary" else _kind(batch)):
            return [(0.0, "")] * len(batch)
        values, names = statistics(batch, self._kind, self._room)
        if names != self._names:
            return [(math.inf, "it has another number of values than the training inputs had")] * len(batch)
        off = _scores(values.cpu(), self._steps, self._spread)
        shares = ((off @ self._whitening).norm(dim=1) / self.limit).nan_to_num(nan=math.inf, posinf=math.inf).tolist()
        most = off.abs().argmax(1).tolist()
        return [(share, "" if share <= 1 else self._said(share, most[row], float(off[row, most[row]]))) for row, share in enumerate(shares)]

    def _said(self, share: float, column: int, off: float) -> str:
        if not math.isfinite(share):
            return "far from the training inputs: it has values that are no numbers"
        within = f"{self._quantile:.1%} of them are within {self.limit:.1f}"
        return (
            f"far from the training inputs: distance {share * self.limit:.1f}, and {within} "
            f"(unlike them is most of all {self._names[column]}: it is {'high' if off > 0 else 'low'})"
        )


def _scores(values: torch.Tensor, steps: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """Normal scores of values (N, k) by quantiles (steps, k); beyond the outermost it goes on in deviations."""
    places = torch.linspace(0.002, 0.998, _STEPS, dtype=torch.float64)
    scores = torch.special.ndtri(places)
    column, edges = values.T.contiguous(), steps.T.contiguous()
    above = torch.searchsorted(edges, column).clamp(1, _STEPS - 1)
    low, high = edges.gather(1, above - 1), edges.gather(1, above)
    share = ((column - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    inside = scores[above - 1] + share * (scores[above] - scores[above - 1])
    beyond = (column - edges[:, -1:]).clamp_min(0) - (edges[:, :1] - column).clamp_min(0)
    return (inside + beyond / spread[:, None]).T.nan_to_num(nan=math.inf, posinf=math.inf)


def statistics(batch: torch.Tensor, kind: str, room: Room) -> tuple[torch.Tensor, list[str]]:
    """Of samples (N, …): (N, k) float64, and what each of the k is."""
    if kind == "image":
        found, names = _of_images(batch.float(), room)
        return found.double(), names
    rows = batch.flatten(1).double()
    if kind == "row":
        return rows, [f"column {number + 1}" for number in range(rows.shape[1])]
    spread = rows.std(1, unbiased=False)
    least, most = rows.aminmax(dim=1)
    found = torch.stack((rows.mean(1), (spread + _TINY).log(), least, most, (rows.diff(dim=1).abs().mean(1) + _TINY).log()), 1)
    return found, ["the mean", "the spread", "the least value", "the largest value", "the change from value to value"]


def _kind(batch: torch.Tensor) -> str:
    if batch.ndim == 4 and min(batch.shape[2:]) > 2:
        return "image"
    return "row" if batch.ndim == 2 and batch.shape[1] <= _WIDE else "summary"


def _of_images(images: torch.Tensor, room: Room) -> tuple[torch.Tensor, list[str]]:
    channels, mean, whole = images.shape[1], images.mean((2, 3)), (1, 2, 3)
    one, other = (room.of(name, images.shape, images.device) for name in ("one", "other"))
    # Shares by signs, which are floats: what compares makes booleans, and those are summed at a tenth of the pace.
    centred = torch.sub(images, mean[..., None, None], out=one)
    spread = torch.linalg.vector_norm(centred, dim=(2, 3)) / math.sqrt(images[0, 0].numel())
    alike = torch.mul(centred[..., 1:], centred[..., :-1], out=other[..., 1:]).mean(whole) / (spread.square().mean(1) + _TINY)
    right = torch.sub(images[..., 1:], images[..., :-1], out=one[..., 1:])
    bent = torch.sub(right[..., 1:], right[..., :-1], out=other[..., 2:]).abs_().mean(whole)
    even = 1 - torch.sign(right, out=other[..., 1:]).abs_().mean(whole)
    across = right.abs_().mean(whole)
    down = torch.sub(images[:, :, 1:], images[:, :, :-1], out=other[:, :, 1:]).abs_().mean(whole)
    colour = torch.sub(images, images.mean(1, keepdim=True), out=other).abs_().mean(whole)
    least, most = images.amin(whole, keepdim=True), images.amax(whole, keepdim=True)
    ends = 1 - torch.sub(images, least, out=one).mul_(torch.sub(most, images, out=other)).sign_().mean(whole)
    names = [f"the brightness of channel {number + 1}" for number in range(channels)]
    names += [f"the contrast of channel {number + 1}" for number in range(channels)]
    names += ["the change across", "the change downwards", "the grain", "the share of fine detail", "how alike neighbours are"]
    columns = [mean, (spread + _TINY).log()]
    rest = [(across + _TINY).log(), (down + _TINY).log(), (bent + _TINY).log(), ((across + down + _TINY) / (spread.mean(1) + _TINY)).log()]
    rest.append(-(1 - alike.clamp(-1, 1) + 0.01).log())
    rest += [(ends + _TINY).log(), (even + 0.01).log()]
    names += ["the share of extreme values", "the share of equal neighbours"]
    if channels > 1:
        rest.append((colour + 0.1).log())
        names.append("the colour")
    return torch.cat([*columns, torch.stack(rest, 1)], 1), names

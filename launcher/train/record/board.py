"""TensorBoard: a view made from the metrics. It may fail; training goes on and says so once."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from launcher.trust.secret import mask

_TAGS: dict[str, str] = {"samples_per_second": "speed", "tokens_per_second": "speed", "mfu": "speed", "memory_bytes": "memory"}
_TAGS |= {"step_seconds": "time", "data_seconds": "time", "data_share": "time"}
"""The chart group of a metric that is not the task's own."""


def _never_fatal(method: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(method)
    def call(self: Board, *args: Any, **kwargs: Any) -> None:
        if self._writer is None:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # a full disk, a library's bug: nothing in a view is worth a training run
            self._writer = None
            print(f"warning: TensorBoard is off from here on ({error}); metrics.jsonl goes on", file=sys.stderr)

    return call


class Board:
    """Event files under tb/. `first_step` purges what a resumed run does again, so that no chart shows a step twice."""

    def __init__(self, path: Path, first_step: int) -> None:
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter

            purge = first_step if first_step > 0 else None
            self._writer = SummaryWriter(str(path), purge_step=purge, max_queue=100, flush_secs=10)
        except Exception as error:  # as above
            print(f"warning: no TensorBoard ({error}); metrics.jsonl has everything", file=sys.stderr)

    @_never_fatal
    def scalars(self, step: int, split: str, values: dict[str, Any]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]  # made at run time

        # one event for all of them: add_scalar per value costs six times as much
        numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
        shown = [Summary.Value(tag=f"{_TAGS.get(name, split)}/{name}", simple_value=value) for name, value in numbers.items()]
        self._writer.file_writer.add_summary(Summary(value=shown), step)

    @_never_fatal
    def layers(self, step: int, kind: str, values: dict[str, float]) -> None:
        """One number for each layer, by the layer's name."""
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]  # made at run time

        shown = [Summary.Value(tag=f"{kind}/{name}", simple_value=value) for name, value in values.items()]
        self._writer.file_writer.add_summary(Summary(value=shown), step)

    @_never_fatal
    def text(self, tag: str, text: str, step: int = 0) -> None:
        self._writer.add_text(tag, mask(text), step)

    @_never_fatal
    def images(self, tag: str, images: torch.Tensor, step: int) -> None:
        """images (N, 3 or 1, H, W) in [0, 1], as one grid of up to 8 columns."""
        self._writer.add_image(tag, grid(images, 8), step)

    @_never_fatal
    def matrix(self, tag: str, counts: torch.Tensor, names: Sequence[str], step: int, is_drawn: bool = False) -> None:
        """A confusion matrix as a heat map (row: label, column: prediction, each row sums to 1) and as a table. Without names, labels are
        numbers. `is_drawn`: another picture of it is there by this tag, of which TensorBoard shows one in a step."""
        if not is_drawn:
            shares = counts / counts.sum(1, keepdim=True).clamp_min(1)
            heat = (1 - shares.float()).repeat_interleave(24, 0).repeat_interleave(24, 1)
            self._writer.add_image(tag, heat.expand(3, -1, -1), step)
        names = names or [str(label) for label in range(len(counts))]
        rows = [" | ".join(["label", *names]), " | ".join(["---"] * (len(names) + 1))]
        for name, row in zip(names, counts.tolist(), strict=True):
            rows.append(" | ".join([f"**{name}**", *(f"{value:.0f}" for value in row)]))
        self._writer.add_text(f"{tag}_table", "\n".join(rows), step)

    @_never_fatal
    def hparams(self, settings: dict[str, Any], metrics: dict[str, float], step: int) -> None:
        """What the run was told beside the final metrics, in this run: `add_hparams` would open a stray run beside it."""
        from torch.utils.tensorboard.summary import hparams

        plain = {path: value if isinstance(value, int | float | bool) else mask(str(value)) for path, value in settings.items()}
        for summary in hparams(plain, metrics):
            self._writer.file_writer.add_summary(summary, step)
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    @_never_fatal
    def close(self) -> None:
        self._writer.close()


class NoBoard:
    """Every rank but the first."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


def grid(images: torch.Tensor, columns: int) -> torch.Tensor:
    """(N, C, H, W) -> (C, rows * (H + 2), columns * (W + 2)), white between them; no more columns than images, for TensorBoard makes the
    whole as wide as its card."""
    count, channels, height, width = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    grid = torch.ones(channels, rows * (height + 2), columns * (width + 2))
    for index, image in enumerate(images):
        top, left = index // columns * (height + 2), index % columns * (width + 2)
        grid[:, top : top + height, left : left + width] = image
    return grid

"""What is counted, in Prometheus' text format (https://prometheus.io/docs/instrumenting/exposition_formats/)."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator

from launcher.serve.batcher import Batcher

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds; the usual ones of Prometheus' clients."""


class Metrics:
    def __init__(self) -> None:
        self.by_status: Counter[int] = Counter()
        self.guarded = 0
        self._counts = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0

    def took(self, status: int, seconds: float) -> None:
        self.by_status[status] += 1
        self._counts[bisect_left(BUCKETS, seconds)] += 1
        self._seconds += seconds

    def text(self, batcher: Batcher) -> str:
        return "\n".join(self._lines(batcher)) + "\n"

    def _lines(self, batcher: Batcher) -> Iterator[str]:
        yield from _head("launcher_requests_total", "counter", "Requests to /predict, by status")
        yield from (f'launcher_requests_total{{status="{status}"}} {count}' for status, count in sorted(self.by_status.items()))
        yield from _head("launcher_request_seconds", "histogram", "From the first byte of a request to its answer")
        total = 0
        for edge, count in zip((*map(str, BUCKETS), "+Inf"), self._counts, strict=True):
            total += count
            yield f'launcher_request_seconds_bucket{{le="{edge}"}} {total}'
        yield f"launcher_request_seconds_sum {self._seconds:.6f}"
        yield f"launcher_request_seconds_count {total}"
        for name, kind, what, value in (
            ("launcher_batches_total", "counter", "Batches that were computed", batcher.batches),
            ("launcher_inputs_total", "counter", "Inputs in them", batcher.inputs),
            ("launcher_compute_seconds_total", "counter", "Seconds that they took", round(batcher.seconds, 6)),
            ("launcher_guarded_total", "counter", "Answers with a guard's word", self.guarded),
            ("launcher_waiting", "gauge", "Inputs that wait for a batch", len(batcher)),
        ):
            yield from _head(name, kind, what)
            yield f"{name} {value}"


def _head(name: str, kind: str, what: str) -> tuple[str, str]:
    return f"# HELP {name} {what}.", f"# TYPE {name} {kind}"

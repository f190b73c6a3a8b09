"""How far a long evaluation is: said now and then, shown where there is a bar, and no line where there is none."""

from __future__ import annotations

import pytest

from launcher.clusters.screen import PlainScreen
from launcher.rundir import progress
from launcher.train.record import pace


def test_the_batches_are_the_same_and_a_line_comes_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 1.0, 2.5, 3.0, 4.0, 5.0])
    monkeypatch.setattr(pace.time, "monotonic", lambda: next(clock))
    assert list(pace.counted(range(5), 5, "evaluating: test")) == [0, 1, 2, 3, 4]
    assert capsys.readouterr().out.splitlines() == [
        "batch 2/5  40.0%  evaluating: test",
        "batch 5/5  100.0%  evaluating: test",
    ]


def test_it_moves_a_bar_and_is_no_line_of_a_file(capfd: pytest.CaptureFixture[str]) -> None:
    line = progress.batch_line(2, 5, "evaluating: test")
    assert progress.of_batches(line) == (2, 5, "evaluating: test")
    assert progress.parse(line) is None, "no step of the training"
    screen = PlainScreen()
    for text in ("before", line, "batch 2 was bad"):
        screen.line(text)
    assert capfd.readouterr().out.splitlines() == ["before", "batch 2 was bad"]

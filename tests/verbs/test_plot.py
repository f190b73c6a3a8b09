"""`plot RUN…`: the curves that there are, in one picture."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Answer, refused
from made_runs import Made
from PIL import Image

from launcher.charts import curves
from launcher.rundir.rundir import RunDir

Command = Callable[..., Answer]

pytest.importorskip("matplotlib", reason="the extra plot is not installed")


def run_with(home: Path, *lines: dict[str, Any] | str) -> RunDir:
    run = Made(home).run
    run.metrics.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return run


def train(step: int, loss: Any, **more: Any) -> dict[str, Any]:
    return {"step": step, "split": "train", "loss": loss, "epoch": step / 10, "samples": 8 * step, **more}


def coloured(path: Path) -> int:
    """Pixels that are no grey: of the curves."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"), np.int16)
    return int((np.ptp(pixels, axis=2) > 60).sum())


def test_a_run_has_its_curves_in_its_directory(tmp_path: Path, command: Command) -> None:
    val = [{"step": step, "split": "val", "loss": 2 / step, "accuracy": 1 - 1 / step} for step in (10, 20, 30)]
    run = run_with(tmp_path, *(train(step, 3 / step, lr=0.1) for step in range(1, 31)), *val)
    answer = command("plot", str(run.path))
    assert (answer.code, answer.out, answer.err) == (0, f"{run.path / 'charts.png'}\n", "")
    with Image.open(run.path / "charts.png") as picture:
        assert picture.size == (round(3 * 4.6 * 110), round(3.3 * 110)), "loss, accuracy, lr; the run's name above"
    assert coloured(run.path / "charts.png") > 1000
    assert not [*run.path.glob(".charts*")]


def test_runs_are_in_one_picture_where_it_is_asked_for(tmp_path: Path, command: Command) -> None:
    runs = [run_with(tmp_path / name, *(train(step, rate / step) for step in range(1, 9))) for name, rate in (("a", 1), ("b", 4))]
    one = command("plot", str(runs[0].path), "to=one.png")
    words = ("plot", *(str(run.path) for run in runs), str(runs[0].path))
    both = command(*words, f"to={tmp_path}")
    assert (one.code, both.code) == (0, 0)
    assert both.out == f"{tmp_path / 'charts.png'}\n"
    assert coloured(tmp_path / "charts.png") > coloured(tmp_path / "one.png") * 1.3
    (tmp_path / "charts.png").unlink()
    unsaid = command(*words)
    assert unsaid.out == f"{runs[0].path / 'charts-of-2-runs.png'}\n", "in the first one"
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["one.png"], "and not where it was typed"


@pytest.mark.parametrize("to", ["new/a.png", "new/below", "new.d/"])
def test_a_directory_that_is_not_there_is_made(tmp_path: Path, command: Command, to: str) -> None:
    answer = command("plot", str(run_with(tmp_path / "run", train(1, 1.0)).path), f"to={to}")
    path = tmp_path / to if to.endswith("png") else tmp_path / to / "charts.png"
    assert (answer.code, answer.out) == (0, f"{path}\n")
    assert path.is_file()


def drawn(found: dict[RunDir, curves.Curves], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The figure itself, before it is pixels."""
    from matplotlib.figure import Figure

    kept: list[Any] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *words, **more: (kept.append(figure), save(figure, *words, **more))[1])
    curves.png(found, "plot")
    return kept[0]


def test_titles_are_words_with_units_and_one_point_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_with(tmp_path, train(1, 2.0, memory_bytes=3 << 30, data_seconds=0.002, my_own=1.0), {"step": 1, "split": "val", "loss": 1.0})
    figure = drawn({run: curves.of(run)}, monkeypatch)
    assert figure.get_suptitle() == run.label
    shown = {axes.get_title(): axes.lines for axes in figure.axes}
    assert [*shown] == ["loss", "milliseconds of a step that it waits for data", "memory, GiB", "my own"]
    assert [shown["memory, GiB"][0].get_ydata()[0], shown["milliseconds of a step that it waits for data"][0].get_ydata()[0]] == [3, 2]
    assert {line.get_marker() for lines in shown.values() for line in lines} == {"o"}
    assert len({line.get_color() for line in shown["loss"]}) == 2, "of one run each split has a colour"


def test_of_several_runs_each_has_a_colour_and_each_split_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    val = [{"step": step, "split": "val", "loss": 1 / step} for step in (1, 40)]
    runs = [run_with(tmp_path / name, *(train(step, 2 / step) for step in range(1, 41)), *val) for name in "ab"]
    figure = drawn({run: curves.of(run) for run in runs}, monkeypatch)
    lines = [(line.get_color(), line.get_linestyle(), line.get_marker()) for line in figure.axes[0].lines]
    assert lines == [("C0", "-", ""), ("C0", "--", "o"), ("C1", "-", ""), ("C1", "--", "o")]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*(f" {run.label}" for run in runs), " train", " val"]
    assert figure.axes[0].get_legend() is None


def test_what_was_done_again_counts_once_and_what_is_no_number_not_at_all(tmp_path: Path, command: Command) -> None:
    lines: list[dict[str, Any] | str] = [train(step, float(step)) for step in (1, 2, 3, 4)]
    lines += [
        train(3, 30.0),
        train(4, float("nan")),
        train(5, 10**400),
        train(6, None),
        train(7, True),
        "torn",
        train(-1, 1.0),
        train(8, 8.0),
    ]
    run = run_with(tmp_path, *lines, {"step": 8, "split": "_odd$", "a $b_": 1.0})
    assert curves.of(run) == {("loss", "train"): {1: 1.0, 2: 2.0, 3: 30.0, 8: 8.0}, ("a $b_", "_odd$"): {8: 1.0}}
    assert command("plot", str(run.path)).code == 0


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        ((), 2, ("plot takes runs, or a sweep",)),
        (("{run}", "to=a.png", "to=b.png"), 2, ("to=b.png: to=a.png is there already; type to= once",)),
        (("{run}", "--fast"), 2, ("plot --fast: there is no such flag; type plot RUN… [to=DIR|FILE.png]",)),
        (("{run}", "to=a.jpg"), 2, ("to=a.jpg: the picture is a PNG; type to=a.png",)),
        (("{run}", "to={run}/metrics.jsonl/a.png"), 2, ("metrics.jsonl is a file, and no directory; type another",)),
        (("{empty}",), 3, ("metrics.jsonl has no metrics yet",)),
        (("nobody",), 2, ("nobody",)),
    ],
)
def test_what_cannot_be_drawn_is_one_line(
    tmp_path: Path, command: Command, words: tuple[str, ...], code: int, parts: tuple[str, ...]
) -> None:
    places = {"run": run_with(tmp_path / "full", train(1, 1.0)).path, "empty": run_with(tmp_path / "empty").path}
    refused(command("plot", *(word.format(**places) for word in words)), code, *parts)
    assert not [*tmp_path.rglob("*.png")]


def test_without_matplotlib_a_line_says_what_to_type(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    refused(command("plot", str(run_with(tmp_path, train(1, 1.0)).path)), 2, "plot needs matplotlib", "pip install 'launcher[plot]'")

"""Best first, whichever way that is; and a task of one's own, chosen from an experiment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import Answer

from launcher import sweep


@pytest.mark.parametrize("name", ["loss", "val_mae", "test_MSE", "rmse", "WER", "test_nll", "fid", "top5_error", "cross_entropy"])
def test_less_is_better_of_errors(name: str) -> None:
    rows = [{"number": number, name: value} for number, value in enumerate((2.0, 1.0, 3.0))]
    assert [row[name] for row in sorted(rows, key=sweep._order(name))] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("name", ["accuracy", "val_f1", "glossary_score", "terror_recall", "map", "bleu"])
def test_more_is_better_of_the_rest(name: str) -> None:
    rows = [{"number": number, name: value} for number, value in enumerate((2.0, 1.0, 3.0))]
    assert [row[name] for row in sorted(rows, key=sweep._order(name))] == [3.0, 2.0, 1.0]


def test_a_task_is_chosen_from_an_experiment(command: Callable[..., Answer], tmp_path: Path) -> None:
    for folder in ("exp", "task"):
        (tmp_path / "mine" / folder).mkdir(parents=True)
    (tmp_path / "mine" / "task" / "mine.yaml").write_text("_target_: toyproject.net.Net\nclasses: 3\n")
    (tmp_path / "mine" / "exp" / "mine.yaml").write_text("# @package _global_\ndefaults:\n  - override /task: mine\ntrust: [toyproject]\n")
    done = command("--config-dir", str(tmp_path / "mine"), "+exp=mine", "--cfg", "job", "--package", "task")
    assert done.code == 0, done.err
    assert "label_smoothing" not in done.out
    assert "classes: 3" in done.out

"""Best first, whichever way that is; and a task of one's own, chosen from an experiment."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import TOY, Answer
from omegaconf import OmegaConf

from launcher.errors import TrainingFailed
from launcher.rundir import sweep
from launcher.rundir.objective import Objective
from launcher.rundir.rundir import RunDir
from launcher.verbs import run

LESS = ["loss", "val_mae", "test_MSE", "rmse", "WER", "test_nll", "fid", "top5_error", "cross_entropy", "val_mape", "fpr", "errors"]
MORE = ["accuracy", "val_f1", "glossary_score", "terror_recall", "map", "bleu", "val_found", "whatever"]


def made(tmp_path: Path, objective: object, summaries: list[dict[str, object]]) -> Path:
    """A sweep whose members have ended so."""
    here = tmp_path / "runs" / ".sweeps" / "s"
    here.mkdir(parents=True)
    members: list[dict[str, object]] = []
    for number, summary in enumerate(summaries):
        member = tmp_path / "runs" / "a" / f"s-{number}"
        member.mkdir(parents=True)
        (member / "summary.json").write_text(json.dumps({"state": "done", "attempt": 0, "steps": 4, "seconds": 1.0, **summary}))
        members.append({"number": number, "overrides": [f"seed={number}"], "run": str(member)})
    (here / "sweep.json").write_text(json.dumps({"objective": objective, "members": members}))
    return here


@pytest.mark.parametrize(
    ("name", "order", "way"), [*((name, [1, 0, 2], "lowest") for name in LESS), *((name, [2, 0, 1], "highest") for name in MORE)]
)
def test_best_first_by_the_name_of_the_metric(name: str, order: list[int], way: str) -> None:
    rows = [{"number": number, name: value} for number, value in enumerate((2.0, 1.0, 3.0))]
    objective = Objective.of(name)
    assert [row["number"] for row in sorted(rows, key=sweep._order(objective))] == order
    assert str(objective) == f"{name}, {way} first"


@pytest.mark.parametrize(
    ("asked", "names", "order", "line"),
    [
        ("val_accuracy", ("val_accuracy", "test_accuracy"), "120", "by val_accuracy, highest first; written"),
        ("val_accuracy", ("test_accuracy",), "120", "by test_accuracy, highest first (no summary has val_accuracy); written"),
        ("test_mae", ("val_mae",), "021", "by val_mae, lowest first (no summary has test_mae); written"),
        ("val_accuracy", ("val_wer", "val_loss"), "021", "by val_loss, lowest first (no summary has val_accuracy); written"),
        ("val_accuracy", ("val_wer",), "012", "by val_accuracy, highest first (no summary has it; what there is: val_wer; in the next"),
        ({"metric": "val_mape", "mode": "max"}, ("val_mape",), "120", "by val_mape, highest first; written"),
        ({"metric": "val_count", "mode": "min"}, ("test_count",), "021", "by test_count, lowest first (no summary has val_count)"),
        ("val_count", ("val_count",), "120", "by val_count, highest first; written"),
    ],
)
def test_collect_says_by_what(
    command: Callable[..., Answer], tmp_path: Path, asked: object, names: tuple[str, ...], order: str, line: str
) -> None:
    here = made(tmp_path, asked, [dict.fromkeys(names, value) for value in (1.0, 3.0, 2.0)])
    done = command("collect", str(here))
    assert done.code == 0, done.err
    assert line in done.out
    assert "".join(str(row["number"]) for row in json.loads((here / "collected.json").read_text())) == order


def test_the_objective_is_said_by_a_word_or_with_its_mode(command: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / "mine" / "exp").mkdir(parents=True)
    (tmp_path / "mine" / "exp" / "by.yaml").write_text("# @package _global_\nobjective: {metric: val_mape, mode: max}\n")
    assert command("plan", "--config-dir", str(tmp_path / "mine"), "+exp=by").code == 0
    assert "mode: max" in command("--config-dir", str(tmp_path / "mine"), "+exp=by", "--cfg", "job").out
    for word in ("objective=test_mae", "objective={metric:val_mape,mode:max}", "objective={metric:val_mape}"):
        assert command("plan", *TOY, word).code == 0, word
    for word in ("objective={metric:val_mape,mode:up}", "objective={mode:max}", "objective=3", "objective=[a]", "objective=null"):
        done = command("plan", *TOY, word)
        assert (done.code, len(done.lines)) == (2, 1), word
        assert "or {metric: val_mape, mode: min}" in done.err


def test_a_task_is_chosen_from_an_experiment(command: Callable[..., Answer], tmp_path: Path) -> None:
    for folder in ("exp", "task"):
        (tmp_path / "mine" / folder).mkdir(parents=True)
    (tmp_path / "mine" / "task" / "mine.yaml").write_text("_target_: toyproject.net.Net\nclasses: 3\n")
    (tmp_path / "mine" / "exp" / "mine.yaml").write_text("# @package _global_\ndefaults:\n  - override /task: mine\ntrust: [toyproject]\n")
    done = command("--config-dir", str(tmp_path / "mine"), "+exp=mine", "--cfg", "job", "--package", "task")
    assert done.code == 0, done.err
    assert "label_smoothing" not in done.out
    assert "classes: 3" in done.out


@pytest.mark.parametrize(
    ("asked", "summary", "told", "line"),
    [
        ("val_accuracy", {"val_accuracy": 0.5, "test_accuracy": 0.9}, 0.5, ""),
        ("val_accuracy", {"val_loss": 0.1, "test_accuracy": 0.9}, 0.9, "no val_accuracy; the sweeper is told test_accuracy"),
        ({"metric": "val_mape", "mode": "min"}, {"val_mape": 0.25}, 0.25, ""),
        ("val_accuracy", {"val_loss": 0.1}, None, ""),
    ],
)
def test_what_a_sweeper_that_asks_is_told(
    command: Callable[..., Answer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    asked: object,
    summary: dict[str, float],
    told: float | None,
    line: str,
) -> None:
    """A loss in place of an accuracy would turn its search round."""
    here = RunDir(made(tmp_path, asked, [summary]).parent.parent / "a" / "s-0")
    monkeypatch.setattr(run, "launch", lambda *_: here)
    monkeypatch.setattr(run.queues, "ask", lambda runs: None)
    monkeypatch.setattr(run.standing, "standing", lambda *_: SimpleNamespace(alive=False))
    config = OmegaConf.create({"objective": asked})
    if told is None:
        with pytest.raises(TrainingFailed, match="ended without val_accuracy"):
            run._launch_and_wait(config, [])
        return
    assert run._launch_and_wait(config, []) == told
    err = capfd.readouterr().err
    assert line in err
    assert err.count("\n") == bool(line)

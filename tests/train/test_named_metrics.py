"""Metrics of torchmetrics by name: what the package's own classes say of the whole split, however it was shared out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import finish

from launcher.rundir.objective import Objective
from launcher.train.tasks.classification import Classification
from launcher.train.tasks.regression import Regression

SHARES = ((0, 0), (0, 1), (1, 90), (90, 200))
"""Of four ranks, of which one has nothing."""


def merged(task: Any, whole: tuple[torch.Tensor, torch.Tensor], shares: tuple[tuple[int, int], ...] = SHARES) -> dict[str, float]:
    total = task.metrics()
    for begin, end in shares:
        rank = task.metrics()
        for at in range(begin, end, 7):
            rank.update(lambda x: x, tuple(each[at : min(end, at + 7)] for each in whole))
        total.merge(rank.state())
    return total.result()


def scored(classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(classes)
    labels = torch.randint(0, classes, (200,), generator=draw)
    scores = 3 * torch.randn(200, classes, generator=draw)
    scores[torch.arange(200), labels] += 2
    return scores, labels


def numbers(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(count)
    wanted = torch.rand(200, count, generator=draw, dtype=torch.float64) + 0.5
    return wanted + 0.1 * torch.randn(200, count, generator=draw, dtype=torch.float64), wanted


CLASSES = [
    ("cohen_kappa", {}, "MulticlassCohenKappa"),
    ("cohen_kappa", {"weights": "quadratic"}, "MulticlassCohenKappa"),
    ("matthews_corrcoef", {}, "MulticlassMatthewsCorrCoef"),
    ("specificity", {}, "MulticlassSpecificity"),
    ("fbeta_score", {"beta": 2.0}, "MulticlassFBetaScore"),
    ("calibration_error", {}, "MulticlassCalibrationError"),
    ("average_precision", {}, "MulticlassAveragePrecision"),
]


@pytest.mark.parametrize(("name", "keywords", "kind"), CLASSES)
def test_a_metric_of_classes_is_the_packages_own_of_the_whole_split(name: str, keywords: dict[str, Any], kind: str) -> None:
    package = pytest.importorskip("torchmetrics.classification")
    scores, labels = whole = scored(5)
    task = Classification(metrics=["f1", {name: keywords}])
    found = merged(task, whole)
    theirs = getattr(package, kind)(num_classes=5, **keywords)
    assert found[name] == pytest.approx(float(theirs(scores.softmax(1), labels)), abs=1e-6)
    assert found[name] == merged(task, whole, ((0, 200),))[name]
    assert list(found) == ["loss", "accuracy", "f1", name, "samples"]


def test_a_metric_of_two_classes_has_the_chance_of_the_second() -> None:
    package = pytest.importorskip("torchmetrics.classification")
    scores, labels = whole = scored(2)
    found = merged(Classification(metrics=["binary_recall", {"binary_specificity": {"threshold": 0.8}}]), whole)
    chance = scores.softmax(1)[:, 1]
    assert found["binary_recall"] == pytest.approx(float(package.BinaryRecall()(chance, labels)), abs=1e-6)
    assert found["binary_specificity"] == pytest.approx(float(package.BinarySpecificity(threshold=0.8)(chance, labels)), abs=1e-6)
    with pytest.raises(ValueError, match=r"^task\.metrics: binary_recall is of two classes, and the model has 5; leave out binary_$"):
        merged(Classification(metrics=["binary_recall"]), scored(5))


@pytest.mark.filterwarnings("ignore:Metric `SpearmanCorrcoef` will save all")
@pytest.mark.parametrize("count", [1, 3])
def test_a_metric_of_numbers_is_the_packages_own_of_the_whole_split(count: int) -> None:
    """Pearson's correlation is none that its class reduces by a sum."""
    package = pytest.importorskip("torchmetrics.regression")
    found_numbers, wanted = whole = numbers(count)
    task = Regression(metrics=["pearson_corrcoef", "spearman_corrcoef", "mean_absolute_percentage_error"])
    found = merged(task, whole)
    pair = [each.squeeze(1).float() if count == 1 else each.float() for each in whole]
    for name, theirs in (
        ("pearson_corrcoef", package.PearsonCorrCoef(num_outputs=count)),
        ("spearman_corrcoef", package.SpearmanCorrCoef(num_outputs=count)),
        ("mean_absolute_percentage_error", package.MeanAbsolutePercentageError()),
    ):
        assert found[name] == pytest.approx(float(theirs(*pair).mean()), rel=1e-5)
        assert found[name] == pytest.approx(merged(task, whole, ((0, 200),))[name], abs=1e-12)
    assert list(found)[:4] == ["loss", "mae", "rmse", "r2"]
    (plain := Regression().metrics()).update(lambda x: x, (found_numbers, wanted))
    assert list(plain.state()) == ["moments"], "what costs memory is kept only where it is asked for"


REFUSED = [
    (["cohen_kapa"], r"cohen_kapa is none of ours, which are top5 .*, f1 and auroc, nor of torchmetrics; did you mean cohen_kappa\?$"),
    (["multilabel_recall"], "multilabel_recall is none of ours"),
    (["__builtins__"], "__builtins__ is none of ours"),
    (["accuracy"], "accuracy is always there; leave it out, or type recall, which is its mean over the classes$"),
    (["confusion_matrix"], "confusion_matrix comes to more than one number; type one that comes to one, or its average$"),
    (["roc"], "roc comes to more than one number"),
    ([{"recall": {"average": "none"}}], "recall comes to more than one number"),
    (["fbeta_score"], r"fbeta_score: .* missing 1 required positional argument: 'beta'$"),
    ([{"cohen_kappa": {"weight": "linear"}}], r"cohen_kappa: .* unexpected keyword argument 'weight'"),
    ([{"cohen_kappa": {"num_classes": 10}}], "cohen_kappa has num_classes from the model; leave it out$"),
    ([{"recall": {"average": "macros"}}], "recall: .*macros"),
    (["recall", {"recall": {"average": "micro"}}], "recall is there twice; leave out one$"),
]


@pytest.mark.parametrize(("asked", "said"), REFUSED)
def test_what_cannot_be_is_refused_before_the_first_step(asked: list[Any], said: str) -> None:
    pytest.importorskip("torchmetrics")
    with pytest.raises(ValueError, match=rf"^task\.metrics: {said}") as caught:
        Classification(metrics=asked)
    assert "\n" not in str(caught.value)


def test_numbers_have_others() -> None:
    pytest.importorskip("torchmetrics")
    with pytest.raises(ValueError, match=r"^task\.metrics: cohen_kappa is none of ours, which are always there \(mae, rmse, r2\), nor of"):
        Regression(metrics=["cohen_kappa"])
    with pytest.raises(ValueError, match=r"^task\.metrics: minkowski_distance: .* missing 1 required positional argument: 'p'$"):
        Regression(metrics=["minkowski_distance"])
    with pytest.raises(ValueError, match=r"^task\.metrics: kl_divergence is not of what a model found and what was wanted; type another"):
        Regression(metrics=["kl_divergence"])  # by place it would be that of the other from the one
    found, wanted = whole = numbers(3)
    several = merged(Regression(metrics=[{"minkowski_distance": {"p": 3}}, {"cosine_similarity": {"reduction": "mean"}}]), whole)
    assert several["cosine_similarity"] == pytest.approx(float(torch.cosine_similarity(found, wanted).mean()))
    assert several["minkowski_distance"] == pytest.approx(float((found - wanted).abs().pow(3).sum() ** (1 / 3)))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_say_what_one_does(tmp_path: Path) -> None:
    """Of 359 samples to test on, so that their shares are not equal; at that rate the weights are those of the seed."""
    pytest.importorskip("torchmetrics")
    asked = "task.metrics=[cohen_kappa,calibration_error,{fbeta_score:{beta:2.0}}]"
    said: list[dict[str, Any]] = []
    for processes in (1, 2):
        given = ("+exp=digits", "optim.lr=1e-9", "train.steps=2", f"runs_dir={tmp_path}", f"id=of{processes}", asked)
        done = finish(tmp_path, [*given, f"cluster.processes_per_node={processes}"], timeout=140)
        assert done.returncode == 0, done.stderr
        said.append(json.loads((Path(done.stdout.splitlines()[-1]) / "summary.json").read_text()))
    for name in ("cohen_kappa", "calibration_error", "fbeta_score"):
        assert said[0][f"test_{name}"] != 0
        assert said[1][f"test_{name}"] == pytest.approx(said[0][f"test_{name}"], abs=1e-6)
        assert f"val_{name}" in said[0]


@pytest.mark.parametrize("entry", [3, ["f1"], {"recall": {}, "precision": {}}, {"recall": "macro"}])
def test_an_entry_that_is_no_metric(entry: Any) -> None:
    with pytest.raises(ValueError, match=r"^task\.metrics: .* is no metric; type its name, or \{name: \{keyword: value\}\}$"):
        Classification(metrics=[entry])


def test_one_name_is_no_list() -> None:
    with pytest.raises(ValueError, match=r"^task\.metrics=auroc is no list; type task\.metrics=\[auroc\]$"):
        Classification(metrics="auroc")


def test_ours_take_no_keywords() -> None:
    with pytest.raises(ValueError, match=r"^task\.metrics: auroc is ours and takes no keywords; type auroc alone$"):
        Classification(metrics=[{"auroc": {"max_fpr": 0.1}}])


@pytest.mark.parametrize("task", [Classification, Regression])
def test_where_torchmetrics_is_not_there_one_line_says_what_to_type(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each.split(".")[0] == "torchmetrics"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(ValueError, match=r"^task\.metrics: cohen_kappa is none of ours, .* type pip install 'launcher\[metrics\]'$"):
        task(metrics=["cohen_kappa"])
    assert merged(Classification(metrics=["f1", "auroc"]), scored(3))["auroc"] > 0.5, "ours need it not"


def test_a_name_says_which_way_is_better() -> None:
    """As `higher_is_better` of the class does, for whoever stops early or ranks a sweep by one."""
    package = pytest.importorskip("torchmetrics")
    functions = pytest.importorskip("torchmetrics.functional.classification").__all__
    functions = [*functions, *pytest.importorskip("torchmetrics.functional.regression").__all__]
    kinds = {name.lower(): kind for module in (package.classification, package.regression) for name, kind in vars(module).items()}
    judged = {name: kinds[plain] for name in functions if (plain := name.replace("_", "")) in kinds}
    better = {name: kind.higher_is_better for name, kind in judged.items() if isinstance(kind.higher_is_better, bool)}
    for refused in ("binary_fairness", "continuous_ranked_probability_score"):  # of several numbers, and of an ensemble
        better.pop(refused, None)
    wrong = [name for name, is_higher in better.items() if (Objective.of(f"val_{name}").mode == "max") is not is_higher]
    assert len(better) > 50
    assert wrong == []

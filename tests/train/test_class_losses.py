"""Weights of classes, the focal loss, labels that are probabilities: what whole batches come to, however they are shared out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from launcher.train.loss import Loss, Shares
from launcher.train.record.clock import Clock
from launcher.train.record.meter import Meter
from launcher.train.tasks.classification import Classification
from launcher.train.tasks.composite import Composite
from launcher.train.tasks.task import Step
from launcher.train.watch import NoWatch

WEIGHTS = [0.5, 2.0, 0.0, 1.25]


def batch(samples: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(samples)
    return torch.randn(samples, 5, generator=draw), torch.randint(0, 4, (samples,), generator=draw)


def network() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(5, 4)


def value(steps: Sequence[Step]) -> torch.Tensor:
    return torch.stack([step.loss.detach() for step in steps]).sum() / sum(float(step.weight) for step in steps)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("soft", [False, True])
def test_unequal_shares_come_to_the_weighted_mean_of_the_whole(smoothing: float, soft: bool) -> None:
    """As torch has it for the whole batch. Labels as probabilities that are certain are the same labels."""
    model, (samples, labels) = network(), batch()
    given = F.one_hot(labels, 4).float() if soft else labels
    task = Classification(smoothing, class_weights=WEIGHTS)
    steps = [task.step(model, (samples[part], given[part])) for part in (slice(0, 3), slice(3, 17), slice(17, 24))]
    expected = nn.CrossEntropyLoss(torch.tensor(WEIGHTS), label_smoothing=smoothing)(model(samples), labels)
    assert float(value(steps)) == pytest.approx(expected.item(), rel=1e-6)
    told = task.train_metrics(steps[0].loss.item(), float(steps[0].weight), [float(each) for each in steps[0].statistics])
    assert told["accuracy"] == (model(samples[:3]).argmax(1) == labels[:3]).double().mean().item()


def test_the_gradient_of_an_update_is_that_of_the_weighted_mean() -> None:
    """Through the loop's own weighing, over micro-batches of which some classes have more weight."""
    model, (samples, labels) = network(), batch()
    task, meter = Classification(class_weights=WEIGHTS), Meter(torch.device("cpu"))
    loss = Loss(task, model, meter, Shares(24, 3, 1), None, NoWatch(), Clock())
    for begin in range(0, 24, 8):
        loss((samples[begin : begin + 8], labels[begin : begin + 8]))
    loss.weigh(model.parameters())
    assert model.weight.grad is not None
    nn.CrossEntropyLoss(torch.tensor(WEIGHTS))((other := network())(samples), labels).backward()
    torch.testing.assert_close(model.weight.grad, other.weight.grad)


def test_mixed_labels_are_learnt_and_accuracy_asks_for_the_likelier() -> None:
    model, (samples, labels) = network(), batch()
    mixed = 0.7 * F.one_hot(labels, 4).float() + 0.3 * F.one_hot(labels.flip(0), 4).float()
    step = Classification(0.1).step(model, (samples, mixed))
    assert step.weight == 24
    expected = -((0.9 * mixed + 0.1 / 4) * model(samples).log_softmax(1)).sum()
    torch.testing.assert_close(step.loss, expected)
    assert step.statistics[0] == (model(samples).argmax(1) == labels).sum()
    weighted = Classification(class_weights=WEIGHTS).step(model, (samples, mixed))
    assert float(weighted.weight) == pytest.approx(float((mixed * torch.tensor(WEIGHTS)).sum()))
    found, whole = Classification().metrics(), Classification().metrics()
    with torch.no_grad():
        found.update(model, (samples, mixed))
        whole.update(model, (samples, labels))
    assert found.result()["accuracy"] == whole.result()["accuracy"]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_focal_loss_is_equation_5(gamma: float) -> None:
    model, (samples, labels) = network(), batch()
    step = Classification(loss="focal", gamma=gamma, class_weights=WEIGHTS).step(model, (samples, labels))
    p = model(samples).softmax(1)[torch.arange(24), labels]
    alpha = torch.tensor(WEIGHTS)[labels]
    torch.testing.assert_close(step.loss, -(alpha * (1 - p) ** gamma * p.log()).sum())
    torch.testing.assert_close(step.weight, alpha.sum())
    plain = Classification(loss="focal").step(model, (samples, labels))
    torch.testing.assert_close(plain.loss, -((1 - p) ** 2 * p.log()).sum())
    assert plain.weight == 24


def test_a_focal_loss_that_is_certain_has_a_gradient() -> None:
    scores = torch.tensor([[200.0, 0.0]], requires_grad=True)
    Classification(loss="focal", gamma=0.5).step(lambda x: x, (scores, torch.tensor([0]))).loss.backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()


def test_balanced_weights_are_of_the_training_part() -> None:
    """n / (k count) as in scikit-learn; a class that only the model has weighs nothing."""
    from sklearn.utils.class_weight import compute_class_weight

    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    for task in (plain := Classification(class_weights="balanced"), Composite({"label": Classification(class_weights="balanced")})):
        assert task.needs_labels
        task.learn_labels(labels)
    assert not Composite({"label": Classification()}).needs_labels
    expected = compute_class_weight("balanced", classes=torch.arange(3).numpy(), y=labels.numpy())
    step = plain.step(network(), (torch.ones(4, 5), torch.tensor([0, 1, 2, 2])))
    assert float(step.weight) == pytest.approx(expected[[0, 1, 2, 2]].sum())
    assert plain.step(network(), (torch.ones(1, 5), torch.tensor([3]))).weight == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loss": "hinge"}, "task.loss=hinge cannot be; type one of cross_entropy, focal"),
        ({"gamma": 2.0}, "task.gamma=2.0: cross-entropy has none; type task.loss=focal"),
        ({"loss": "focal", "gamma": -1.0}, "task.gamma=-1.0 cannot be"),
        ({"loss": "focal", "label_smoothing": 0.1}, "task.label_smoothing=0.1: the focal loss is of one class"),
        ({"class_weights": "even"}, "task.class_weights=even cannot be; type balanced"),
        ({"class_weights": [1, -1]}, r"task.class_weights=\[1, -1\] cannot be"),
        ({"class_weights": [0, 0.0]}, r"task.class_weights=\[0, 0.0\] cannot be"),
        ({"metrics": ["top1"]}, r"task.metrics: top1 is none of ours, which are top5 \(or another number from 2\), f1 and auroc"),
        ({"metrics": ["f2"]}, "task.metrics: f2 is none of ours"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Classification(**options)


def test_what_the_first_step_shows_not_to_fit_is_refused() -> None:
    model, (samples, labels) = network(), batch()
    with pytest.raises(ValueError, match=r"task\.class_weights: there are 2, and the model has 4 classes"):
        Classification(class_weights=[1, 2]).step(model, (samples, labels))
    with pytest.raises(ValueError, match=r"task\.loss=focal: it takes one class"):
        Classification(loss="focal").step(model, (samples, F.one_hot(labels, 4).float()))


@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, 7, 1], r"^data: a sample has the label 7, and model\.num_classes=4 takes 0 to 3; type another model\.num_classes, or mend"),
        ([0, -1, 1], r"^data: a sample has the label -1, and model\.num_classes=4 takes 0 to 3"),
        (
            [0.5, 1.0, 2.0],
            r"^data: labels are float32, and task=classification takes whole numbers; return int\(label\), or type task=regr",
        ),
    ],
)
def test_a_label_that_the_model_has_no_score_for_is_one_line(loss: str, labels: list[float], said: str) -> None:
    task, given = Classification(loss=loss), (torch.randn(3, 5), torch.tensor(labels))
    with pytest.raises(ValueError, match=said):
        task.step(network(), given)
    with pytest.raises(ValueError, match=said):
        task.metrics().update(network(), given)


def test_what_else_torch_refuses_is_torchs_word() -> None:
    with pytest.raises((ValueError, RuntimeError), match="batch"):
        Classification().step(network(), (torch.randn(3, 5), torch.tensor([0, 1])))

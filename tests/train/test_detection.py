"""Boxes in pictures: the losses by hand, which point finds which box, what stays of many boxes, and metrics that are merged."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from launcher.answers.boxes import giou, overlaps, survivors
from launcher.train.tasks.assignment import assign, centredness
from launcher.train.tasks.detection import Detection, focal, losses
from launcher.train.tasks.drawn import visible, with_boxes

Tensors = dict[str, torch.Tensor]


def boxes(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


# ---------------------------------------------------------------- boxes


def test_overlaps_of_pairs() -> None:
    one, other = boxes([0, 0, 4, 4], [10, 10, 12, 12]), boxes([2, 2, 6, 6], [0, 0, 4, 4], [10, 10, 12, 14])
    expected = torch.tensor([[4 / 28, 1, 0], [0, 0, 4 / 8]], dtype=torch.float64)
    torch.testing.assert_close(overlaps(one, other), expected)


def test_giou_by_hand() -> None:
    # 4 of 28, and the box around both has 36: 1/7 - 8/36; apart: -(50 - 8) / 50
    one, other = boxes([0, 0, 4, 4], [0, 0, 2, 2], [0, 0, 3, 3]), boxes([2, 2, 6, 6], [3, 8, 5, 10], [0, 0, 3, 3])
    torch.testing.assert_close(giou(one, other), torch.tensor([1 / 7 - 8 / 36, -42 / 50, 1], dtype=torch.float64))


def test_losses_have_the_gradients_that_differences_give() -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(6, 2, generator=generator, dtype=torch.float64) * 5
    one = torch.cat((low, low + 1 + torch.rand(6, 2, generator=generator, dtype=torch.float64) * 5), 1).requires_grad_()
    other = (one.detach() + torch.rand(6, 4, generator=generator, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(giou, (one, other))
    scores = (4 * torch.randn(5, 3, generator=generator, dtype=torch.float64)).requires_grad_()
    wanted = (torch.rand(5, 3, generator=generator) < 0.5).double()
    assert torch.autograd.gradcheck(lambda each: focal(each, wanted), (scores,))


def test_focal_by_hand() -> None:
    """p = 3/4: of what is there 0.25 * (1/4)^2 * -ln(3/4); of what is not 0.75 * (3/4)^2 * -ln(1/4)."""
    score = torch.full((2,), math.log(3.0))
    expected = [0.25 / 16 * -math.log(3 / 4), 0.75 * 9 / 16 * -math.log(1 / 4)]
    assert focal(score, torch.tensor([1.0, 0.0])).tolist() == pytest.approx(expected)
    surely = focal(torch.tensor([200.0, -200.0]), torch.tensor([0.0, 1.0]))
    assert surely.tolist() == pytest.approx([150.0, 50.0]), "no infinity"


def greedy(these: torch.Tensor, classes: torch.Tensor, most: float) -> list[bool]:
    stays: list[bool] = []
    for place in range(len(these)):
        beaten = overlaps(these[: place + 1], these[: place + 1])[place, :place] > most
        stays.append(not any(bool(beaten[other]) and stays[other] and classes[other] == classes[place] for other in range(place)))
    return stays


def test_what_stays_is_what_one_after_the_other_leaves() -> None:
    generator = torch.Generator().manual_seed(3)
    low = torch.rand(4, 60, 2, generator=generator) * 20
    these = torch.cat((low, low + 5 + torch.rand(4, 60, 2, generator=generator) * 10), 2)
    classes = torch.randint(2, (4, 60), generator=generator)
    stays = survivors(these, classes, 0.4)
    assert stays.tolist() == [greedy(each, kinds, 0.4) for each, kinds in zip(these, classes, strict=True)]
    assert 10 < stays.sum() < 200


def test_a_chain_is_settled_link_by_link() -> None:
    """Each overlaps the next one: every other stays."""
    left = torch.arange(9.0)
    these = torch.stack((left, left * 0, left + 2, left * 0 + 1), 1)[None]
    assert survivors(these, torch.zeros(1, 9, dtype=torch.int64), 0.3).tolist() == [[True, False] * 4 + [True]]


# ---------------------------------------------------------------- points


def grid(size: int, *strides: int) -> tuple[torch.Tensor, torch.Tensor]:
    points, of = [], []
    for stride in strides:
        middles = (torch.arange(size // stride) + 0.5) * stride
        points.append(torch.stack((middles.repeat(len(middles)), middles.repeat_interleave(len(middles))), 1))
        of.append(torch.full((len(middles) ** 2,), float(stride)))
    return torch.cat(points), torch.cat(of)


def target(*rows: list[float], labels: list[int] | None = None, ignored: list[bool] | None = None) -> Tensors:
    """One picture."""
    count = len(rows)
    made = {"boxes": torch.tensor(rows)[None], "labels": torch.tensor(labels or [0] * count)[None]}
    return {**made, "ignored": torch.tensor(ignored or [False] * count)[None]}


def assigned(strides: tuple[int, ...], targets: Tensors, size: int = 128) -> Any:
    return assign(*grid(size, *strides), targets["boxes"], targets["labels"], targets["ignored"])


def test_points_in_the_middle_of_a_box_find_it() -> None:
    found = assigned((8,), target([16.0, 16.0, 72.0, 72.0]))
    rows = found.box.view(16, 16)
    # within 1.5 strides of (44, 44), a point itself
    assert torch.nonzero(rows == 0).tolist() == [[y, x] for y in (4, 5, 6) for x in (4, 5, 6)]
    assert found.distances.view(16, 16, 4)[5, 5].tolist() == [3.5, 3.5, 3.5, 3.5]
    assert found.counts.all()


def test_the_smallest_of_several_is_found_and_what_is_none_never() -> None:
    found = assigned((8,), target([0.0, 0.0, 64.0, 64.0], [24.0, 24.0, 40.0, 40.0], [0.0, 0.0, 0.0, 0.0], labels=[0, 1, -1]))
    rows = found.box.view(16, 16)
    assert {*rows[3:5, 3:5].flatten().tolist()} == {1}
    assert 2 not in found.box


def test_a_level_is_for_boxes_of_its_size() -> None:
    small, large = target([40.0, 40.0, 88.0, 88.0]), target([0.0, 0.0, 128.0, 128.0])
    for targets, level in ((small, 8), (large, 16)):
        points = grid(128, 8, 16)[1]
        found = assigned((8, 16), targets).box[0]
        assert {*points[found >= 0].tolist()} == {level}, "the farthest edge is 64 pixels away at most, or more"


def test_within_an_ignored_box_no_class_is_asked_for() -> None:
    found = assigned((8,), target([0.0, 0.0, 64.0, 64.0], [24.0, 24.0, 40.0, 40.0], ignored=[True, False]))
    counts, rows = found.counts.view(16, 16), found.box.view(16, 16)
    assert torch.equal(counts[:8, :8], rows[:8, :8] == 1)
    assert counts[8:].all()


def test_the_middle_is_1_and_an_edge_is_0() -> None:
    found = centredness(torch.tensor([[2.0, 3.0, 2.0, 3.0], [1.0, 1.0, 4.0, 1.0], [0.0, 1.0, 4.0, 1.0]]))
    assert found.tolist() == pytest.approx([1.0, 0.5, 0.0])


# ---------------------------------------------------------------- the task

POINTS = dict(zip(("points", "strides"), grid(32, 8), strict=True))


class Fixed:
    """A model that says the same of every picture: surely a box of class 1 around the picture's middle, seen from one point."""

    def __init__(self, right: bool = True, classes: int = 2) -> None:
        self.scores = torch.full((1, 16, classes), -9.0)
        self.scores[0, 5, 1 if right else 0] = 9.0
        self.distances = torch.tensor([1.5, 1.5, 1.5, 1.5]).repeat(1, 16, 1)
        self.centres = torch.full((1, 16), 5.0)

    def __call__(self, images: torch.Tensor) -> Tensors:
        many = {"scores": self.scores, "distances": self.distances, "centres": self.centres}
        return {**{name: each.expand(len(images), *each.shape[1:]) for name, each in many.items()}, **POINTS}


def batch(count: int = 3) -> tuple[torch.Tensor, Tensors]:
    """Of each picture one box, as it is found, and of the last one none."""
    one = target([0.0, 0.0, 24.0, 24.0], labels=[1])
    targets = {name: each.repeat(count, *[1] * (each.ndim - 1)) for name, each in one.items()}
    targets["labels"][-1] = -1
    return torch.arange(count * 3 * 32 * 32.0).view(count, 3, 32, 32), targets


def test_the_weight_is_the_number_of_points_and_one_for_a_picture_without_any() -> None:
    model = Fixed()
    step = Detection().step(model, batch())
    per_picture = int((assigned((8,), {name: each[:1] for name, each in batch()[1].items()}, 32).box >= 0).sum())
    assert step.weight == 2 * per_picture + 1
    of_class, of_box, of_middle, _ = losses(model(batch()[0]), batch()[1])
    torch.testing.assert_close(step.loss, of_class + of_box + of_middle)
    shown = Detection().train_metrics(6.0, 2.0, [1.0, 2.0, 3.0])
    assert shown == {"loss": 3.0, "class_loss": 0.5, "box_loss": 1.0, "centre_loss": 1.5}
    doubled = Detection(box_factor=2).step(model, batch())
    torch.testing.assert_close(doubled.loss, step.loss + of_box)


def test_sums_do_not_depend_on_how_a_batch_is_cut() -> None:
    model, (images, targets) = Fixed(), batch()
    whole = Detection().step(model, (images, targets))
    parts = [
        Detection().step(model, (images[some], {name: each[some] for name, each in targets.items()})) for some in (slice(1), slice(1, 3))
    ]
    torch.testing.assert_close(sum(part.loss for part in parts), whole.loss)
    assert sum(part.weight for part in parts) == whole.weight


def test_metrics_of_ranks_with_unequal_counts_are_those_of_one() -> None:
    images, targets = batch(5)
    task = Detection()
    one, first, second, none, merged = (task.metrics() for _ in range(5))
    for some, right, own in ((slice(0, 1), True, first), (slice(1, 3), False, first), (slice(3, 5), True, second)):
        part = (images[some], {name: each[some] for name, each in targets.items()})
        for each in (one, own):
            each.update(Fixed(right), part)
    for each in (first, none, second):
        merged.merge(each.state())
    assert merged.result() == one.result()
    # of 5 pictures 4 have a box; 2 of these are found, between 2 that are of another class and 1 where there is nothing
    assert one.result()["samples"] == 5
    assert 0 < one.result()["map50"] < 1
    assert merged.shown is not None
    assert torch.equal(merged.shown, one.shown)  # pyright: ignore[reportArgumentType]


def test_a_perfect_model_has_one_and_ignored_boxes_cost_it_nothing() -> None:
    images, targets = batch(3)
    images, targets = images[:2], {name: each[:2] for name, each in targets.items()}
    metrics = Detection().metrics()
    metrics.update(Fixed(), (images, targets))
    assert (metrics.result()["map50"], metrics.result()["map"]) == (1.0, 1.0)
    targets["ignored"][1] = True
    metrics = Detection().metrics()
    metrics.update(Fixed(), (images, targets))
    assert metrics.result()["map"] == 1.0


def test_a_split_without_boxes_and_an_accumulator_without_batches() -> None:
    images, targets = batch(1)
    metrics = Detection().metrics()
    assert metrics.state() == {}
    with pytest.raises(ValueError, match="no rank has counted a batch"):
        metrics.result()
    metrics.update(Fixed(), (images, targets))
    assert metrics.result()["map50"] == 0.0
    assert metrics.result()["samples"] == 1


class Shown:
    def __init__(self) -> None:
        self.pictures: list[tuple[str, torch.Tensor, int]] = []
        self.texts: list[tuple[str, str, int]] = []

    def images(self, tag: str, images: torch.Tensor, step: int) -> None:
        self.pictures.append((tag, images, step))

    def text(self, tag: str, text: str, step: int = 0) -> None:
        self.texts.append((tag, text, step))


def test_pictures_with_boxes_and_a_table_of_classes_are_shown() -> None:
    task, shown, metrics = Detection(), Shown(), Detection().metrics()
    task.show_batch(shown, batch(), 0)
    metrics.update(Fixed(), batch(2))
    task.show_evaluation(shown, metrics, "val", ("cat", "dog"), 7)
    (first, images, _), (second, found, step) = shown.pictures
    assert (first, second, step) == ("train/first_batch", "val/found", 7)
    assert images.shape == (3, 3, 32, 32)
    assert torch.equal(found, images[:2]), "what is found there is what is to be found"
    assert not torch.equal(found, visible(batch(2)[0]))
    assert torch.equal(images[2], visible(batch()[0])[2]), "there is nothing in the last one"
    assert shown.texts[0][1].splitlines()[-1].startswith("**dog** | 1.000 | 1.000")
    assert "**cat** | nan" in shown.texts[0][1]


def test_an_outline_is_where_the_box_is() -> None:
    drawn = with_boxes(torch.zeros(1, 3, 8, 8), torch.tensor([[[1.0, 2.0, 5.0, 6.0], [0, 0, 8, 8.0]]]), torch.tensor([[0, -1]]))
    rows = (drawn[0].amax(0) > 0).int().tolist()
    assert rows[2] == rows[6] == [0, 1, 1, 1, 1, 1, 0, 0]
    assert rows[3] == rows[5] == [0, 1, 0, 0, 0, 1, 0, 0]
    assert sum(map(sum, rows)) == 16


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"least_score": 2.0}, r"task\.least_score=2\.0"),
        ({"most_overlap": -0.1}, r"task\.most_overlap=-0\.1"),
        ({"box_factor": -1.0}, r"task\.box_factor is 0 or more"),
        ({"most_boxes": 0}, r"task\.most_boxes 1 or more"),
    ],
)
def test_a_number_that_cannot_be_is_one_line(asked: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Detection(**asked)

"""COCO's average precision: its numbers on drawn detections, and what can be said by hand."""

from __future__ import annotations

import contextlib
import importlib.util
import io

import pytest
import torch
from made_detections import CLASSES, by_cocoapi, made

from launcher.train.tasks.average_precision import Found, average_precision

# pycocotools 2.0.11: python tests/train/made_detections.py
BY_COCOAPI = {
    1: (0.4588742923179882, 0.26251366766846945, [0.23350272646588463, 0.2527294787321515, 0.30130879780737213]),
    2: (0.4542531446904395, 0.2526659689110738, [0.24982130402784583, 0.22594539802293134, 0.2822312046824443]),
    3: (0.4121642076402797, 0.2124990648753814, [0.21973400040602478, 0.16215405825414708, 0.25560913596597223]),
}


def numbers(found: Found) -> tuple[float, float, list[float]]:
    by_class = average_precision(found, CLASSES)
    known = by_class[~by_class[:, 0].isnan()]
    return float(known[:, 0].mean()), float(known.mean()), known.mean(1).tolist()


@pytest.mark.parametrize("seed", BY_COCOAPI)
def test_it_is_that_of_cocoapi(seed: int) -> None:
    at_half, mean, by_class = numbers(made(seed))
    expected = BY_COCOAPI[seed]
    assert (at_half, mean) == pytest.approx(expected[:2], abs=1e-12)
    assert by_class == pytest.approx(expected[2], abs=1e-12)


@pytest.mark.parametrize("seed", [11, 12, 13, 14])
def test_it_is_that_of_cocoapi_where_that_is_here(seed: int) -> None:
    if importlib.util.find_spec("pycocotools") is None:
        pytest.skip("pycocotools is not installed, and is no dependency")
    with contextlib.redirect_stdout(io.StringIO()):
        expected = by_cocoapi(made(seed))
    at_half, mean, by_class = numbers(made(seed))
    assert (at_half, mean, *by_class) == pytest.approx((*expected[:2], *expected[2]), abs=1e-12)


def of(detections: list[tuple[float, list[float]]], truths: list[list[float]], ignored: list[bool] | None = None) -> Found:
    """One picture, one class."""
    boxes, true = torch.tensor([box for _, box in detections]).reshape(-1, 4), torch.tensor(truths).reshape(-1, 4)
    scores = torch.tensor([score for score, _ in detections])
    zeros = [torch.zeros(len(each), dtype=torch.int64) for each in (boxes, true)]
    is_ignored = torch.tensor(ignored or [False] * len(true), dtype=torch.bool)
    return Found(boxes, scores, zeros[0], torch.tensor([len(boxes)]), true, zeros[1], is_ignored, torch.tensor([len(true)]))


def test_half_of_an_overlap_counts_up_to_half() -> None:
    """IoU 2/3: right at 0.5, 0.55, 0.6 and 0.65."""
    result = average_precision(of([(0.9, [0, 0, 10, 8.0])], [[0, 0, 10, 12.0]]), 1)
    assert result[0].tolist() == [1.0] * 4 + [0.0] * 6


def test_a_second_one_of_a_box_is_wrong_and_costs_what_comes_behind_it() -> None:
    here, there = [0, 0, 10, 10.0], [50, 50, 60, 60.0]
    result = average_precision(of([(0.9, here), (0.8, here), (0.7, there)], [here, there]), 1)
    # precision 1 up to a recall of 0.5 (51 of 101 points), 2/3 behind it
    assert result[0, 0] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_what_fits_an_ignored_box_counts_for_nothing() -> None:
    here, crowd = [0, 0, 10, 10.0], [50, 50, 90, 90.0]
    in_crowd = [(0.99, [50, 50, 60, 60.0]), (0.98, [70, 70, 80, 80.0])]
    assert average_precision(of([*in_crowd, (0.9, here)], [here, crowd], [False, True]), 1)[0].tolist() == [1.0] * 10
    assert average_precision(of([*in_crowd, (0.9, here)], [here, crowd]), 1)[0, 0] < 0.2


def test_without_detections_it_is_nothing_and_without_boxes_it_is_no_number() -> None:
    assert average_precision(of([], [[0, 0, 1, 1.0]]), 1).tolist() == [[0.0] * 10]
    assert average_precision(of([(0.5, [0, 0, 1, 1.0])], []), 1).isnan().all()

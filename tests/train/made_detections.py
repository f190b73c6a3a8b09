"""Detections and boxes drawn by seed, and what cocoapi makes of them: `python tests/train/made_detections.py`, with pycocotools installed
and the repository in PYTHONPATH, prints the numbers that test_average_precision.py has."""

from __future__ import annotations

import numpy as np
import torch

from data.sampling.order import words
from launcher.train.tasks.average_precision import Found

IMAGES, CLASSES, SIZE = 60, 4, 200


def made(seed: int) -> Found:
    """Boxes of three of four classes, crowds among them; detections near them, beside them, and twice; scores of which many are equal."""
    numbers = iter((words(40_000, 99, seed) >> np.uint64(11)).astype(np.float64) * 2.0**-53)

    def upto(most: float) -> float:
        return float(next(numbers) * most)

    rows: dict[str, list[object]] = {name: [] for name in Found._fields}
    for _ in range(IMAGES):
        there = []
        for _ in range(int(upto(6))):
            left, top = upto(150), upto(150)
            there.append((left, top, left + 5 + upto(45), top + 5 + upto(45), int(upto(3)), upto(1) < 0.15))
        seen = []
        for *edges, label, _ in there:
            for _ in range(int(upto(3))):
                jitter = upto(12)
                left, top, right, bottom = (edge + upto(jitter) - jitter / 2 for edge in edges)
                moved = [left, top, max(left, right), max(top, bottom)]  # cocoapi passes over areas of less than 0
                seen.append((round(upto(1), 1), moved, label if upto(1) < 0.9 else int(upto(CLASSES))))
        for _ in range(int(upto(4))):
            left, top = upto(150), upto(150)
            seen.append((round(upto(0.6), 1), [left, top, left + 20, top + 20], int(upto(CLASSES))))
        seen.sort(key=lambda each: -each[0])
        for score, edges, label in seen:
            rows["scores"].append(score)
            rows["boxes"].append(edges)
            rows["classes"].append(label)
        rows["counts"].append(len(seen))
        rows["true_counts"].append(len(there))
        for *edges, label, is_crowd in there:
            rows["true_boxes"].append(edges)
            rows["true_classes"].append(label)
            rows["true_ignored"].append(is_crowd)
    kinds = {"boxes": torch.float32, "true_boxes": torch.float32, "scores": torch.float32, "true_ignored": torch.bool}
    return Found(**{name: torch.tensor(row, dtype=kinds.get(name, torch.int64)) for name, row in rows.items()})


def by_cocoapi(found: Found) -> tuple[float, float, list[float]]:
    """(AP at 0.5, AP from 0.5 to 0.95, the latter of each class that there is)."""
    from pycocotools.coco import COCO  # pyright: ignore[reportMissingImports]  # not among the dependencies
    from pycocotools.cocoeval import COCOeval  # pyright: ignore[reportMissingImports]

    def boxes(edges: torch.Tensor) -> list[list[float]]:
        edges = edges.double()
        return torch.cat((edges[:, :2], edges[:, 2:] - edges[:, :2]), 1).tolist()

    def images(counts: torch.Tensor) -> list[int]:
        return torch.arange(len(counts)).repeat_interleave(counts).tolist()

    truth = COCO()
    truth.dataset = {"images": [{"id": each} for each in range(len(found.counts))], "categories": [{"id": each} for each in range(CLASSES)]}
    rows = zip(images(found.true_counts), boxes(found.true_boxes), found.true_classes.tolist(), found.true_ignored.tolist(), strict=True)
    truth.dataset["annotations"] = [
        {"id": number, "image_id": image, "bbox": box, "area": box[2] * box[3], "category_id": label, "iscrowd": int(is_crowd)}
        for number, (image, box, label, is_crowd) in enumerate(rows, 1)
    ]
    truth.createIndex()
    seen = zip(images(found.counts), boxes(found.boxes), found.classes.tolist(), found.scores.tolist(), strict=True)
    results = truth.loadRes([{"image_id": image, "bbox": box, "category_id": label, "score": score} for image, box, label, score in seen])
    evaluation = COCOeval(truth, results, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, 2]  # overlaps, recalls, classes
    by_class = [float(precision[:, :, label].mean()) for label in range(CLASSES) if precision[0, 0, label] >= 0]
    return float(evaluation.stats[1]), float(evaluation.stats[0]), by_class


if __name__ == "__main__":
    for number in (1, 2, 3):
        print(number, by_cocoapi(made(number)))

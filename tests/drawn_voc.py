"""A set in VOC layout that nobody has seen: bright discs and squares on noise, drawn by seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("disc", "square")
Boxes = list[tuple[str, tuple[int, int, int, int]]]


def xml(name: str, size: tuple[int, int], boxes: Sequence[tuple[str, Sequence[object]]], more: str = "") -> str:
    """An annotation; `size` is (width, height), a box left, top, right, bottom."""
    objects = "".join(
        f"<object><name>{label}</name>{more}<bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for label, (a, b, c, d) in boxes
    )
    width, height = size
    return f"<annotation><filename>{name}.png</filename><size><width>{width}</width><height>{height}</height></size>{objects}</annotation>"


def picture(seed: int, width: int = 96, height: int = 64) -> tuple[Image.Image, Boxes]:
    """One to three shapes, which may lie over one another."""
    draw = np.random.default_rng(seed)
    pixels = draw.integers(60, 120, (height, width, 3)).astype(np.uint8)
    y, x = np.mgrid[:height, :width]
    boxes: Boxes = []
    for _ in range(int(draw.integers(1, 4))):
        radius, label = int(draw.integers(6, 14)), int(draw.integers(2))
        middle_x, middle_y = int(draw.integers(radius, width - radius)), int(draw.integers(radius, height - radius))
        across, down = x - middle_x, y - middle_y
        inside = across**2 + down**2 <= radius**2 if label == 0 else np.maximum(abs(across), abs(down)) <= radius
        pixels[inside] = (230, 60, 40) if label == 0 else (40, 90, 230)
        boxes.append((CLASSES[label], (middle_x - radius, middle_y - radius, middle_x + radius, middle_y + radius)))
    return Image.fromarray(pixels), boxes


def write(root: Path, count: int, parts: Mapping[str, Sequence[int]] | None = None) -> Path:
    """`count` pictures in VOC layout; `parts`: the numbers of those in each list of ImageSets/Main, None for no lists."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image, boxes = picture(number)
        image.save(root / "JPEGImages" / f"p{number}.png")
        (root / "Annotations" / f"p{number}.xml").write_text(xml(f"p{number}", image.size, boxes))
    for part, numbers in (parts or {}).items():
        (root / "ImageSets" / "Main" / f"{part}.txt").write_text("".join(f"p{number}\n" for number in numbers))
    return root


def write_coco(root: Path, count: int, name: str = "train2017", folder: str = "train2017") -> Path:
    """The same pictures with one file of annotations as COCO has them, categories 7 and 3."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    content: dict[str, list[dict[str, object]]] = {"images": [], "annotations": []}
    content["categories"] = [{"id": 7, "name": "disc"}, {"id": 3, "name": "square"}]
    for number in range(count):
        image, boxes = picture(number)
        image.save(root / folder / f"p{number}.png")
        content["images"].append({"id": 100 + number, "file_name": f"p{number}.png", "width": image.width, "height": image.height})
        for label, (left, top, right, bottom) in boxes:
            edges, kind = [left, top, right - left, bottom - top], 7 if label == "disc" else 3
            content["annotations"].append(
                {"id": len(content["annotations"]), "image_id": 100 + number, "category_id": kind, "bbox": edges, "iscrowd": 0}
            )
    (root / "annotations" / f"instances_{name}.json").write_text(json.dumps(content))
    return root

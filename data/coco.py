"""Pictures and boxes as COCO has them (Lin et al., 2014, https://arxiv.org/abs/1405.0312): a JSON file a part, with `images`, `annotations`
and `categories`. What is called a crowd is neither sought nor wrong where it is found. An annotation's id is its name in errors and nothing
else.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.store.files import first_line
from data.vision.annotated import Box, Sample, box_of
from data.vision.detection import PARTS, Detection, Read

MOST_BYTES = 2 << 30
"""Of a JSON file, which is read as a whole and takes several times as much memory; that of COCO's 118,287 pictures has 0.4 GiB."""


_TRIED = 100
"""Pictures, for the directory that they are in."""
_MOST_NAME = 255


class COCO(Detection):
    """Any set in this format."""

    def __init__(
        self,
        root: str | None = None,
        train_json: str = "annotations/instances_train2017.json",
        val_json: str | None = "annotations/instances_val2017.json",
        test_json: str | None = None,
        images: str | None = None,
        classes: Sequence[str] | None = None,
        size: int = 320,
        outside: str = "clip",
        validation: float = 0.1,
        test: float = 0.1,
        seed: int = 0,
        flip: bool = True,
        scale: float = 0.25,
        colour: float = 0.2,
        train_samples: int | None = None,
        cache: str | None = None,
        fingerprint: str | None = None,
        max_corrupt: int = 0,
    ) -> None:
        """`train_json`, `val_json`, `test_json`: the JSON files, from `root`; null: there is none, and samples are held out. `images`: the
        directory with the pictures, from `root`; null: looked for where such sets have them. The others are those of `Detection`. Raises
        ValueError naming the option."""
        super().__init__(
            root, classes, size, outside, validation, test, seed, flip, scale, colour, train_samples, cache, fingerprint, max_corrupt
        )
        self._files = {part: name for part, name in zip(PARTS, (train_json, val_json, test_json), strict=True) if name is not None}
        self._images = images

    def _fingerprint(self) -> str:
        said: list[object] = [self._images]
        for part in self._files:
            path, content = self._content(part)
            folder = self._folder(path, content)
            sizes = [_size_of(folder / str(each.get("file_name"))) for each in content["images"]]
            said.append([part, hashlib.sha256(path.read_bytes()).hexdigest(), sizes])
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def _read(self) -> Read:
        samples: dict[str, Sample] = {}
        parts: dict[str, list[str]] = {}
        classes: dict[str, None] = {}
        for part in self._files:
            path, content = self._content(part)
            folder, names = self._folder(path, content), _categories(content, self._refusal(path))
            classes |= dict.fromkeys(names.values())
            boxes, parts[part] = self._boxes(path, content, names), []
            for image in content["images"]:
                name = f"{part}/{image['id']}"
                parts[part].append(name)
                try:
                    samples[name] = self._known(_sample(image, folder, path, boxes[image["id"]]))
                except ValueError as error:
                    self._leave_out(error)
        return Read(samples, parts, [*classes], ())

    def _boxes(self, path: Path, content: Mapping[str, Any], names: Mapping[Any, str]) -> dict[Any, list[Any]]:
        """Of each image: boxes, and in the place of one with a fault the error."""
        found: dict[Any, list[Any]] = {image["id"]: [] for image in content["images"]}
        for number, each in enumerate(content["annotations"]):
            where = f"{path} annotation {each.get('id', number)!r:.40}"
            try:
                box: Box | ValueError = _box(each, names, where)
            except ValueError as error:
                box = error
            if each.get("image_id") in found:
                found[each.get("image_id")].append(box)
            else:
                self._leave_out(ValueError(f"{where} is of the image {each.get('image_id')!r:.40}, which is not there; take it out"))
        return found

    def _content(self, part: str) -> tuple[Path, dict[str, Any]]:
        """Raises FileNotFoundError or ValueError naming the file."""
        path = self.root / self._files[part]
        if not path.is_file():
            found = (each for each in sorted(self.root.glob("**/*.json")) if each.is_file())
            there = [str(each.relative_to(self.root)) for each in itertools.islice(found, 5)]
            advice = f"type data.{part}_json= one of {', '.join(there)}" if there else "type data.root= a directory that has such files"
            otherwise = "" if part == "train" else ", or null to hold samples out"
            raise FileNotFoundError(
                f"data.{part}_json={self._files[part]}: there is no such file in data.root={self.root}; {advice}{otherwise}"
            )
        refuse = self._refusal(path)
        if path.stat().st_size > MOST_BYTES:
            raise refuse(f"has more than {MOST_BYTES >> 30} GiB, and is read as a whole")
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise refuse(f"is not readable as JSON ({first_line(error)})") from error
        for name in ("images", "annotations", "categories"):
            held = content.get(name) if isinstance(content, dict) else None
            if not isinstance(held, list) or not all(isinstance(each, dict) for each in held):
                raise refuse(f"has no list of objects `{name}`, as COCO's files do")
        if any(
            isinstance(each.get(key), list | dict) for each in (*content["images"], *content["annotations"]) for key in ("id", "image_id")
        ):
            raise refuse("has an id that is no number")
        _check_ids(content, refuse)
        return path, content

    def _refusal(self, path: Path) -> Any:
        return lambda why: ValueError(
            f"data.root={self.root}: {path.relative_to(self.root)} {why}; mend it or point data.root at a good copy"
        )

    def _folder(self, path: Path, content: Mapping[str, Any]) -> Path:
        """instances_train2017.json is of train2017/ or images/train2017/; others have images/, or lie beside their pictures."""
        if self._images is not None:
            if not (self.root / self._images).is_dir():
                raise FileNotFoundError(
                    f"data.images={self._images}: there is no directory {self.root / self._images}; type another, or null"
                )
            return self.root / self._images
        name = path.stem.removeprefix("instances_")
        places = (self.root / name, self.root / "images" / name, self.root / "images", path.parent, self.root)
        names = [str(each.get("file_name")) for each in content["images"][:_TRIED]]  # the first may be missing
        found = next((place for place in places if any(_size_of(place / name) >= 0 for name in names)), None)
        if found is None:
            raise FileNotFoundError(
                f"data.root={self.root}: {names[0]:.80}, the first picture of {path.name}, is in no usual directory; type data.images="
            )
        return found


def _check_ids(content: Mapping[str, Any], refuse: Any) -> None:
    """Raises ValueError where there is no image, or nobody knows which of two a box is in."""
    if not content["images"]:
        raise refuse("has no image")
    ids = Counter(each.get("id") for each in content["images"])
    if None in ids:
        raise refuse("has an image without an id")
    number, count = ids.most_common(1)[0]
    if count > 1:
        raise refuse(f"has two images with the id {number!r:.40}")


def _is_name(name: object) -> bool:
    """One that can be written: JSON may have halves of signs."""
    return isinstance(name, str) and bool(name.strip()) and name.isprintable()


def _categories(content: Mapping[str, Any], refuse: Any) -> dict[Any, str]:
    """id -> name, by id. Raises ValueError."""
    found: dict[Any, str] = {}
    for each in content["categories"]:
        number, name = each.get("id"), each.get("name")
        if type(number) is not int or not _is_name(name) or number in found or name in found.values():
            raise refuse(f"has a category with the id {number!r:.40} and the name {name!r:.40}: each is a number and a text of its own")
        found[number] = name
    return {number: found[number] for number in sorted(found)}


def _sample(image: Mapping[str, Any], folder: Path, path: Path, boxes: Sequence[Any]) -> Sample:
    where, name = f"{path} image {image.get('id')!r:.40}", image.get("file_name")
    if not isinstance(name, str) or not name:
        raise ValueError(f"{where} has no file_name; mend it")
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{where} has the file_name {name!r:.80}, which leads out of {folder}; mend it")
    if "\0" in name or max(len(os.fsencode(part)) for part in Path(name).parts or ("",)) > _MOST_NAME:
        raise ValueError(f"{where} has the file_name {name!r:.80}, which no file can have; mend it")
    for box in boxes:
        if isinstance(box, ValueError):
            raise box
    width, height = image.get("width"), image.get("height")
    size = (width, height) if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0 else None
    return Sample(folder / name, where, size, tuple(boxes))


def _box(each: Mapping[str, Any], names: Mapping[Any, str], where: str) -> Box:
    """Raises ValueError."""
    number, edges = each.get("category_id"), each.get("bbox")
    if type(number) is not int or number not in names:
        raise ValueError(f"{where} is of the category {number!r:.40}, which is not there; add it, or mend the file")
    if not isinstance(edges, list) or len(edges) != 4 or not all(type(edge) in (int, float) for edge in edges):
        raise ValueError(f"{where} has no bbox of four numbers [left, top, width, height]; mend it")
    if (crowd := each.get("iscrowd", 0)) not in (0, 1):
        raise ValueError(f"{where} has the iscrowd {crowd!r:.40}, which is 0 or 1; mend it")
    left, top, width, height = map(_float, edges)
    return box_of((left, top, left + width, top + height), names[number], bool(crowd), where)


def _float(edge: float) -> float:
    """JSON has whole numbers of any length."""
    try:
        return float(edge)
    except OverflowError:
        return math.inf


def _size_of(path: Path) -> int:
    """-1 where there is no such file, which is told when it is read."""
    try:
        return path.stat().st_size if path.is_file() else -1
    except (OSError, ValueError):  # no name that a file can have
        return -1

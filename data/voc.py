"""Pictures and boxes as Pascal VOC has them (Everingham et al., 2010, https://doi.org/10.1007/s11263-009-0275-4), and most tools with which
boxes are drawn by hand:

Annotations/<name>.xml          one file a picture; without an <object> nothing is in it
JPEGImages/<name>.jpg           or .png, …
ImageSets/Main/<part>.txt       train, val, test, trainval: a name a line. Where there is none, parts are shared out by seed

An annotation's picture is the one of the same name: what its <filename> says, and many tools leave wrong, does not count.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from data.store.files import first_line
from data.vision.annotated import Box, Sample, box_of
from data.vision.detection import PARTS, Detection, Read

MOST_BYTES = 4 << 20
"""Of an annotation: one of a thousand boxes has a quarter of a MiB."""
SUFFIXES = {"Annotations": (".xml",), "JPEGImages": (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")}
"""Of the files that count: people's directories have a Thumbs.db and a labels.csv too."""
EDGES = ("xmin", "ymin", "xmax", "ymax")


class VOC(Detection):
    """Any set in this layout."""

    def __init__(
        self,
        root: str | None = None,
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
        """As `Detection` has them. Raises ValueError naming the option."""
        super().__init__(
            root, classes, size, outside, validation, test, seed, flip, scale, colour, train_samples, cache, fingerprint, max_corrupt
        )

    def _fingerprint(self) -> str:
        annotations, pictures, parts = self._files("Annotations"), self._files("JPEGImages"), self._parts()
        said = [[name, hashlib.sha256(_begun(path)).hexdigest()] for name, path in annotations.items()]
        shown = [[path.name, path.stat().st_size] for path in pictures.values()]
        return hashlib.sha256(json.dumps([said, shown, parts]).encode()).hexdigest()

    def _read(self) -> Read:
        annotations, pictures, parts = self._files("Annotations"), self._files("JPEGImages"), self._parts()
        names = sorted({name for part in parts.values() for name in part} or {*annotations, *pictures})
        samples: dict[str, Sample] = {}
        for name in names:
            try:
                samples[name] = self._known(self._sample(name, annotations, pictures))
            except ValueError as error:
                self._leave_out(error)
        remarks = [*_remarks(parts, self._list("val"), self._list("test")), *map(self._passed_over, SUFFIXES)]
        return Read(samples, parts or {"train": names}, (), [*filter(None, remarks)])

    def _sample(self, name: str, annotations: Mapping[str, Path], pictures: Mapping[str, Path]) -> Sample:
        if name not in pictures and (alone := Path(name.partition(" ")[0]).stem) in pictures:
            raise ValueError(f"ImageSets/Main has the line {name!r:.80}; a name alone is wanted there, without folder and suffix: {alone}")
        if name not in pictures:
            raise ValueError(f"JPEGImages has no picture {name!r:.80}; put it there, or take its annotation and its line in ImageSets away")
        if name not in annotations:
            raise ValueError(f"Annotations has no {name}.xml for {pictures[name].name}; write one, without an <object> if nothing is in it")
        return sample_of(annotations[name], pictures[name])

    def _files(self, folder: str) -> dict[str, Path]:
        """By their names without suffix. What a list names is looked for here, so that no list leads elsewhere."""
        place = self.root / folder
        if not place.is_dir():
            found = next((path for depth in ("*", "*/*") for path in sorted(self.root.glob(f"{depth}/{folder}"))), None)
            advice = f"type data.root={found.parent}" if found else "name one in VOC layout, with Annotations/*.xml and JPEGImages/*"
            raise FileNotFoundError(f"data.root={self.root}: there is no directory {folder}; {advice}")
        files: dict[str, Path] = {}
        named = (path for path in sorted(place.iterdir()) if path.name[0] != "." and path.suffix.lower() in SUFFIXES[folder])
        for path in (path for path in named if path.is_file()):
            if (other := files.setdefault(_composed(path.stem), path)) is not path:
                raise ValueError(f"data.root={self.root}: {folder} has {other.name} and {path.name}, of one sample; take one away")
        if not files:
            below = self._passed_over(folder)
            raise FileNotFoundError(
                f"data.root={self.root}: {folder} has no file of {', '.join(SUFFIXES[folder])}; put them there{below and f'. {below}'}"
            )
        return files

    def _passed_over(self, folder: str) -> str:
        there = sorted(path.name for path in (self.root / folder).iterdir() if path.is_dir() and path.name[0] != ".")
        return f"{folder} has folders, which are not looked into: {', '.join(there)[:80]}" if there else ""

    def _parts(self) -> dict[str, list[str]]:
        """By the lists there are: train, or what of trainval is not in val. None where there is no list to train on."""
        lists = {part: self._list(part) for part in (*PARTS, "trainval")}
        train, val, whole = lists["train"], lists["val"], lists["trainval"]
        if train is None and whole is not None:
            train = [name for name in whole if name not in {*(val or ())}]
        if train is None:
            return {}
        return {"train": train, **{part: found for part in ("val", "test") if (found := lists[part]) is not None}}

    def _list(self, part: str) -> list[str] | None:
        path = self.root / "ImageSets" / "Main" / f"{part}.txt"
        if not path.is_file():
            return None
        try:
            names = [_composed(line.strip()) for line in path.read_text(encoding="utf-8-sig").splitlines()]
        except UnicodeDecodeError as error:
            raise ValueError(f"data.root={self.root}: ImageSets/Main/{part}.txt is no UTF-8; save it as UTF-8") from error
        return [*dict.fromkeys(filter(None, names))]


def _remarks(parts: Mapping[str, Sequence[str]], *lists: Sequence[str] | None) -> Iterator[str]:
    """What lists say that is odd; `lists` are those of val and test."""
    for part, listed in zip(("val", "test"), lists, strict=True):
        if listed is not None and not parts:
            yield f"ImageSets/Main/{part}.txt is ignored: there is no train.txt beside it, and all samples are shared out by seed"
        elif twice := {*parts.get("train", ())} & {*(listed or ())}:
            yield f"{len(twice)} training samples are in ImageSets/Main/{part}.txt too: what is measured there is too good"


def _composed(name: str) -> str:
    """Some systems write ä as one sign, and some as an a and two dots: names that look alike are of one sample."""
    return unicodedata.normalize("NFC", name)


def _begun(path: Path) -> bytes:
    """All of an annotation, and of a file that is too large for one the beginning."""
    with path.open("rb") as file:
        return file.read(MOST_BYTES + 1)


def sample_of(path: Path, picture: Path) -> Sample:
    """What one annotation says. Raises ValueError that names it; OSError where it cannot be read."""
    tree = _tree(path)
    if tree.tag != "annotation":  # a page that says that there is no such file would be a picture with nothing in it
        raise ValueError(f"{path} begins with <{tree.tag:.60}>, and an annotation with <annotation>; replace it")
    boxes = tuple(_box(each, path) for each in tree.iter("object"))
    width, height = (_whole(tree.findtext(f"size/{side}")) for side in ("width", "height"))
    return Sample(picture, str(path), (width, height) if width and height else None, boxes)


def _tree(path: Path) -> ElementTree.Element:
    """A document type is refused before a parser sees it: its entities make gigabytes of a few lines, or read other files."""
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path} has more than {MOST_BYTES >> 20} MiB, which no annotation has; replace it")
    try:
        text = path.read_bytes().decode("utf-8-sig")
        if "<!DOCTYPE" in text:
            raise ValueError(f"{path} has a DOCTYPE, which no annotation needs and which is not read; take it out")
        return ElementTree.fromstring(text)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8; save it as UTF-8") from error
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is not readable as XML ({first_line(error)}); mend it") from error


def _box(node: ElementTree.Element, path: Path) -> Box:
    name = (node.findtext("name") or "").strip()
    edges = tuple(_number(node.findtext(f"bndbox/{edge}")) for edge in EDGES)
    if not name or None in edges:
        missing = "name" if not name else f"number bndbox/{EDGES[edges.index(None)]}"
        raise ValueError(f"{path}: an <object> has no {missing}; mend it")
    return box_of(tuple(float(edge) for edge in edges if edge is not None), name, _whole(node.findtext("difficult")) == 1, str(path))


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _whole(text: str | None) -> int:
    """0 where there is none: some that annotate leave a picture's size out, or write 0."""
    number = _number(text)
    return int(number) if number is not None and abs(number) < 1e9 else 0

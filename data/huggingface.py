"""A data set of the Hugging Face hub, a directory that `save_to_disk` left, or a file of parquet, CSV or JSON lines, by the package
`datasets` (https://github.com/huggingface/datasets). Rows are read from memory-mapped Arrow as they are asked for.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.options import cache_of, whole
from data.store.corrupt import Corrupt
from data.store.files import first_line, lost, written
from data.vision.picture import MEAN, STD, Picture
from data.vision.readable import Look, readable, some

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INSTALL = "pip install datasets"
FILES = {".parquet": "parquet", ".csv": "csv", ".json": "json", ".jsonl": "json"}


class HuggingFace:
    """Map-style: a picture and its label, or the columns that are named."""

    def __init__(
        self,
        path: str | None = None,
        name: str | None = None,
        split: str = "train",
        train: str = "train",
        val: str | None = "validation",
        test: str | None = "test",
        columns: Sequence[str] | None = None,
        size: int = 224,
        crop: float = 0.35,
        flip: bool = True,
        mean: tuple[float, ...] = MEAN,
        std: tuple[float, ...] = STD,
        revision: str | None = None,
        fingerprint: str | None = None,
        max_corrupt: int = 0,
        cache: str | None = None,
    ) -> None:
        """`path`: a name on the hub (ylecun/mnist), a directory, or a file. `name`: of one of several configurations. `train`, `val`,
        `test`: what its splits are called, also as `train[:90%]`; null: none. `columns`: which to give; null: the first of pictures, and
        the first of class labels. `size`, `crop`, `flip`, `mean`, `std`: of pictures, as Picture has them. `revision`: of the
        hub's. `fingerprint`: refuse data with other columns or another number of rows. `max_corrupt`: rows whose picture cannot be read
        and that may be left out, for which all are looked at, once; 0: the first that is met stops the run. `cache`: where it is noted
        which; default $LAUNCHER_CACHE or ~/.cache/launcher. Raises ValueError naming the option, KeyError for a
        split that there is none of."""
        if not path:
            raise ValueError("data.path=null: no data set; type data.path= with a name on the hub, a directory or a file")
        whole("data.max_corrupt", max_corrupt, 0)
        self._corrupt, self._cache = Corrupt(max_corrupt), cache_of(cache)
        self._path, self._name, self._revision, self._pinned = path, name, revision, fingerprint
        self._splits = {"train": train, "val": val, "test": test}
        picture = Picture(size, crop, flip, mean, std)
        self.mean, self.std = mean, std
        self._picture = picture if split == "train" else picture.plain()
        asked = self._splits[split]
        if asked is None:
            raise KeyError(split)
        self._rows = self._loaded(asked, split)
        self._columns = self._chosen(columns)
        self._features = {each: type(self._rows.features[each]).__name__ for each in self._columns}
        self._numbers: Sequence[int] | NDArray[np.int64] = range(len(self._rows))
        if max_corrupt and self._shown:
            self._numbers = self._readable()[split]
            self._rows = self._rows.select(self._numbers)
        labels = [each for each in self._columns if self._features[each] == "ClassLabel"]
        self.class_names: tuple[str, ...] = tuple(self._rows.features[labels[-1]].names) if labels else ()
        self._labelled = labels[-1] if labels else None
        if labels:
            self.num_classes = len(self.class_names)
        if split == "train" and fingerprint not in (None, self._fingerprint()):
            raise ValueError(
                f"data.fingerprint={str(fingerprint)[:16]}…: {path} has other columns or rows now; bring back what the run began with, or "
                "start a new run with data.fingerprint=null"
            )

    @property
    def preprocessing(self) -> dict[str, object] | None:
        """Of a picture; of other columns nobody has said it."""
        return self._picture.preprocessing if self._columns[0] in self._shown else None

    @property
    def labels(self) -> list[int] | None:
        return None if self._labelled is None else self._rows[self._labelled][:]

    @property
    def _shown(self) -> list[str]:
        """The columns of pictures among those that are given."""
        return [each for each in self._columns if self._features[each] == "Image"]

    def prepare(self) -> dict[str, object]:
        """What there is to download has been: the rest finds it in the cache of the package. Raises ValueError where a picture cannot be
        read."""
        if self._corrupt.limit:
            self._corrupt.tell()
        elif self._shown:
            some(len(self._rows), self._look("train", self._rows))
        place = Path(self._path).expanduser()
        pinned = {"path": str(place.absolute())} if place.exists() else {}
        return {**pinned, "fingerprint": self._fingerprint()}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """A part for each column: of a picture (3, size, size) float32, else as it is. Raises ValueError where a picture cannot be read."""
        row = self._rows[index]
        return tuple(
            self._read(self._picture.of, int(self._numbers[index]), each, row[each]) if each in self._shown else row[each]
            for each in self._columns
        )

    def _read(self, how: Callable[[io.BytesIO], Any], index: int, column: str, value: Any) -> Any:
        """Raises ValueError, in one line, where it is no picture."""
        try:
            return how(io.BytesIO(value["bytes"] if value["bytes"] is not None else Path(value["path"]).read_bytes()))
        except (ValueError, OSError, TypeError) as error:
            if lost(error):
                raise
            why = "is none" if isinstance(error, TypeError) else first_line(error)
            hint = "" if self._corrupt.limit else ", or leave such rows out: data.max_corrupt=10"
            raise ValueError(f"data.path={self._path}: {column} of row {index} {why}; take it away{hint}") from error

    def _look(self, split: str, rows: Any) -> Look:
        plain = self._picture.plain()

        def look(index: int) -> None:
            row = rows[index]
            for each in self._shown:
                try:
                    self._read(plain.examine, index, each, row[each])
                except ValueError as error:
                    raise ValueError(str(error).replace(" of row ", f" of {split} row ", 1)) from error

        return look

    def _readable(self) -> dict[str, NDArray[np.int64]]:
        """Of each split, the rows of which all pictures can be read. Known again by the files that hold them: of pictures that lie beside
        those, what becomes of them later is not looked for."""
        there: dict[str, Any] = {}
        for split, asked in self._splits.items():
            with contextlib.suppress(KeyError):
                if asked is not None:
                    there[split] = self._loaded(asked, split)
        said: list[object] = [1, self._path, self._name, self._revision, self._splits, self._shown]
        for split, rows in there.items():
            said.append([split, len(rows), *((each["filename"], written(Path(each["filename"]))) for each in rows.cache_files)])
        key = hashlib.sha256(json.dumps(said).encode()).hexdigest()
        return readable(
            {split: (len(rows), self._look(split, rows)) for split, rows in there.items()}, self._corrupt, self._cache, key, self._path
        )

    def _loaded(self, asked: str, split: str) -> Any:
        """Raises ValueError, or KeyError where there is no such split."""
        try:
            import datasets
        except ImportError as error:
            raise ValueError(f"data=huggingface: the package datasets is not installed; {INSTALL}") from error
        if split != "train":
            datasets.disable_progress_bars()
        place = Path(self._path).expanduser()
        is_single = (place / "state.json").is_file()
        is_saved, is_file = is_single or (place / "dataset_dict.json").is_file(), place.is_file() and place.suffix in FILES
        self._refuse_unused(place, "a file" if is_file else "a directory of save_to_disk" if is_saved else "a directory")
        if is_single and split != "train":
            raise KeyError(split)
        try:
            if is_saved:
                found: Any = datasets.load_from_disk(str(place))
                rows = found if is_single and asked == "train" else found[asked]
            elif is_file:
                files = {self._splits["train"].partition("[")[0]: str(place)}
                rows = datasets.load_dataset(FILES[place.suffix], data_files=files, split=asked)
            else:
                rows = datasets.load_dataset(str(place) if place.is_dir() else self._path, self._name, split=asked, revision=self._revision)
        except (KeyError, ValueError) as error:
            if split != "train" and asked.partition("[")[0] in str(error):
                raise KeyError(split) from error
            raise ValueError(f"data.path={self._path}: {first_line(error)}; type another data.path, data.name or data.{split}") from error
        except Exception as error:  # a hub that cannot be reached, and what a builder of the package raises of its own
            raise ValueError(f"data.path={self._path}: cannot be loaded ({type(error).__name__}: {first_line(error)})") from error
        pictures = [name for name, feature in rows.features.items() if isinstance(feature, datasets.Image)]
        for name in pictures:  # its bytes: a JPEG is decoded no larger than is needed
            rows = rows.cast_column(name, datasets.Image(decode=False))
        return rows.with_format(None)

    def _refuse_unused(self, place: Path, what: str) -> None:
        """Raises ValueError for an option that says nothing of what lies here: only the hub has revisions, and of a directory that is read
        by its files one may choose a configuration."""
        unused = {"name": self._name if what != "a directory" else None, "revision": self._revision}
        if found := [key for key, value in unused.items() if value is not None and place.exists()]:
            raise ValueError(f"data.{found[0]}={unused[found[0]]}: {self._path} is {what}, which has none; type data.{found[0]}=null")

    def _chosen(self, columns: Sequence[str] | None) -> list[str]:
        """Raises ValueError."""
        known = self._rows.features
        if columns:
            for strange in (each for each in columns if each not in known):
                near = difflib.get_close_matches(strange, known, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ValueError(f"data.columns: {self._path} has no {strange!r}, it has {', '.join(known)}{hint}")
            return list(columns)
        kinds = {name: type(feature).__name__ for name, feature in known.items()}
        found = [next((name for name, kind in kinds.items() if kind == wanted), None) for wanted in ("Image", "ClassLabel")]
        if None in found:
            raise ValueError(
                f"data.columns=null: {self._path} has no column of pictures and one of class labels; type data.columns=[…] with some of "
                f"{', '.join(f'{name} ({kind})' for name, kind in kinds.items())}"
            )
        return [name for name in found if name is not None]

    def _fingerprint(self) -> str:
        said: list[object] = [1, len(self._rows), {name: repr(feature) for name, feature in self._rows.features.items()}]
        if self._corrupt.limit:
            said.append([*map(int, self._numbers)])
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

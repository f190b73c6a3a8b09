"""A table without code: what becomes a feature, what a class, what is standardised by what, and one line for each thing that is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from data.bundled import Bundled
from data.numbers import targets
from data.numbers.rows import Rows, RowSource
from data.table import Table

ROWS = 60
COLOURS = ("red", "green", "blue")


def columns(**more: list[Any]) -> dict[str, list[Any]]:
    draw = np.random.default_rng(0)
    size = draw.normal(50, 7, ROWS).round(3)
    colour = [COLOURS[each] for each in draw.integers(0, 3, ROWS)]
    kind = ["ripe" if each > 50 else "raw" for each in size]
    return {"size": size.tolist(), "colour": colour, "count": draw.integers(0, 9, ROWS).tolist(), "kind": kind, **more}


def write(path: Path, table: dict[str, list[Any]], delimiter: str = ",") -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.table(table), path)
        return path
    rows = [
        delimiter.join(table),
        *(delimiter.join("" if each is None else str(each) for each in row) for row in zip(*table.values(), strict=True)),
    ]
    path.write_text("\n".join(rows) + "\n")
    return path


def of(data: Rows, split: str) -> tuple[np.ndarray, np.ndarray]:
    source = data.part(split, "cpu")
    assert isinstance(source, RowSource)
    features, wanted = source.batch(torch.from_numpy(source.places))
    assert source.labels is None if wanted.is_floating_point() else (source.labels == wanted.numpy()).all()
    return features.numpy(), wanted.numpy()


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_numbers_are_standardised_by_the_training_part_and_texts_become_columns(tmp_path: Path, name: str) -> None:
    path, table = write(tmp_path / name, columns()), columns()
    data = Table(path=str(path), target="kind", validation=0.2)
    pinned = data.prepare()
    assert pinned["path"] == str(path)
    assert (data.class_names, data.num_classes, data.in_features, data.out_features) == (("raw", "ripe"), 2, 5, None)
    assert list(data.statistics) == ["size", "colour=blue", "colour=green", "colour=red", "count"]
    parts = {split: of(data, split) for split in ("train", "val", "test")}
    assert {split: len(wanted) for split, (_, wanted) in parts.items()} == {"train": 42, "val": 12, "test": 6}
    features, wanted = parts["train"]
    assert (features.dtype, wanted.dtype) == (np.float32, np.int64)
    np.testing.assert_allclose(features[:, [0, 4]].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(features[:, [0, 4]].std(0), 1, atol=1e-6)
    source = data.part("test", "cpu")
    assert source is not None
    for row, place, label in zip(parts["test"][0], source.places, parts["test"][1], strict=True):
        mean, std = data.statistics["size"]
        assert row[0] == pytest.approx((table["size"][place] - mean) / std, abs=1e-5)
        assert row[1:4].tolist() == [float(table["colour"][place] == each) for each in sorted(COLOURS)]
        assert data.class_names[label] == table["kind"][place]


def test_what_is_pinned_is_the_table_and_how_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", columns())
    pinned = Table(path=str(path), target="kind").prepare()
    assert Table(target="kind", **pinned).prepare() == pinned  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"^data\.fingerprint=.*: table has other rows now .*data\.fingerprint=null$"):
        Table(target="kind", seed=1, **pinned).prepare()  # pyright: ignore[reportArgumentType]
    before = of(Table(target="kind", **pinned), "train")  # pyright: ignore[reportArgumentType]
    path.write_text("gone")
    after = of(Table(target="kind", **pinned), "train")  # pyright: ignore[reportArgumentType]
    assert all((one == other).all() for one, other in zip(before, after, strict=True)), "the cache has the rows"
    (manifest,) = (tmp_path / "cache").glob("table-*/manifest.json")
    told = json.loads(manifest.read_text())
    assert told["columns"][0] == "size"
    assert told["classes"] == ["raw", "ripe"]
    assert len(told["mean"]) == len(told["std"]) == 5


@pytest.mark.parametrize(
    ("values", "kind", "classes"),
    [
        (["b", "a"] * 30, "auto", ("a", "b")),
        ([True, False] * 30, "auto", ("false", "true")),
        ([3, 5, 9] * 20, "auto", ("3", "5", "9")),
        ([3, 5, 9] * 20, "number", None),
        (list(range(60)), "auto", None),
        (list(range(30)) * 2, "classes", tuple(str(each) for each in range(30))),
        ([0.5, 1.5] * 30, "auto", None),
        ([0.5, 1.5] * 30, "classes", ("0.5", "1.5")),
    ],
)
def test_a_target_is_a_class_or_a_number(values: list[Any], kind: str, classes: tuple[str, ...] | None) -> None:
    found = targets.of(np.array(values), kind, "data.target=y")
    assert found.classes == classes
    assert found.values.shape == ((60,) if classes else (60, 1))
    if classes is not None:
        assert [classes[place] for place in found.values[:2]] == [str(each).lower() for each in values[:2]]


@pytest.mark.parametrize("hole", [("size", 7, None), ("colour", 7, None), ("size", 7, float("inf"))])
def test_what_is_missing_is_refused_dropped_or_the_mean_of_the_training_part(tmp_path: Path, hole: tuple[str, int, Any]) -> None:
    table = columns()
    table[hole[0]][hole[1]] = hole[2]
    path = write(tmp_path / "a.csv", table)
    with pytest.raises(
        ValueError, match=rf"^data\.path=.*a\.csv: has no number in 1 rows of column {hole[0]}, first in row 8; type data\.missing="
    ):
        Table(path=str(path), target="kind").prepare()
    dropped = Table(path=str(path), target="kind", missing="drop")
    assert sum(len(of(dropped, split)[1]) for split in ("train", "val", "test")) == ROWS - 1
    filled = Table(path=str(path), target="kind", missing="mean", validation=0, test=0.5)
    found, place = {}, []
    for split in ("train", "test"):
        source = filled.part(split, "cpu")
        assert source is not None
        found[split] = of(filled, split)[0]
        place += [(split, row) for row, place in enumerate(source.places) if place == 7]
    ((split, row),) = place
    assert np.isfinite(found[split]).all()
    if hole[0] == "size":
        assert abs(found[split][row, 0]) < 1e-6
    else:
        there = [each for number, each in enumerate(found["train"]) if (split, number) != ("train", row)]
        np.testing.assert_allclose(found[split][row, 1:4], np.mean(there, 0)[1:4], atol=1e-6)


def test_a_column_of_names_is_to_be_left_out(tmp_path: Path) -> None:
    table = {key: values * 2 for key, values in columns().items()}
    path = write(tmp_path / "a.csv", {**table, "id": [f"n{number}" for number in range(2 * ROWS)]})
    with pytest.raises(ValueError, match=r"has 120 kinds of text in column id; leave it out: 'data\.leave_out=\[id\]'$"):
        Table(path=str(path), target="kind").prepare()
    assert Table(path=str(path), target="kind", leave_out=["id"]).in_features == 5


def test_a_target_that_is_missing_is_no_mean(tmp_path: Path) -> None:
    table = columns()
    table["size"][3] = None
    path = write(tmp_path / "a.csv", table)
    with pytest.raises(ValueError, match=r"has no size in 1 rows, first in row 4; type data\.missing=drop$"):
        Table(path=str(path), target="size", missing="mean").prepare()
    data = Table(path=str(path), target="size", missing="drop", leave_out=["kind"])
    assert (data.num_classes, data.out_features, of(data, "train")[1].shape[1]) == (None, 1, 1)


BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no such target": ({}, {"target": "knd"}, r"^data\.target=knd: a\.csv has no such column; did you mean kind\?$"),
    "no target": (
        {},
        {"target": None},
        r"^data\.target=null: a\.csv has no such column; it has size, colour, count, kind; type data\.target= with one of them$",
    ),
    "constant": ({"same": [4] * ROWS}, {}, r"has the same in all rows of column same, 4\.0, from .*'data\.leave_out=\[same\]'$"),
    "empty": ({"none": [None] * ROWS}, {}, r"has no value in column none, from which nothing can be learnt"),
    "one class": ({"kind": ["raw"] * ROWS}, {}, r"^data\.target=kind: there is one class only, raw, in all 60 rows"),
    "text as number": ({}, {"kind": "number"}, r"^data\.target=kind: it has texts .*type data\.kind=classes$"),
    "dates": (
        {"day": [f"2024-01-0{1 + number % 9}" for number in range(ROWS)]},
        {},
        r"has date32.* in column day, .*leave_out=\[day\]'$",
    ),
    "left out that is none": ({}, {"leave_out": ["coulour"]}, r"^data\.leave_out=coulour: .* did you mean colour\?$"),
    "the target left out": ({}, {"leave_out": ["kind"]}, r"^data\.leave_out: kind is the target"),
    "nothing left": ({}, {"leave_out": ["size", "count", "colour"]}, r"has no column beside the target"),
    "a text of names": ({}, {"leave_out": "size"}, r"^data\.leave_out=size: it is a list"),
    "nothing to train on": ({}, {"validation": 0.6, "test": 0.5}, r"^data\.test=0\.5: with 0\.6 held out"),
    "missing": ({}, {"missing": "zero"}, r"^data\.missing=zero: not known; type one of refuse, drop, mean$"),
    "delimiter": ({}, {"delimiter": "::"}, r"^data\.delimiter='::': it is one character"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_one_line(tmp_path: Path, case: str) -> None:
    more, options, why = BAD[case]
    path = write(tmp_path / "a.csv", columns(**more))
    with pytest.raises(ValueError, match=why) as refused:
        Table(**{"path": str(path), "target": "kind", **options}).prepare()
    assert len(str(refused.value).splitlines()) == 1
    assert not list((tmp_path / "cache").glob("table-*/")), "nothing half-written"


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.csv", b"a,b\n1,2\n3\n", r"is not readable as CSV \(.*Expected 2 columns"),
        ("a.csv", b"a,b\n", r"has no rows below its line of names"),
        ("a.csv", b"", r"is not readable as CSV"),
        ("a.csv", b"a,a,b\n1,2,3\n", r"has two columns a; give one of them another name"),
        ("a.csv", b"a,b\n\xff\xfe,2\n\x80,3\n", r"has text in column a that is not in UTF-8; write it so"),
        ("a.csv", b"a;b\n1;2\n", r"^data\.target=b: a\.csv has no such column; it has one column, 'a;b'; type 'data\.delimiter=\";\"'$"),
        ("a.csv", b"a\tb\n1\t2\n", r"it has one column, 'a\\tb'; type \$'data\.delimiter=\"\\t\"'$"),
        ("A.PARQUET", b"PAR1 and no more", r"is not readable as parquet"),
        ("a.parquet", b"PAR1 and no more", r"is not readable as parquet"),
    ],
)
def test_a_file_that_is_no_table_is_one_line(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=why) as refused:
        Table(path=str(tmp_path / name), target="b").prepare()
    assert len(str(refused.value).splitlines()) == 1


def test_a_file_that_is_not_there_and_a_delimiter_that_is_another(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^data\.path=.*none\.csv: there is no such file; type that of a table"):
        Table(path=str(tmp_path / "none.csv"), target="kind").prepare()
    with pytest.raises(ValueError, match=r"^data\.path is null: no table; type data\.path="):
        Table()
    path = write(tmp_path / "a.csv", columns(), ";")
    assert Table(path=str(path), target="kind", delimiter=";").prepare()["path"] == str(path)


def test_a_part_that_nothing_is_in_is_none(tmp_path: Path) -> None:
    data = Table(path=str(write(tmp_path / "a.csv", columns())), target="kind", validation=0)
    assert data.part("val", "cpu") is None
    raw = Table(path=str(tmp_path / "a.csv"), target="kind", standardise=False)
    assert of(raw, "train")[0][:, 0].min() > 20


@pytest.mark.parametrize(("name", "held"), [("iris", (3, None, 4)), ("diabetes", (None, 1, 10))])
def test_the_tables_of_scikit_learn(name: str, held: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn", reason="needs the extra: pip install scikit-learn")
    pinned = Bundled(name).prepare()
    monkeypatch.setitem(sys.modules, "sklearn", None)
    data = Bundled(name, **pinned)  # pyright: ignore[reportArgumentType]
    assert (data.num_classes, data.out_features, data.in_features) == held
    assert abs(of(data, "train")[0].mean()) < 1e-6
    with pytest.raises(ValueError, match=r"^data=sklearn: .* not installed; pip install scikit-learn$"):
        Bundled("wine").prepare()
    with pytest.raises(ValueError, match=r"^data\.name=boston: not known; type one of breast_cancer, diabetes, iris, wine$"):
        Bundled("boston")


def test_rows_that_are_there_twice_are_kept_left_out_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = columns()
    for name, values in table.items():
        values += [values[3], values[3], values[7]]
        if name == "kind":
            values[-1] = "raw" if values[7] == "ripe" else "ripe"
    path = write(tmp_path / "a.csv", table)
    options: dict[str, Any] = {"path": str(path), "target": "kind", "cache": str(tmp_path / "cache")}
    kept, dropped = Table(**options), Table(**options, duplicates="drop")
    assert (kept._opened().manifest["rows"], dropped._opened().manifest["rows"]) == (ROWS + 3, ROWS + 1)
    said = capsys.readouterr().err
    assert "data: 2 duplicates are left out (data.duplicates=drop): row 61 (a.csv) is row 4 (a.csv) again\n" in said
    assert "WARNING: 1 rows have the features of another and another kind; they stay\n" in said
    assert kept._fingerprint() != dropped._fingerprint()
    with pytest.raises(ValueError, match=r"^data\.duplicates=refuse: row 61 \(a\.csv\) is row 4 \(a\.csv\) again; take one away"):
        Table(**options, duplicates="refuse").prepare()
    table["kind"][5] = None
    some = Table(**{**options, "path": str(write(tmp_path / "b.csv", table))}, missing="drop")
    some.prepare()
    assert f"data: 1 of {ROWS + 3} rows have a value missing and are left out (data.missing=drop)\n" in capsys.readouterr().err

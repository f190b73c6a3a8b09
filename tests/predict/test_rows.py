"""Tables and arrays of anybody's: each row is answered as it is meant, or refused in a few words. Nothing is left out without one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from launcher.predict import sources
from launcher.predict.images import Refused
from launcher.predict.rows import Rows

_NUMBER: Mapping[str, Any] = {"equals": None, "mean": 0.0, "std": 1.0, "fill": None}
TABLE = Rows({"kind": "table", "columns": [{"column": "a", **_NUMBER}, {"column": "b", **_NUMBER}]}, ["batch", 2])
WORDS = Rows({"kind": "table", "columns": [{"column": "a", **_NUMBER}, {"column": "c", **_NUMBER, "equals": "red"}]}, ["batch", 2])
ARRAY = Rows({"kind": "array", "shape": [2], "mean": None, "std": None, "fill": None}, ["batch", 2])
HOLES = Rows({"kind": "array", "shape": [2], "mean": None, "std": None, "fill": [7.0, 8.0]}, ["batch", 2])


def read(rows: Rows, path: Path) -> list[list[float]]:
    with contextlib.closing(rows.of(path)) as found:
        return [rows(row).tolist() for row in found]


@pytest.mark.parametrize(
    "dtype", [">f4", "<f8", ">f2", ">i8", "u2", "g", "?"], ids=["big", "double", "half", "whole", "short", "long", "truth"]
)
@pytest.mark.parametrize("rows", [TABLE, ARRAY], ids=["table", "array"])
def test_numbers_of_any_length_and_order(tmp_path: Path, rows: Rows, dtype: str) -> None:
    wanted = np.asarray([[1, 0], [0, 1], [1, 1]])
    for made in (wanted.astype(dtype), np.asfortranarray(wanted.astype(dtype))):
        np.save(tmp_path / "a.npy", made)
        if dtype == "?" and rows is TABLE:
            with pytest.raises(Refused, match="has True, which is no number"):
                read(rows, tmp_path / "a.npy")
        else:
            assert read(rows, tmp_path / "a.npy") == wanted.tolist()


@pytest.mark.parametrize("rows", [TABLE, ARRAY, WORDS], ids=["table", "array", "words"])
@pytest.mark.parametrize(
    ("made", "said"),
    [
        (np.float64(3), r"it is \(\)"),
        (np.ones((2, 3)), r"\(2, 3\)|it is \(3,\)"),
        (np.ones((1, 1, 2)), r"\(1, 1, 2\)|it is \(1, 2\)"),
        (np.ones((1, 2), complex), "complex128, and no real numbers"),
        (np.ones((1, 2), "M8[s]"), "datetime64.s., and no real numbers"),
    ],
    ids=["one", "wide", "deep", "complex", "dates"],
)
def test_an_array_of_something_else_is_refused(tmp_path: Path, rows: Rows, made: Any, said: str) -> None:
    np.save(tmp_path / "a.npy", made)
    with pytest.raises(Refused, match=said):
        read(rows, tmp_path / "a.npy")


def test_numbers_say_nothing_of_a_column_of_texts(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((1, 2)))
    with pytest.raises(Refused, match="column 'c' is a text"):
        read(WORDS, tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", np.asarray([["3", "red"], ["4", "blue"]]))
    assert read(WORDS, tmp_path / "a.npy") == [[3, 1], [4, 0]]


def test_a_file_that_is_no_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "huge.npy", np.ones((9, 2)))
    whole = (tmp_path / "huge.npy").read_bytes()
    (tmp_path / "huge.npy").write_bytes(whole.replace(b"(9, 2), }" + b" " * 11, b"(999999999999, 2), }"))
    np.savez(tmp_path / "two.npz", a=np.ones((1, 2)), b=np.ones((1, 2)))
    np.savez(tmp_path / "none.npz")
    (tmp_path / "cut.npz").write_bytes(b"PK\3\4xx")
    (tmp_path / "word.npy").write_bytes(b"hello")
    (tmp_path / "pickle.npy").write_bytes(b"\x80\x04N.")
    (tmp_path / "none.npy").symlink_to("/dev/zero")
    for name, said in {
        "huge.npy": "no array that can be read",
        "two.npz": r"it has 2 arrays \(a, b\), and one is the inputs",
        "none.npz": "it has 0 arrays",
        "cut.npz": "no array that can be read",
        "word.npy": "no array that can be read",
        "pickle.npy": "no array that can be read",
        "none.npy": "it is a device, not a file",
    }.items():
        with pytest.raises(Refused, match=said):
            read(ARRAY, tmp_path / name)


def test_an_npz_of_one_array_is_that_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", x=np.ones((2, 2)))
    assert read(ARRAY, tmp_path / "one.npz") == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("rows", "text", "said"),
    [
        (TABLE, "", "it is empty"),
        (TABLE, "a,b,a\n1,2,3\n", "it has the column 'a' twice"),
        (TABLE, "a,b\n1,2,3,4\n", "it has 2 values more than its first line has names"),
        (TABLE, "a,b\n1_0,2\n", "column 'a' has '1_0', which is no number"),
        (TABLE, "a,b\n١,2\n", "which is no number"),
        (TABLE, "a;b\n1;2\n", "it has no column 'a'"),
        (ARRAY, "1,2\n3,4\n", "its first line is numbers"),
        (ARRAY, "a,b\n1,2,3\n", r"it is \(3,\), and the model takes \(2,\)"),
        (ARRAY, "a,b\n1,x\n", "it is not all numbers"),
        (ARRAY, "a,b\n1,\n", "it has values that are no finite numbers"),
    ],
    ids=["empty", "twice", "long", "underscore", "digits", "semicolon", "bare", "longer", "word", "hole"],
)
def test_a_table_that_could_mean_two_things_is_refused(tmp_path: Path, rows: Rows, text: str, said: str) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    with pytest.raises(Refused, match=said):
        read(rows, tmp_path / "t.csv")


def test_a_table_of_numbers_is_rows_of_an_array_too(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfa,b\r\n1,2\r\n\r\n3.5,-4e1\r\n")
    assert read(ARRAY, tmp_path / "t.csv") == read(TABLE, tmp_path / "t.csv") == [[1, 2], [3.5, -40]]
    (tmp_path / "t.csv").write_text("a,b\n1,\n,2\n")
    assert read(HOLES, tmp_path / "t.csv") == [[1, 8], [7, 2]]


def test_of_a_parquet_only_the_columns_that_are_needed_are_read(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    strange = pa.array([1], pa.timestamp("ns"))  # which is no time of Python's
    parquet.write_table(pa.table({"b": [2.0], "when": strange, "a": [1.0]}), tmp_path / "t.parquet")
    assert read(TABLE, tmp_path / "t.parquet") == [[1, 2]]
    parquet.write_table(pa.table([[1.0], [2.0]], names=["a", "a"]), tmp_path / "t.parquet")
    with pytest.raises(Refused, match="it has the column 'a' twice"):
        read(TABLE, tmp_path / "t.parquet")


@pytest.mark.timeout(20)
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("p.csv", "p.parquet", "p.npy"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(Refused, match="it is a named pipe, not a file"):
            read(TABLE, tmp_path / name)


@pytest.mark.parametrize("row", [5, None, "ab", [1, 2], {"a": 10**400, "b": 1}, {"a": [1], "b": 2}, {}])
def test_a_row_of_another_kind_is_refused(row: Any) -> None:
    with pytest.raises(Refused):
        TABLE(row)
    with pytest.raises(Refused):
        ARRAY(row if row != [1, 2] else [1, 10**400])


def test_ten_rows_are_ten_answers(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(20.0).reshape(10, 2))
    assert torch.tensor(read(TABLE, tmp_path / "a.npy")).flatten().tolist() == [*map(float, range(20))]


def test_a_folder_has_what_the_model_takes(tmp_path: Path) -> None:
    for name in ("a.png", "b.txt", "c.npy", "d"):
        (tmp_path / name).touch()
    found = {kind: [Path(each).name for each in sources.paths([str(tmp_path)], kind)] for kind in ("image", "text", "array", "table")}
    assert found == {"image": ["a.png"], "text": ["b.txt"], "array": ["c.npy"], "table": ["c.npy"]}


@pytest.mark.parametrize(("word", "said"), [("", "an input is an empty text"), (".", "there is no file in it of those that are read")])
def test_nothing_to_answer_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, said: str) -> None:
    from launcher.errors import ConfigError

    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=said):
        sources.check([word], "image")

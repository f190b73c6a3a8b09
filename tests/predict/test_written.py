"""Answers on the disk: a handful is held however many there are, and a file is whole or not there."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from helpers import REPO
from processes import environment, small_disk
from pyarrow import parquet

from launcher.errors import ConfigError, RunError
from launcher.predict import written

CLASSES: dict[str, Any] = {"predicts": "classes", "outputs": [{"shape": ["batch", 2]}]}
SUFFIXES = [suffix.removeprefix(".") for suffix in written.SUFFIXES]


class Held(dict[str, Any]):
    """An answer that is counted while it lives."""

    now: ClassVar[int] = 0
    most: ClassVar[int] = 0

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        Held.now += 1
        Held.most = max(Held.most, Held.now)

    def __del__(self) -> None:
        Held.now -= 1


def answer(number: int) -> Held:
    guards = ["size: odd"] * (number % 2)
    return Held({"input": f"{number}.png", "prediction": "cat", "class": "cat", "confidence": 0.5, "distance": 0.25, "guards": guards})


def answers(count: int) -> Iterator[Held]:
    """The first and the last are of inputs of which nothing could be said."""
    yield Held(input="no.png", prediction=None, error="it is no picture", guards=["input: it is no picture"])
    yield from map(answer, range(count))
    yield Held(input="half \udcff.png", prediction=None, error="it is no picture", guards=[])


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".parquet":
        return parquet.read_table(path).to_pylist()
    with path.open(newline="") as file:
        return [*csv.DictReader(file)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_of_any_number_of_answers_a_handful_is_held(tmp_path: Path, suffix: str) -> None:
    """Not a full group of parquet's either: of its rows the cells are held, which are smaller."""
    Held.most = Held.now = 0
    count = 3 * written.GROUP
    written.write(answers(count), tmp_path / f"a.{suffix}", written.columns(CLASSES))
    assert (Held.now, Held.most <= 3) == (0, True), Held.most
    found = read(tmp_path / f"a.{suffix}")
    assert len(found) == count + 2
    assert [each["input"] for each in found[:3]] == ["no.png", "0.png", "1.png"]
    assert found[-1]["input"] == ("half \udcff.png" if suffix == "jsonl" else "half \\udcff.png")
    if suffix == "parquet":
        assert parquet.ParquetFile(tmp_path / "a.parquet").num_row_groups == 4


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_columns_do_not_hang_on_the_answers_that_there_are(tmp_path: Path, suffix: str) -> None:
    heads: list[list[str]] = []
    for given in ([], [answer(1)], [*answers(1)]):
        path = tmp_path / f"a.{suffix}"
        written.write(iter(given), path, written.columns(CLASSES, has_top=True))
        heads.append(parquet.read_table(path).column_names if suffix == "parquet" else path.read_text().splitlines()[0].split(","))
    assert heads == [["input", "prediction", "class", "confidence", "top", "distance", "guards", "error"]] * 3


def test_parquet_has_numbers_as_numbers_and_lists_as_json(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    written.write(answers(2), path, written.columns(CLASSES))
    refused, _, odd, _ = read(path)
    assert odd == {**answer(1), "guards": '["size: odd"]', "error": None}
    assert (refused["class"], refused["confidence"], refused["error"]) == (None, None, "it is no picture")
    one = {"predicts": "numbers", "outputs": [{"shape": ["batch"]}]}
    written.write([{"input": "a:1", "prediction": 0.5, "distance": None, "guards": []}], path, written.columns(one))
    assert read(path)[0] == {"input": "a:1", "prediction": 0.5, "distance": None, "guards": "[]", "error": None}


def test_long_texts_make_small_groups(tmp_path: Path) -> None:
    texts = ({"input": f"text {number}", "text": "x" * (6 << 20), "continued": "y"} for number in range(7))
    written.write(texts, tmp_path / "a.parquet", written.columns({"predicts": "tokens"}))
    assert parquet.ParquetFile(tmp_path / "a.parquet").num_row_groups == 3


def test_what_no_column_is_for_is_not_left_out_in_silence(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="colour"):
        written.write([Held(answer(1), colour="red")], tmp_path / "a.csv", written.columns(CLASSES))
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_ends_it_leaves_what_was_there_before(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_text("before")

    def ends() -> Iterator[Held]:
        yield from answers(2 * written.GROUP)
        raise ConfigError("a guard (--strict)")

    with pytest.raises(ConfigError, match="a guard"):
        written.write(ends(), path, written.columns(CLASSES))
    assert (path.read_text(), [*tmp_path.iterdir()]) == ("before", [path])


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_room_is_one_line_and_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    with small_disk(tmp_path / "disk", "size=64k") as disk:
        with pytest.raises(RunError, match=r"cannot be written \(No space left on device\); make room"):
            written.write(answers(20 * written.GROUP), disk / f"a.{suffix}", written.columns(CLASSES))
        assert [*disk.iterdir()] == []


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_that_is_killed_leaves_nothing_of_that_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    code = (
        "import itertools, sys; from pathlib import Path; from launcher.predict import written; from test_written import CLASSES, answer\n"
        "def ever():\n    for n in itertools.count():\n        n == 20_000 and print('far', flush=True)\n        yield answer(n)\n"
        "written.write(ever(), Path(sys.argv[1]), written.columns(CLASSES))"
    )
    env = environment(tmp_path)
    env["PYTHONPATH"] += f":{REPO / 'tests'}:{REPO / 'tests' / 'predict'}"
    with subprocess.Popen([sys.executable, "-c", code, path], env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "far\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait(20) == -signal.SIGKILL
    assert not path.exists()
    assert [left.name for left in tmp_path.iterdir()] == [f".{path.name}.{process.pid}"]

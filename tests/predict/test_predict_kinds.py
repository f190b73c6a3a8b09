"""What each kind of model may be asked, and how its answers look in every form."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_exports
import numpy as np
import pytest
from helpers import Answer, refused
from PIL import Image
from pyarrow import parquet

Command = Callable[..., Answer]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

FOR: dict[str, tuple[str, ...]] = {
    "top=1": ("classes",),
    "classes=cat": ("classes", "boxes"),
    "unsure=0.5": ("classes", "boxes"),
    "draw=drawn": ("boxes",),
    "batch_size=64": ("classes", "numbers", "boxes", "tensors"),
    "--strict": ("classes", "numbers", "boxes", "tensors"),
    "tokens=100": ("tokens",),
    "seed=0": ("tokens",),
}
"""The defaults: that they were typed is what counts."""
SERVED = ("top=5", "classes=cat", "unsure=0.5", "batch_size=32", "wait_ms=2", "queue=1024", "tokens=100")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("made")
    return {kind: made_exports.write(place / kind, kind) for kind in made_exports.KINDS}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Two inputs for each kind, the second one that cannot be read."""
    place = tmp_path_factory.mktemp("given")
    np.save(place / "a.npy", np.array([[1, 2, 3, 4], [1, 2, 3, np.nan]], np.float32))
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)).save(place / "a.png")
    (place / "b.png").write_text("none")
    (place / "b.txt").write_bytes(b"\xff\xfe")
    rows = [str(place / "a.npy")]
    pictures, texts = [str(place / "a.png"), str(place / "b.png")], ["Now is the winter of our discontent", str(place / "b.txt")]
    return {"classes": rows, "numbers": rows, "tensors": rows, "boxes": pictures, "tokens": texts}


@pytest.mark.parametrize("kind", made_exports.KINDS)
def test_what_says_nothing_to_a_model_is_refused_and_the_rest_is_taken(
    tmp_path: Path, made: dict[str, Path], given: dict[str, list[str]], command: Command, kind: str
) -> None:
    for word, kinds in FOR.items():
        if kind not in kinds:
            said = f"{word}: that is for models that predict {' or '.join(kinds)}, and this one predicts {kind}; leave it out"
            refused(command("predict", str(made[kind]), given[kind][0], word), 2, said)
    taken = [word.replace("drawn", str(tmp_path)) for word, kinds in FOR.items() if kind in kinds and word != "--strict"]
    answer = command("predict", str(made[kind]), *given[kind][:1], *taken)
    assert answer.code == (0 if len(given[kind]) == 2 else 1), answer


@pytest.mark.parametrize("kind", made_exports.KINDS)
def test_a_server_is_refused_the_same(made: dict[str, Path], command: Command, kind: str) -> None:
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    not_for = {**FOR, "top=5": FOR["top=1"], **dict.fromkeys(("batch_size=32", "wait_ms=2", "queue=1024"), FOR["batch_size=64"])}
    for word in SERVED:
        if kind not in not_for[word]:
            refused(command("serve", str(made[kind]), "port=0", word), 2, f"{word}: that is for models", f"this one predicts {kind}")


@pytest.mark.parametrize("kind", made_exports.KINDS)
def test_every_form_says_the_same_of_every_kind(
    tmp_path: Path, made: dict[str, Path], given: dict[str, list[str]], command: Command, kind: str
) -> None:
    more = {"boxes": [f"draw={tmp_path / 'drawn'}"], "classes": ["top=2"], "tokens": ["tokens=12", "seed=3"]}.get(kind, [])
    found: dict[str, list[dict[str, Any]]] = {}
    for suffix in ("jsonl", "csv", "parquet"):
        to = tmp_path / f"a.{suffix}"
        shutil.rmtree(tmp_path / "drawn", ignore_errors=True)  # what is there would not be drawn over
        answer = command("predict", str(made[kind]), *given[kind], *more, f"to={to}")
        assert (answer.code, answer.out) == (1, f"{to}\n"), answer
        assert answer.lines[0].startswith("2 inputs in "), answer
        assert answer.lines[0].endswith("1 without an answer"), answer
        assert answer.lines[-1:] == ["launcher: nothing can be said of 1 of 2 inputs; their lines say why"]
        if suffix == "jsonl":
            found[suffix] = [json.loads(line) for line in to.read_text().splitlines()]
        elif suffix == "csv":
            with to.open(newline="") as file:
                found[suffix] = [*csv.DictReader(file)]
        else:
            found[suffix] = parquet.read_table(to).to_pylist()
    for wanted, row, cells in zip(found["jsonl"], found["parquet"], found["csv"], strict=True):
        assert {name: _cell(value) for name, value in wanted.items()} == {name: row[name] for name in wanted}
        assert {name: "" if value is None else str(value) for name, value in row.items()} == cells
    assert [bool(row["error"]) for row in found["parquet"]] == [False, True]


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


def test_a_text_goes_on_in_a_file_as_it_does_on_the_screen(
    tmp_path: Path, made: dict[str, Path], given: dict[str, list[str]], command: Command
) -> None:
    text = given["tokens"][0]
    words = ("predict", str(made["tokens"]), text, "To be", "tokens=20")
    command(*words, "seed=3", f"to={tmp_path / 'a.jsonl'}")
    first, second = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [*first] == ["input", "text", "continued"]
    assert (first["input"], first["text"], second["input"], second["text"]) == ("text 1", text, "text 2", "To be")
    assert command(*words, "seed=3").out == "".join(f"{each['text']}{each['continued']}\n" for each in (first, second))
    assert command(*words, "seed=4").out != command(*words, "seed=3").out


def test_inputs_are_asked_for_one_by_one_and_none_is_answered_where_one_is_not_there(
    tmp_path: Path, made: dict[str, Path], given: dict[str, list[str]], command: Command
) -> None:
    from launcher.predict import sources

    for name in ("b", "a"):
        (tmp_path / f"{name}.npy").touch()
    found = sources.paths([str(tmp_path), "x" * 5000, "-"], "text")
    assert (next(found), sources.count([str(tmp_path)], "array")) == ("x" * 5000, 0), "stdin is not read yet"
    assert [*sources.paths([str(tmp_path), f"{tmp_path}/*.npy"], "array")] == [tmp_path / "a.npy", tmp_path / "b.npy"] * 2
    refused(command("predict", str(made["numbers"]), *given["numbers"], "gone*.npy"), 2, "gone*.npy: there is no such file")

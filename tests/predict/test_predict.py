"""`predict EXPORT INPUT…` on a real export: what each input gets, in which form, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import REPO, Answer, refused
from PIL import Image
from processes import finish, small_disk

from launcher.exported.folder import Folder
from launcher.predict import ask
from launcher.predict.predictor import Asked, Predictor
from launcher.predict.sources import Item

Command = Callable[..., Answer]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    from sklearn.datasets import load_digits  # pyright: ignore[reportMissingImports]

    place = tmp_path_factory.mktemp("pictures")
    found: Any = load_digits()
    for number, pixels in enumerate(found.images[:120]):
        Image.fromarray(np.rint(pixels * 255 / 16).astype(np.uint8)).save(place / f"{number:03d}.png")
    return place, found.target[:120].tolist()


def lines(answer: Answer) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.out.splitlines()]


def test_a_folder_in_its_order_and_mostly_right(digits: Path, real: tuple[Path, list[int]], command: Command) -> None:
    place, labels = real
    answer = command("predict", str(digits), str(place), "batch_size=32", "unsure=0")
    assert answer.code == 0, answer
    found = lines(answer)
    assert [Path(each["input"]).name for each in found] == [f"{number:03d}.png" for number in range(120)]
    assert np.mean([int(each["class"]) == label for each, label in zip(found, labels, strict=True)]) > 0.9
    assert sum(bool(each["guards"]) for each in found) <= 3


ODD: dict[str, Callable[[Path], object]] = {
    "noise.png": lambda path: Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)).save(path),
    "black.png": lambda path: Image.new("L", (8, 8)).save(path),
    "one.png": lambda path: Image.new("L", (1, 1), 200).save(path),
    "large.png": lambda path: Image.new("1", (20_000, 20_000)).save(path),
    "cmyk.jpg": lambda path: Image.new("CMYK", (64, 64), (90, 10, 40, 0)).save(path),
    "deep.png": lambda path: Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(path),
    "clear.png": lambda path: Image.new("RGBA", (8, 8), (9, 9, 9, 0)).save(path),
    "held.jpg": lambda path: Image.new("RGB", (64, 48), (90, 10, 40)).save(path, exif=_held_sideways()),
    "moving.gif": lambda path: Image.new("L", (8, 8)).save(path, save_all=True, append_images=[Image.new("L", (8, 8), 255)]),
    "cut.png": lambda path: path.write_bytes(_png()[:300]),
    "words.png": lambda path: path.write_text("hello"),
    "nothing.png": lambda path: path.touch(),
    "folder.png": lambda path: path.mkdir(),
}
SAID = {
    "noise.png": "far from the training inputs",
    "black.png": "far from the training inputs",
    "one.png": "1×1 pixels are nearly nothing",
    "large.png": "it has more than 178,956,970 pixels, and 89,478,485 are the most",
    "cmyk.jpg": "channels: CMYK, converted",
    "deep.png": "depth: more than 8 bits a channel",
    "clear.png": "channels: what is transparent",
    "held.jpg": "orientation: shown as it is stored",
    "moving.gif": "frames: the first of 2",
    "cut.png": "it is no picture that can be read",
    "words.png": "it is no picture that can be read",
    "nothing.png": "it is no picture that can be read",
    "folder.png": "it cannot be read (",
}


def _held_sideways() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40), np.uint8)).save(file, "png")
    return file.getvalue()


def test_each_odd_input_gets_its_word_and_the_others_their_answers(
    tmp_path: Path, digits: Path, real: tuple[Path, list[int]], command: Command
) -> None:
    for name, make in ODD.items():
        make(tmp_path / name)
    good = str(real[0] / "000.png")
    listed = "\n".join(str(tmp_path / name) for name in ODD)
    words = [sys.executable, "-m", "launcher", "predict", str(digits), good, "-"]
    done = subprocess.run(words, cwd=REPO, input=listed, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1] == "launcher: nothing can be said of 5 of 14 inputs; their lines say why"
    first, *found = [json.loads(line) for line in done.stdout.splitlines()]
    assert (first["input"], first["guards"]) == (good, [])
    for each in found:
        said = SAID[Path(each["input"]).name]
        assert any(said in guard for guard in each["guards"]), each
        assert ("error" in each) == (each["prediction"] is None)
    refused(
        command("predict", str(digits), str(tmp_path / "black.png"), "--strict", f"to={tmp_path / 'a.csv'}"), 2, "far from", "(--strict)"
    )
    assert not (tmp_path / "a.csv").exists()


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_every_form_says_the_same(tmp_path: Path, digits: Path, real: tuple[Path, list[int]], command: Command, suffix: str) -> None:
    to = tmp_path / f"answers.{suffix}"
    answer = command("predict", str(digits), str(real[0] / "00*.png"), f"to={to}", "top=3")
    assert (answer.code, answer.out) == (0, f"{to}\n"), answer
    wanted = lines(command("predict", str(digits), str(real[0] / "00*.png"), "top=3"))
    if suffix == "jsonl":
        assert [json.loads(line) for line in to.read_text().splitlines()] == wanted
    elif suffix == "csv":
        with to.open(newline="") as file:
            assert [row["class"] for row in csv.DictReader(file)] == [each["class"] for each in wanted]
    else:
        from pyarrow import parquet

        assert parquet.read_table(to).column("confidence").to_pylist() == [each["confidence"] for each in wanted]


def test_no_training_code_and_no_pickle(digits: Path, real: tuple[Path, list[int]]) -> None:
    """What a process has loaded at its end."""
    code = (
        "import sys; from launcher.cli import main; code = main(sys.argv[1:]); found = '|'.join(sys.modules) + '|'\n"
        "names = ('hydra', 'omegaconf', 'accelerate', 'models', 'sympy', 'launcher.train', 'launcher.compose')\n"
        "assert not [name for name in names if f'|{name}|' in found], found; sys.exit(code)"
    )
    words = [sys.executable, "-c", code, "predict", str(digits), str(real[0] / "000.png")]
    done = subprocess.run(words, cwd=REPO, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr


def test_several_devices_keep_the_order(digits: Path, real: tuple[Path, list[int]]) -> None:
    """Two predictors on the CPU stand for two GPUs."""
    three = [Predictor(digits, torch.device("cpu"), Asked(unsure=0)) for _ in range(3)]
    given = [Item(str(path), path=path) for path in sorted(real[0].iterdir())]
    alone, together = ([*ask.answered(three[:count], iter(given), 7)] for count in (1, 3))
    assert [each["input"] for each in together] == [item.name for item in given]
    assert [each["class"] for each in together] == [each["class"] for each in alone]


def test_rows_of_a_table(tmp_path: Path, command: Command) -> None:
    rows = np.random.default_rng(0).normal(size=(300, 2))
    text = "".join(f"{a},{b},{'red' if a > 0 else 'blue'},{a + 2 * b}\n" for a, b in rows)
    (tmp_path / "t.csv").write_text("first,second,kind,wanted\n" + text)
    words = (
        "data=table",
        f"data.path={tmp_path / 't.csv'}",
        "data.target=wanted",
        "model=regressor",
        "task=regression",
        "model.in_features=4",
    )
    done = finish(tmp_path, [*words, "name=rows", "id=a", f"runs_dir={tmp_path / 'runs'}", "train.epochs=1"], timeout=100)
    assert done.returncode == 0, done.stderr
    answer = command("export", done.stdout.splitlines()[-1], "onnx=false")
    assert answer.code == 0, answer
    place = answer.out.splitlines()[-1]
    (tmp_path / "new.csv").write_text("kind,second,first\nred,1,2\ngreen,1,2\nred,x,2\nred,,2\n")
    found = lines(command("predict", place, str(tmp_path / "new.csv")))
    assert [each["prediction"] is None for each in found] == [False, False, True, True]
    assert [each.get("error", "") for each in found[2:]] == [
        "column 'second' has 'x', which is no number",
        "it has no value in column 'second'",
    ]
    stored = Folder(Path(place)).json("preprocessing.json")
    assert [(each["column"], each["equals"]) for each in stored["columns"]] == [
        ("first", None), ("second", None), ("kind", "blue"), ("kind", "red"),
    ]  # fmt: skip


def _broken() -> Iterator[tuple[str, Callable[[Path], object], str]]:
    yield "another version", lambda path: _tell(path, version=7), "an export of version 7, and this launcher reads version 1"
    yield "no labels", lambda path: (path / "labels.json").unlink(), "labels.json is not there"
    yield "changed", lambda path: _replace(path / "labels.json", "7", "8"), "its sha256 is another"
    yield "cut", lambda path: (path / "model.safetensors").write_bytes(b"x"), "has 1 bytes, and"
    yield "no manifest", lambda path: (path / "export.json").unlink(), "it has no export.json, so it is no export"
    yield "garbage", lambda path: (path / "export.json").write_text("{"), "export.json cannot be read"


def _replace(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def _tell(path: Path, **changes: Any) -> None:
    told = json.loads((path / "export.json").read_text())
    (path / "export.json").write_text(json.dumps({**told, **changes}))


def test_what_is_no_whole_export_is_one_line(tmp_path: Path, digits: Path, real: tuple[Path, list[int]], command: Command) -> None:
    import shutil

    for number, (_, harm, said) in enumerate(_broken()):
        copy = tmp_path / str(number)
        shutil.copytree(digits, copy)
        harm(copy)
        refused(command("predict", str(copy), str(real[0])), 3, said)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "predict takes an export and inputs"),
        (("PLACE",), 2, "predict takes an export and inputs"),
        (("PLACE", "nowhere.png"), 2, "nowhere.png: there is no such file, folder or pattern"),
        (("PLACE", "REAL", "to=x.txt"), 2, "to=x.txt: answers are written as .jsonl, .csv, .parquet"),
        (("PLACE", "REAL", "to=no/x.csv"), 2, "there is no directory"),
        (("PLACE", "REAL", "unsure=2"), 2, "unsure=2: type a number from 0 to 1"),
        (("PLACE", "REAL", "batch_size=0"), 2, "batch_size=0: type a whole number from 1"),
        (("PLACE", "REAL", "classes=cat"), 2, "classes=cat: the model has 0, 1, 2"),
        (("PLACE", "REAL", "draw=boxes"), 2, "draw=boxes: that is for models that predict boxes, and this one predicts classes"),
        (("PLACE", "REAL", "device=moon"), 2, "device=moon: torch has none here"),
        (("PLACE", "REAL", "pixels=3"), 2, "predict pixels=: there is no such option"),
        (("PLACE", "REAL", "bach_size=3"), 2, "predict bach_size=: there is no such option; did you mean batch_size=?"),
        (("PLACE", "REAL", "top=3", "top=4"), 2, "top=4: top=3 is there already; type top= once"),
        (("PLACE", "REAL", "to="), 2, "to=: there is nothing after it; type to=FILE.jsonl|.csv|.parquet, or leave it out"),
        (("PLACE", "REAL", "classes=0,"), 2, "classes=0,: type names with a comma between them"),
        (("PLACE", "REAL", "tokens=9"), 2, "tokens=9: that is for models that predict tokens, and this one predicts classes; leave it out"),
        (("PLACE", "REAL", "seed=0"), 2, "seed=0: that is for models that predict tokens"),
        (("PLACE", "REAL", "--stirct"), 2, "predict --stirct: there is no such flag; did you mean --strict?"),
    ],
    ids=lambda each: "-".join(each)[-30:] if isinstance(each, tuple) else None,
)
def test_what_cannot_be_meant_is_one_line(
    digits: Path, real: tuple[Path, list[int]], command: Command, words: tuple[str, ...], code: int, said: str
) -> None:
    refused(command("predict", *({"PLACE": str(digits), "REAL": str(real[0])}.get(word, word) for word in words)), code, said)


def test_no_room_leaves_nothing(tmp_path: Path, digits: Path, real: tuple[Path, list[int]], command: Command) -> None:
    with small_disk(tmp_path / "disk", "size=4k") as disk:
        for name in ("a.jsonl", "a.csv", "a.parquet"):
            refused(command("predict", str(digits), str(real[0]), f"to={disk / name}"), 3, "cannot be written", "make room")
            assert list(disk.iterdir()) == []
        with (disk / "out").open("w") as out:
            words = [sys.executable, "-m", "launcher", "predict", str(digits), str(real[0])]
            done = subprocess.run(words, cwd=REPO, stdout=out, stderr=subprocess.PIPE, text=True, timeout=100, check=False)
        refused(Answer(done.returncode, "", done.stderr), 3, "No space left on device")

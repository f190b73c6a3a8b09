"""What `predict` says beside its answers: what is not there, before anything is loaded; how it went; where pictures were drawn."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import made_exports
import numpy as np
import pytest
from helpers import REPO, Answer
from PIL import Image

Command = Callable[..., Answer]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("made")
    return {kind: made_exports.write(place / kind, kind) for kind in ("classes", "boxes", "tokens")}


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)).save(path, "png")
    return path


def test_what_is_not_there_is_said_before_torch_is_loaded(tmp_path: Path, made: dict[str, Path]) -> None:
    export, there = str(made["classes"]), str(picture(tmp_path / "a.png"))
    (tmp_path / "empty").mkdir()
    told = {
        (export, "gone.npy"): "gone.npy: there is no such file",
        (export, there, "gone*.npy"): "gone*.npy: there is no such file",
        (export, str(tmp_path / "empty")): "there is no file in it of those that are read",
        (str(tmp_path / "gone"), there): "there is no such directory",
        (export, there, "classes=cow"): "classes=cow: the model has cat, dog",
        (export, there, "draw=drawn"): "draw=drawn: that is for models that predict boxes",
        (export, there, "to=none/a.csv"): "there is no directory",
    }
    code = (
        "import json, sys; from launcher.cli import main\n"
        "for words in json.loads(sys.argv[1]):\n    assert main(['predict', *words]) in (2, 3)\n"
        "assert not {'torch', 'numpy'} & {*sys.modules}, 'seconds for nothing'"
    )
    words = [sys.executable, "-c", code, json.dumps([*told])]
    done = subprocess.run(words, cwd=REPO, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    for line, said in zip(done.stderr.splitlines(), told.values(), strict=True):
        assert said in line


def test_the_last_line_says_how_it_went(tmp_path: Path, made: dict[str, Path], command: Command) -> None:
    np.save(tmp_path / "a.npy", np.array([[1, 2, 3, 4], [0, 0, 0, 0], [1, 2, 3, np.nan]], np.float32))
    answer = command("predict", str(made["classes"]), str(tmp_path / "a.npy"), "unsure=1")
    assert re.fullmatch(r"3 inputs in [0-9.e-]+ s: 2 with a guard, 2 unsure, 1 without an answer", answer.lines[0]), answer
    assert len(answer.out.splitlines()) == 3, "and stdout has answers alone"
    answer = command("predict", str(made["classes"]), str(tmp_path / "a.npy"), "unsure=0")
    assert ": 0 with a guard, 0 unsure, 1 without an answer" in answer.lines[0]
    for more in ([], [f"to={tmp_path / 'a.jsonl'}"]):
        answer = command("predict", str(made["tokens"]), "To be", "tokens=3", *more)
        assert re.fullmatch(r"1 input in [0-9.e-]+ s: 0 without an answer", answer.err.strip()), answer


def test_a_detector_that_finds_nothing_says_which_limit_that_is_once(tmp_path: Path, made: dict[str, Path], command: Command) -> None:
    given = [str(picture(tmp_path / f"{number}.png", number)) for number in range(2)]
    answer = command("predict", str(made["boxes"]), *given, "unsure=1")
    assert answer.lines[0].endswith(": 0 boxes, 0 with a guard, 0 without an answer")
    assert answer.lines[1:] == ["nothing was found with a score of 1 or more; type unsure=0.1 to see what is less sure"]
    answer = command("predict", str(made["boxes"]), *given, "unsure=0")
    count = sum(len(json.loads(line)["prediction"]) for line in answer.out.splitlines())
    assert count > 2
    assert f": {count} boxes, " in answer.lines[0]
    assert len(answer.lines) == 1


def test_a_drawn_picture_is_called_as_it_was_and_takes_no_others_place(tmp_path: Path, made: dict[str, Path], command: Command) -> None:
    names = ["cat.png", "below/cat.png", "below/cat.jpg", "..hidden.png", "cat\n\x1b[2J.png", "ö" * 120 + ".png"]
    given = [picture(tmp_path / "given" / name, number) for number, name in enumerate(names)]
    before = [path.read_bytes() for path in given]
    answer = command("predict", str(made["boxes"]), *map(str, given), f"draw={tmp_path / 'given'}", "unsure=0")
    assert answer.code == 0, answer
    drawn = [Path(json.loads(line)["drawn"]) for line in answer.out.splitlines()]
    called = ["cat-2.png", "cat-3.png", "cat-4.png", "hidden.png", "cat__[2J.png".replace("[", "_"), "ö" * 60 + ".png"]
    assert [path.name for path in drawn] == called
    assert {path.parent for path in drawn} == {tmp_path / "given"}
    assert [path.read_bytes() for path in given] == before, "none of those that were given"
    for path in drawn:
        with Image.open(path) as image:
            assert image.size == (64, 48)

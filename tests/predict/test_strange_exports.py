"""Exports that somebody has made, or edited: each is one line before anything is answered."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_exports
import pytest

from launcher.errors import RunError
from launcher.exported import folder
from launcher.exported.draft import drafted
from launcher.exported.folder import Folder
from launcher.predict.predictor import Predictor

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("made")
    return {kind: made_exports.write(place / kind, kind) for kind in ("classes", "boxes")}


def edited(source: Path, place: Path, name: str, value: Any) -> Path:
    """A copy with another file of that name, whose hash is right."""
    opened = Folder(source)
    with drafted(place) as draft:
        for file in opened.told["files"]:
            draft.write(file, json.dumps(value) if file == name else opened.read(file))
        draft.finish({key: value for key, value in opened.told.items() if key not in ("format", "version", "files")})
    return place


def changed(**change: Any) -> Callable[[Any], Any]:
    return lambda old: {**old, **change}


@pytest.mark.parametrize(
    ("kind", "name", "change", "said"),
    [
        ("classes", folder.LABELS, lambda _: [], "labels.json has 0 names"),
        ("classes", folder.LABELS, lambda _: ["a"], "labels.json has 1 names, and the program scores [2]"),
        ("classes", folder.LABELS, lambda _: {"a": 1}, "labels.json is no list of names"),
        ("classes", folder.LABELS, lambda _: ["a", 1], "labels.json is no list of names"),
        ("boxes", folder.LABELS, lambda _: ["a", "b", "c"], "labels.json has 3 names"),
        ("boxes", folder.PREPROCESSING, changed(kind=None), "inputs of the kind None"),
        ("boxes", folder.PREPROCESSING, changed(kind="x"), "inputs of the kind"),
        ("boxes", folder.PREPROCESSING, changed(std=[0.5, 0.5]), "mean or std of 3 channels"),
        ("boxes", folder.PREPROCESSING, changed(mean=[0.5]), "mean or std of 3 channels"),
        ("boxes", folder.PREPROCESSING, changed(std=[0.5, 0, 0.5]), "mean or std of 3 channels"),
        ("boxes", folder.PREPROCESSING, changed(mean=[float("nan")] * 3), "mean or std of 3 channels"),
        ("boxes", folder.PREPROCESSING, changed(size=[30_000, 30_000]), "for a program that takes [3, 64, 64]"),
        ("boxes", folder.PREPROCESSING, changed(size=[64, 32]), "for a program that takes [3, 64, 64]"),
        ("boxes", folder.PREPROCESSING, changed(mode="L"), "for a program that takes [3, 64, 64]"),
        ("boxes", folder.PREPROCESSING, changed(share=0), "share 0"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    tmp_path: Path, made: dict[str, Path], kind: str, name: str, change: Callable[[Any], Any], said: str
) -> None:
    place = edited(made[kind], tmp_path / "strange", name, change(Folder(made[kind]).json(name)))
    with pytest.raises(RunError) as error:
        Predictor(place)
    assert said in str(error.value)
    assert "export the run again" in str(error.value)

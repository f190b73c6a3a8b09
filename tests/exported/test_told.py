"""What `export.json` says may be anybody's: what a model is asked by has a name and a shape, or the folder is refused in one line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from launcher.errors import RunError
from launcher.exported.draft import check, drafted
from launcher.exported.folder import MANIFEST, PREPROCESSING, Folder

TENSORS = [{"name": "input", "dtype": "float32", "shape": ["batch", 2]}]
TOLD: dict[str, Any] = {
    "predicts": "numbers", "predicting": {}, "inputs": TENSORS, "outputs": TENSORS, "differences": {}, "missing": {},
    "run": {"name": "a", "id": "b", "step": 3},
}  # fmt: skip


@pytest.fixture
def export(tmp_path: Path) -> Path:
    with drafted(tmp_path / "export") as draft:
        draft.write(PREPROCESSING, b'{"kind": "tensors"}')
        draft.finish(TOLD)
    assert Folder(tmp_path / "export").told["run"] == TOLD["run"]
    return tmp_path / "export"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"inputs": []}, "does not say in inputs"),
        ({"inputs": [{}]}, "does not say in inputs"),
        ({"inputs": ["x"]}, "does not say in inputs"),
        ({"inputs": [{**TENSORS[0], "shape": None}]}, "does not say in inputs"),
        ({"inputs": [{**TENSORS[0], "shape": ["batch", -1]}]}, "does not say in inputs"),
        ({"inputs": [{**TENSORS[0], "name": 5}]}, "does not say in inputs"),
        ({"outputs": [{**TENSORS[0], "shape": [True]}]}, "does not say in outputs"),
        ({"run": {}}, "does not say in run of which one it is"),
        ({"run": {"name": 5, "id": "b", "step": 3}}, "does not say in run of which one it is"),
        ({"run": {"name": "a", "id": "b", "step": "3"}}, "does not say in run of which one it is"),
        ({"version": True}, "an export of version True"),
    ],
    ids=lambda each: json.dumps(each)[:40] if isinstance(each, dict) else None,
)
def test_a_manifest_without_what_one_says_is_refused(export: Path, changed: dict[str, Any], said: str) -> None:
    told = json.loads((export / MANIFEST).read_text())
    (export / MANIFEST).write_text(json.dumps({**told, **changed}))
    with pytest.raises(RunError, match=said) as refused:
        Folder(export)
    assert "\n" not in str(refused.value)


def test_a_name_that_is_no_utf_8_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="its name is no UTF-8; type another"):
        check(tmp_path / "b\udcff")


def test_what_a_killed_one_left_goes_and_what_one_at_work_has_stays(tmp_path: Path) -> None:
    left, new, other = (tmp_path / name for name in (".export.part-a", ".export.part-b", ".export2.part-a"))
    for path in (left, new, other):
        path.mkdir()
        (path / "model.safetensors").write_bytes(b"x")
    os.utime(left, (0, 0))
    os.utime(other, (0, 0))
    with drafted(tmp_path / "export") as at_work:
        os.utime(at_work.place, (0, 0))
        with drafted(tmp_path / "export"):
            assert at_work.place.is_dir(), "it is held"
    assert sorted(tmp_path.iterdir()) == [new, other]

"""An export that is encrypted: opened like a plain one by who has the key, and told apart from a damaged one by who has another."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.errors import KeyFault, RunError
from launcher.exported.draft import drafted
from launcher.exported.folder import LABELS, MANIFEST, PREPROCESSING, SEALED, WEIGHTS, Folder
from launcher.trust import vault

pytest.importorskip("cryptography")

KEY, OTHER = bytes(range(32)), bytes(32)
TENSORS = [{"name": "input", "dtype": "float32", "shape": ["batch", 2]}]
KINDS = {"predicting": {}, "inputs": TENSORS, "outputs": TENSORS, "differences": {}, "missing": {}}
TOLD = {"predicts": "classes", **KINDS, "run": {"name": "secret-run", "id": "a", "step": 3}}
FILES = {PREPROCESSING: b'{"kind": "tensors"}', LABELS: b'["a", "b"]', WEIGHTS: bytes(range(256)) * 9000}


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with drafted(tmp_path / "export", KEY) as draft:
        for name, data in FILES.items():
            draft.write(name, data)
        draft.finish(TOLD)
    monkeypatch.setenv("LAUNCHER_KEY", KEY.hex())
    return tmp_path / "export"


def test_it_is_read_as_it_was_and_nothing_of_it_lies_there(export: Path) -> None:
    assert {path.name for path in export.iterdir()} == {MANIFEST, *(f"{name}{SEALED}" for name in (*FILES, MANIFEST))}
    assert set(json.loads((export / MANIFEST).read_text())) == {"format", "version", "sealed"}
    before = {path: path.read_bytes() for path in export.iterdir()}
    assert not any(b"secret-run" in data or bytes(range(256)) in data or FILES[LABELS] in data for data in before.values())
    folder = Folder(export)
    assert {name: folder.read(name) for name in FILES} == FILES
    assert folder.json(LABELS) == ["a", "b"]
    assert folder.told["run"] == TOLD["run"]
    assert {path: path.read_bytes() for path in export.iterdir()} == before


def test_a_plain_one_is_as_before(tmp_path: Path) -> None:
    with drafted(tmp_path / "plain") as draft:
        for name, data in FILES.items():
            draft.write(name, data)
        draft.finish(TOLD)
    assert {path.name for path in (tmp_path / "plain").iterdir()} == {MANIFEST, *FILES}
    assert Folder(tmp_path / "plain").read(WEIGHTS) == FILES[WEIGHTS]


def test_without_a_key_and_with_another_it_is_said(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCHER_KEY", OTHER.hex())
    with pytest.raises(KeyFault, match=f"with the key {vault.mark(KEY)[:8]}, and yours is {vault.mark(OTHER)[:8]}"):
        Folder(export)
    monkeypatch.delenv("LAUNCHER_KEY")
    with pytest.raises(KeyFault, match=f"with the key {vault.mark(KEY)[:8]}.* needs a key, and neither LAUNCHER_KEY nor LAUNCHER_KEY_FILE"):
        Folder(export)


def _changed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[vault.HEADER.size + vault.PIECE + 100] ^= 1
    path.write_bytes(data)


def _sealed(here: Path, name: str) -> Path:
    return here / f"{name}{SEALED}"


OTHERS = "is another file, put in the place of export.json"
CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte": (lambda here: _changed(_sealed(here, WEIGHTS)), r"piece 2 of 3, bytes 1048576 to 2097152, was changed"),
    "cut off": (lambda here: os.truncate(_sealed(here, WEIGHTS), 2304139), "2,304,139 bytes, and 2304148"),
    "gone": (lambda here: _sealed(here, WEIGHTS).unlink(), "is not there"),
    "another in its place": (lambda here: _sealed(here, LABELS).replace(_sealed(here, MANIFEST)), OTHERS),
    "plain": (lambda here: _sealed(here, MANIFEST).write_text("{}" * 99), "is not encrypted, and should be"),
    "the manifest gone": (lambda here: _sealed(here, MANIFEST).unlink(), "export.json cannot be read"),
    "an empty one": (lambda here: _sealed(here, MANIFEST).write_bytes(b""), "was cut off: it ends in its header"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_was_done_to_it_is_one_line(what: str, export: Path) -> None:
    change, said = CHANGES[what]
    change(export)
    with pytest.raises(RunError, match=said) as error:
        Folder(export).read(WEIGHTS)
    assert not isinstance(error.value, KeyFault)
    assert str(export) in str(error.value)


def test_a_file_of_another_export_is_not_taken(export: Path, tmp_path: Path) -> None:
    """It has the name and the key, and is whole."""
    other = b"".join(vault.sealed([b'["b", "a"]'], 10, LABELS, KEY))
    assert len(other) == (export / f"{LABELS}{SEALED}").stat().st_size
    (export / f"{LABELS}{SEALED}").write_bytes(other)
    with pytest.raises(RunError, match="its sha256 is another"):
        Folder(export).read(LABELS)

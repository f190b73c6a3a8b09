"""A sweep's ledger and a run's checkpoints that somebody made who meant harm: refused by one line, or passed over."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import Answer, claimed
from hostile import HUGE, circle, deep, folder, listening, no_text, pipe, sparse, wide, zero

from launcher.errors import CheckpointError
from launcher.train.checkpoint.checkpoint import CheckpointStore
from launcher.train.checkpoint.manifest import seal
from launcher.train.checkpoint.stored import examine, stored_precision
from launcher.train.world.ranks import Ranks

Command = Callable[..., Answer]

HOSTILE_SWEEPS = {
    "a pipe": pipe,
    "a device": zero,
    "two gigabytes": sparse,
    "deep": deep,
    "wide": wide,
    "no text": no_text,
    "a list": lambda path: path.write_text("[]"),
    "members that are none": lambda path: path.write_text('{"objective": "val_x", "members": [7]}'),
    "a zero in a path": lambda path: path.write_text(
        '{"objective": "val_x", "members": [{"number": 0, "overrides": [], "run": "/a/\\u0000"}]}'
    ),
    "a number beyond all": lambda path: path.write_text(
        f'{{"objective": "x", "members": [{{"number": {HUGE}, "overrides": [], "run": "/"}}]}}'
    ),
    "an objective that is none": lambda path: path.write_text('{"objective": [], "members": []}'),
}


@pytest.mark.parametrize("kind", HOSTILE_SWEEPS)
def test_a_sweep_is_refused_by_one_line(kind: str, tmp_path: Path, command: Command) -> None:
    place = tmp_path / "runs" / ".sweeps" / "s1"
    place.mkdir(parents=True)
    HOSTILE_SWEEPS[kind](place / "sweep.json")
    for verb in ("collect", "status", "resume", "cancel"):
        answer = command(verb, str(place))
        if (kind, verb, answer.code) == ("an objective that is none", verb, 0):
            continue  # without members nobody needs it
        assert answer.code in (2, 3), (verb, answer)
        assert (len(answer.lines), "Traceback" in answer.err) == (1, False), (verb, answer.err)


# ---------------------------------------------------------------- checkpoints

EMPTY = (2).to_bytes(8, "little") + b"{}"
STATE = json.dumps({"state": {"step": 1, "precision": "fp32"}, "optimizer": {}, "scaler": None}).encode()
FILES = {"state.json": STATE, "rank_0.json": b"{}", "rank_0.safetensors": EMPTY, "model.safetensors": EMPTY}


def write(path: Path, held: dict[str, bytes] = FILES, **changes: Any) -> None:
    """A checkpoint whose manifest vouches for it, whatever is in it."""
    path.mkdir(parents=True)
    entries = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in held.items()}
    for name, data in held.items():
        if "/" not in name:
            (path / name).write_bytes(data)
    (path / "manifest.json").write_bytes(seal({"format": 4, "step": int(path.name[5:]), "world": 1, "files": entries, **changes}))


def other(**files: bytes) -> Callable[[Path], None]:
    return lambda path: write(path, {**FILES, **{name.replace("__", "."): data for name, data in files.items()}})


def manifest(plant: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda path: (write(path), plant(path / "manifest.json"))[0]


def shard(plant: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda path: (write(path), plant(path / "model.safetensors"))[0]


def state(**values: object) -> Callable[[Path], None]:
    return other(state__json=json.dumps({"state": {"step": 1, **values}}).encode())


def tensor_of(size: int) -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [size], "data_offsets": [0, 4 * size]}}).encode()
    return len(header).to_bytes(8, "little") + header


PLANTS = (pipe, zero, sparse, listening, circle, folder, no_text, deep, wide)
HOSTILE = {
    **{f"{plant.__name__} as manifest": manifest(plant) for plant in PLANTS},
    **{f"{plant.__name__} as shard": shard(plant) for plant in PLANTS},
    "names with ..": lambda path: write(path, {**FILES, "../../secret": b"s"}),
    "absolute names": lambda path: write(path, {**FILES, "/etc/hostname": Path("/etc/hostname").read_bytes()}),
    "names with a zero": lambda path: write(path, {**FILES, "a/\0b": b""}),
    "a world of 10^9": lambda path: write(path, world=10**9),
    "a world of 10^6 that is none": lambda path: write(path, world=10**6),
    "a world that is a text": lambda path: write(path, world="1"),
    "a world of none": lambda path: write(path, world=0),
    "files that are a list": lambda path: write(path, files=["state.json"]),
    "a file without a size": lambda path: write(path, files={"state.json": {"sha256": "0" * 64}}),
    "a file of -1 bytes": lambda path: write(path, files={"state.json": {"bytes": -1, "sha256": "0" * 64}}),
    "a step beyond all": lambda path: write(path, step=10**400),
    "a step that is true": lambda path: write(path, step=True),
    "another format": lambda path: write(path, format=[4]),
    "a manifest that is a list": lambda path: (write(path), (path / "manifest.json").write_text('{"manifest": []}'))[0],
    "a file instead of a directory": lambda path: path.write_text(""),
    "a link in a circle": circle,
    "a directory without files": folder,
    "a state of wrong types": state(step="six"),
    "a state with a key of nobody's": state(shell="rm"),
    "a state with numbers beyond all": other(state__json=f'{{"state": {{"step": {HUGE}}}}}'.encode()),
    "a state that is a list": other(state__json=b"[]"),
    "a deep state": other(state__json=b"[" * 100_000),
    "no JSON": other(rank_0__json=b"\xff\xfe"),
    "no safetensors": other(model__safetensors=b"\x80\x04pickle"),
    "a header of 2^60 bytes": other(model__safetensors=(1 << 60).to_bytes(8, "little")),
    "a tensor beyond its file": other(model__safetensors=tensor_of(10**9)),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_checkpoint_is_passed_over(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    store = CheckpointStore(folder, Ranks(0, 1), claimed(tmp_path), 0, 3, examine=examine)
    write(folder / "step_000000001")
    HOSTILE[kind](folder / "step_000000002")
    assert stored_precision(folder) == "fp32"
    said: list[str] = []
    found = store.load(said.append)
    assert (found.step if found else None, len(said)) == (1, 1)
    assert "step_000000002 is damaged and passed over: " in said[0]
    assert len(said[0]) < 1000


def test_where_all_are_hostile_the_run_does_not_start_over(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", Ranks(0, 1), claimed(tmp_path), 0, 3, examine=examine)
    HOSTILE["no safetensors"](tmp_path / "checkpoints" / "step_000000002")
    with pytest.raises(CheckpointError, match="all 1 checkpoints are damaged"):
        store.load(lambda text: None)


def test_verifying_takes_no_memory_for_what_is_verified(tmp_path: Path) -> None:
    """Of nothing, and it vouches for itself."""
    import resource

    size = 128 << 20
    digest = hashlib.sha256()
    for _ in range(size >> 20):
        digest.update(bytes(1 << 20))
    path = tmp_path / "checkpoints" / "step_000000002"
    write(path, files={"state.json": {"bytes": size, "sha256": digest.hexdigest()}})
    with (path / "state.json").open("wb") as file:
        file.truncate(size)
    from launcher.train.checkpoint.manifest import verify

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    verify(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10

"""Checkpoints that are encrypted: the same numbers in every world, and a wrong key throws nothing away."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from helpers import TOY, Answer, claimed
from safetensors.torch import load_file
from torch import nn

from launcher.errors import CheckpointError, KeyFault
from launcher.plan import Mesh
from launcher.rundir.rundir import RunDir
from launcher.start import unlocked
from launcher.strategies.protocol import Piece
from launcher.train.checkpoint.checkpoint import CheckpointStore
from launcher.train.checkpoint.consolidated import consolidate
from launcher.train.checkpoint.manifest import MANIFEST, Checkpoint, describe, seal
from launcher.train.checkpoint.slices import Files
from launcher.train.checkpoint.state import Parts, Snapshot, restore
from launcher.train.checkpoint.stored import TrainState, examine, stored_precision
from launcher.train.ema import Ema
from launcher.train.optimizers import Optimizers
from launcher.train.record.meter import Meter
from launcher.train.world.ranks import Ranks
from launcher.trust import vault

pytest.importorskip("cryptography")

Command = Callable[..., Answer]

KEY, OTHER = bytes(range(32)), bytes(range(7, 39))
CPU = torch.device("cpu")
ROWS = 300


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCHER_KEY", KEY.hex())


def parts(rank: int, world: int, seed: int = 0) -> Parts:
    """Of one layer of 300 x 2000, the rows that are a rank's: more than a piece in each file."""
    torch.manual_seed(seed)
    model, rows = nn.Module(), ROWS // world
    model.weight = nn.Parameter(torch.randn(ROWS, 2000)[rank * rows : (rank + 1) * rows].clone())
    model.register_buffer("mean", torch.full((3,), 2.5))
    optimizers = Optimizers([torch.optim.AdamW(model.parameters())], model)
    model.weight.grad = torch.sin(model.weight.detach())
    optimizers.step()
    coordinate = Mesh(dp_shard=world).at(rank)
    pieces = {"weight": Piece((ROWS, 2000), (rank * rows, 0), (rank,))}
    return Parts(model, optimizers, None, Ema(model, 0.9), Meter(CPU), CPU, pieces=pieces, coordinate=coordinate)


def saved(folder: Path, world: int, key: bytes | None = KEY, step: int = 4) -> Path:
    store = CheckpointStore(folder / "checkpoints", Ranks(0, 1), claimed(folder), 0, 9, examine=examine, key=key)
    files = {}
    for rank in range(world):
        files |= Snapshot().take(parts(rank, world, seed=step), TrainState(step=step, precision="fp32"), rank)
    store.save(step, files)
    path = folder / "checkpoints" / f"step_{step:09d}"
    rewrite(path, world=world)
    return path


def rewrite(path: Path, **changes: object) -> None:
    """A manifest that vouches for what lies there, whoever put it there."""
    told = json.loads((path / MANIFEST).read_bytes())["manifest"]
    for name in told["files"]:
        data = (path / name).read_bytes()
        told["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (path / MANIFEST).write_bytes(seal({**told, **changes}))


def store_of(folder: Path, key: bytes | None = KEY, examined: Callable[[Checkpoint, Iterable[str]], None] = examine) -> CheckpointStore:
    return CheckpointStore(folder / "checkpoints", Ranks(0, 1), claimed(folder), 1, 2, examine=examined, key=key)


def listed(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("world", [1, 2, 3])
def test_another_world_reads_what_a_plain_one_gives(world: int, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    sealed, plain = describe(saved(tmp_path, 2)), describe(saved(tmp_path / "plain", 2, None))
    assert (sealed.sealed, plain.sealed) == (True, False)
    for name in sealed.files:
        data = (sealed.path / name).read_bytes()
        assert vault.is_sealed(data)
        assert len(data) == vault.length(plain.files[name]["bytes"]) == sealed.files[name]["bytes"]
        assert b"weight" not in data
        assert b"precision" not in data
    for rank in range(world):
        first, second = parts(rank, world, seed=9), parts(rank, world, seed=9)
        assert restore(first, sealed, rank) == restore(second, plain, rank)
        held = [
            [here.model.weight, here.model.mean, *here.ema.shadow, *here.optimizers.each[0].state[here.model.weight].values()]
            for here in (first, second)
        ]
        assert all(torch.equal(one, two) for one, two in zip(*held, strict=True))
        begin, rows = rank * (ROWS // world), ROWS // world
        assert not torch.equal(first.model.weight, parts(rank, world, seed=9).model.weight)
        assert first.model.weight.shape == (rows, 2000), begin
    for into, checkpoint in (("a", sealed), ("b", plain)):
        consolidate(checkpoint.path, tmp_path / into, "ema")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert load_file(tmp_path / "a")["weight"].shape == (ROWS, 2000)


def test_a_slice_is_read_and_no_more_is_decrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, numbers = describe(saved(tmp_path, 1)), []
    decrypted = vault.Opened._decrypted
    monkeypatch.setattr(vault.Opened, "_decrypted", lambda self, number: (numbers.append(number), decrypted(self, number))[1])
    whole, some = parts(0, 1, seed=4).model.weight.detach(), torch.empty(2, 2000)
    with Files(checkpoint) as files:
        files.read("model.safetensors", "weight", (200, 0), some)
    assert torch.equal(some, whole[200:202])
    assert set(numbers) == {0, 1}  # the header's, and the one with these rows; there are three
    assert vault.length(whole.nbytes) > 2 * vault.PIECE


def test_a_wrong_key_is_no_damage_and_nothing_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (4, 8):
        saved(tmp_path, 1, step=step)
    before = listed(tmp_path / "checkpoints")
    for value, said in ((OTHER.hex(), "is encrypted with the key "), ("", "needs a key, and neither")):
        monkeypatch.setenv("LAUNCHER_KEY", value)
        with pytest.raises(KeyFault, match=said) as error:
            store_of(tmp_path).load(lambda text: None)
        assert not isinstance(error.value, CheckpointError)
        assert "step_000000008/" in str(error.value)
        assert listed(tmp_path / "checkpoints") == before
        with pytest.raises(KeyFault):
            stored_precision(tmp_path / "checkpoints")
        with pytest.raises(KeyFault):
            consolidate(tmp_path / "checkpoints" / "step_000000004", tmp_path / "whole")
    monkeypatch.setenv("LAUNCHER_KEY", KEY.hex())
    found = store_of(tmp_path).load(lambda text: None)
    assert found is not None
    assert found.step == 8


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


DONE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte": (lambda path: _flip(path / "state.json", vault.HEADER.size + 3), "piece 1 of 1, bytes 0 to"),
    "cut off": (lambda path: (path / "state.json").write_bytes((path / "state.json").read_bytes()[:-1]), "it was cut off"),
    "of another step": (
        lambda path: (path / "rank_0.json").write_bytes((path.with_name("step_000000004") / "rank_0.json").read_bytes()),
        "is another file, put in the place of step_000000008/rank_0.json",
    ),
    "by another name": (lambda path: (path / "state.json").write_bytes((path / "rank_0.json").read_bytes()), "is another file, put in"),
    "plain": (lambda path: (path / "rank_0.json").write_bytes(b"{" + b" " * 200 + b"}"), "is not encrypted, and should be"),
}


@pytest.mark.parametrize("what", DONE)
def test_what_was_changed_is_passed_over_though_the_manifest_vouches_for_it(what: str, tmp_path: Path) -> None:
    for step in (4, 8):
        saved(tmp_path, 1, step=step)
    change, said = DONE[what]
    change(tmp_path / "checkpoints" / "step_000000008")
    rewrite(tmp_path / "checkpoints" / "step_000000008")
    lines: list[str] = []
    found = store_of(tmp_path).load(lines.append)
    assert (found.step if found else None, len(lines)) == (4, 1)
    assert said in lines[0]
    assert (tmp_path / "checkpoints" / "aside_step_000000008.0").is_dir()


def test_a_torn_one_is_damage_and_no_wrong_key(tmp_path: Path) -> None:
    for step in (4, 8):
        saved(tmp_path, 1, step=step)
    _flip(tmp_path / "checkpoints" / "step_000000008" / "state.json", 60)  # where it says which key it is
    lines: list[str] = []
    found = store_of(tmp_path).load(lines.append)
    assert (found.step if found else None, len(lines)) == (4, 1)
    assert "does not have the sha256" in lines[0]


def test_what_is_written_is_for_the_config_to_say_and_what_is_read_says_itself(tmp_path: Path) -> None:
    saved(tmp_path, 1, None)
    lines: list[str] = []
    store = store_of(tmp_path)
    assert store.load(lines.append) is not None
    assert lines == ["warning: step_000000004 is not encrypted, as train.encrypt was false when it was saved; the next are"]
    store.save(5, Snapshot().take(parts(0, 1), TrainState(step=5), 0))
    assert describe(tmp_path / "checkpoints" / "step_000000005").sealed
    lines.clear()
    plain = store_of(tmp_path, None)
    found = plain.load(lines.append)
    assert (found.step if found else None, lines) == (5, [])
    plain.save(6, Snapshot().take(parts(0, 1), TrainState(step=6), 0))
    assert not describe(tmp_path / "checkpoints" / "step_000000006").sealed


# ---------------------------------------------------------------- runs


def test_before_a_run_goes_on_its_key_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, 1)
    here = RunDir(tmp_path)
    for encrypt in (True, False):  # what lies there says itself that it is encrypted
        config = {"train": {"encrypt": encrypt}, "cluster": {}}
        monkeypatch.setenv("LAUNCHER_KEY", KEY.hex())
        unlocked.check(config, here)
        monkeypatch.setenv("LAUNCHER_KEY", OTHER.hex())
        with pytest.raises(KeyFault, match=r"step_000000004/.* is encrypted with the key .*; nothing was changed"):
            unlocked.check(config, here)
        monkeypatch.delenv("LAUNCHER_KEY")
        with pytest.raises(KeyFault, match="needs a key"):
            unlocked.check(config, here)
    file = tmp_path / "key"
    file.write_text(KEY.hex())
    file.chmod(0o600)
    unlocked.check({"train": {"encrypt": True}, "cluster": {"env": {"LAUNCHER_KEY_FILE": str(file)}}}, here)
    _flip(tmp_path / "checkpoints" / "step_000000004" / "state.json", 60)  # a header that is damaged is for the run to pass over
    monkeypatch.setenv("LAUNCHER_KEY", KEY.hex())
    unlocked.check({"train": {"encrypt": True}, "cluster": {}}, here)


RUN = (*TOY, "train.encrypt=true", "train.save_every=2", "train.steps=4", "id=e")


def test_without_a_key_nothing_starts(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value, said in (
        ("", "train.encrypt=true needs a key, and neither LAUNCHER_KEY nor LAUNCHER_KEY_FILE"),
        ("abc", "LAUNCHER_KEY holds no key"),
    ):
        monkeypatch.setenv("LAUNCHER_KEY", value)
        answer = command(*RUN)
        assert (answer.code, len(answer.err.splitlines())) == (3, 1), answer
        assert said in answer.err
        assert not list(tmp_path.rglob("plan.json"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_goes_on_with_its_key_alone(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCHER_KEY", KEY.hex())
    whole = Path(command(*RUN[:-1], "id=whole").out.splitlines()[-1])
    made = command(*RUN)
    assert made.code == 0, made.err
    run = Path(made.out.splitlines()[-1])
    (run / "summary.json").unlink()
    newest = max((run / "checkpoints").glob("step_*"))
    for path in newest.iterdir():
        path.unlink()
    newest.rmdir()
    before = listed(run)
    for value, said in ((OTHER.hex(), "nothing was changed"), ("", "needs a key, and neither")):
        monkeypatch.setenv("LAUNCHER_KEY", value)
        answer = command("resume", str(run))
        assert (answer.code, len(answer.err.splitlines())) == (3, 1), answer
        assert said in answer.err
        assert listed(run) == before
    file = tmp_path / "key"
    file.write_text(KEY.hex())
    file.chmod(0o600)
    monkeypatch.delenv("LAUNCHER_KEY")
    monkeypatch.setenv("LAUNCHER_KEY_FILE", str(file))
    answer = command("resume", str(run))
    assert answer.code == 0, answer.err
    for name in ("one", "two"):
        consolidate(max(((run if name == "one" else whole) / "checkpoints").glob("step_*")), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert not [name for name, data in listed(run).items() if KEY.hex().encode() in data or KEY in data]

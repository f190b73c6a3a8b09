"""A checkpoint as one file: equal to the bit to what one process loads, there whole or not at all, and never of what is not all there."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch as safetensors
import torch
from processes import environment
from split_runs import trained
from test_pieces import ROWS, parts, saved
from test_pieces import trained as after_steps
from toyproject.net import Net

from launcher.config import targets
from launcher.errors import CheckpointError, RunError
from launcher.node.entry import read_config
from launcher.plan import Mesh
from launcher.rundir.rundir import RunDir
from launcher.strategies.ddp import DDP
from launcher.train import optimizers
from launcher.train.checkpoint import consolidated
from launcher.train.checkpoint.consolidated import consolidate
from launcher.train.checkpoint.manifest import FORMAT, MANIFEST, Checkpoint, describe, seal
from launcher.train.checkpoint.state import Parts, Snapshot, restore
from launcher.train.checkpoint.stored import TrainState
from launcher.train.ema import Ema
from launcher.train.optimizers import Optimizers
from launcher.train.record.meter import Meter

CPU = torch.device("cpu")


def sealed(path: Path, world: int) -> Path:
    """The directory as a checkpoint, whatever is in it."""
    (path / MANIFEST).unlink(missing_ok=True)
    entries = {each.name: {"bytes": each.stat().st_size, "sha256": sha256(each.read_bytes()).hexdigest()} for each in path.iterdir()}
    (path / MANIFEST).write_bytes(seal({"format": FORMAT, "step": 3, "world": world, "files": entries}))
    return path


def split(tmp_path: Path, shards: int, replicas: int = 1) -> Path:
    """Of a layer of 12 rows."""
    ranks = [after_steps(parts(rank, shards, replicas)) for rank in range(shards * replicas)]
    return sealed(saved(tmp_path / "step_000000003", ranks).path, len(ranks))


# ---------------------------------------------------------------- what is written


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["one", "ddp(2)", "fsdp(2)", "tp x fsdp(2x2)", "pp(2)", "pp x fsdp(2x2)"])
def test_it_is_to_the_bit_what_one_process_loads(tmp_path: Path, how: str) -> None:
    run = RunDir(trained(tmp_path, "a", how, "train.steps=6", "model.attention_bias=true"))
    path = run.checkpoints / "step_000000006"
    files = {kind: tmp_path / f"{kind}.safetensors" for kind in ("model", "ema")}
    checkpoints = {kind: consolidate(path, into, kind) for kind, into in files.items()}
    assert {each.step for each in checkpoints.values()} == {6}
    if how != "one":
        assert ("model.1.safetensors" in checkpoints["model"].files) == (how != "ddp(2)")
    config = read_config(run)
    torch.manual_seed(7)
    model = targets.build(config["model"])
    optim, pieces = optimizers.build(config["optim"], model), DDP().pieces(model, Mesh().at(0))
    one = Parts(model, optim, None, Ema(model, 0.9), Meter(CPU), CPU, pieces=pieces)
    restore(one, checkpoints["model"], 0)
    expected = {"model": dict(model.named_parameters()), "ema": dict(zip(one.ema.names, one.ema.shadow, strict=True))}
    for kind, into in files.items():
        got = safetensors.load_file(into)
        assert got.keys() == expected[kind].keys()
        assert "head.weight" not in got, "it is the embedding"
        for name, tensor in expected[kind].items():
            assert torch.equal(got[name], tensor), (kind, name)
    assert not torch.equal(expected["model"]["embed.weight"], expected["ema"]["embed.weight"])
    fresh = targets.build(config["model"])
    assert fresh.load_state_dict(safetensors.load_file(files["model"]), strict=False).unexpected_keys == []
    assert torch.equal(fresh.head.weight, model.head.weight)


@pytest.mark.parametrize(("shards", "replicas"), [(1, 1), (1, 2), (3, 1), (4, 2)])
def test_pieces_are_a_whole_by_name(tmp_path: Path, shards: int, replicas: int) -> None:
    whole = after_steps(parts(0, 1))
    path = split(tmp_path, shards, replicas)
    consolidate(path, tmp_path / "out")
    consolidate(path, tmp_path / "average", "ema")
    for name, parameter in whole.model.named_parameters():
        assert torch.equal(safetensors.load_file(tmp_path / "out")[name], parameter)
    for name, average in zip(whole.ema.names, whole.ema.shadow, strict=True):
        assert torch.equal(safetensors.load_file(tmp_path / "average")[name], average)


def _batch_normed(rank: int, world: int) -> Parts:
    torch.manual_seed(0)
    model = Net(width=8).to(memory_format=torch.channels_last)
    optim = Optimizers([torch.optim.SGD(model.parameters(), lr=0.1)], model)
    return Parts(model, optim, None, Ema(model, 0.5), Meter(CPU), CPU, coordinate=Mesh(world).at(rank))


def test_buffers_are_those_that_one_process_goes_on_with(tmp_path: Path) -> None:
    """Each rank has its own, and its own averages of them."""
    path, ranks = tmp_path / "step_000000003", [_batch_normed(rank, 3) for rank in range(3)]
    path.mkdir()
    for rank, here in enumerate(ranks):
        here.model(torch.randn(6, 3, 8, 8) * (rank + 1))
        here.ema.update(0)
        for name, content in Snapshot().take(here, TrainState(step=3), rank).items():
            (path / name).write_bytes(b"".join(content))
    found = {kind: _taken(sealed(path, 3), tmp_path / kind, kind) for kind in ("model", "ema")}
    one = _batch_normed(0, 1)
    restore(one, describe(path), 0)
    expected = {"model": {**one.model.state_dict(), **dict(one.model.named_buffers())}}
    expected["ema"] = {**expected["model"], **dict(zip(one.ema.names, one.ema.shadow, strict=True))}
    for kind, tensors in expected.items():
        assert found[kind].keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert torch.equal(found[kind][name], tensor), (kind, name)
    means = [name for name, buffer in one.model.named_buffers() if buffer.is_floating_point() and name.endswith("running_mean")]
    assert means
    assert not any(torch.equal(expected["model"][name], ranks[0].model.get_buffer(name)) for name in means)
    assert not any(torch.equal(expected["model"][name], expected["ema"][name]) for name in means)


def _taken(path: Path, into: Path, kind: str) -> dict[str, torch.Tensor]:
    consolidate(path, into, kind)
    return safetensors.load_file(into)


def test_any_type_and_shape_is_written_as_it_is_and_aligned(tmp_path: Path) -> None:
    path = split(tmp_path, 1)
    tensors = {
        "scalar": torch.tensor(3.5),
        "half": torch.randn(5).to(torch.bfloat16),
        "none": torch.zeros(0, 3),
        "bool": torch.tensor([True, False, True]),
        "eight": torch.randn(3, 7).to(torch.float8_e4m3fn),
        "long": torch.arange(3),
        "ä €": torch.randn(2, 3),
    }
    safetensors.save_file(tensors, path / "model.safetensors")
    got = _taken(sealed(path, 1), tmp_path / "out", "model")
    assert got.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (got[name].dtype, got[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(got[name].view(-1).view(torch.uint8), tensor.view(-1).view(torch.uint8)), name
    data = (tmp_path / "out").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "pt"}
    for name, entry in header.items():
        assert (8 + length + entry["data_offsets"][0]) % max(1, tensors[name].element_size()) == 0


_PROGRAM = """
import sys
from pathlib import Path
from launcher.train.checkpoint.consolidated import consolidate
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
before = peak()
consolidate(Path(sys.argv[1]), Path(sys.argv[2]))
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_what_is_in_memory_is_the_largest_tensor_and_not_the_model(tmp_path: Path) -> None:
    """Sixteen of 16 MiB, in two pieces each, which are mapped as one is put together; and what torch takes for itself."""
    path = split(tmp_path, 2)
    shape = (2048, 1024)
    for rank, file in enumerate(("model.safetensors", "model.1.safetensors")):
        safetensors.save_file({f"t{number}": torch.full(shape, float(number + rank)) for number in range(16)}, path / file)
        _recorded(path, rank, {f"t{number}": [2048 * rank, 0] for number in range(16)})
    argv = [sys.executable, "-c", _PROGRAM, str(sealed(path, 2)), str(tmp_path / "out")]
    done = subprocess.run(argv, env=environment(tmp_path), stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    largest = 4096 * 1024 * 4
    assert (tmp_path / "out").stat().st_size > 16 * largest
    print(f"{int(done.stdout) / largest:.1f} times the largest tensor, of a model of 16 times")
    assert int(done.stdout) < 8 * largest  # 4.7 as a rule, and 6.7 where the kernel keeps what was mapped a while longer
    got = safetensors.load_file(tmp_path / "out")["t5"]
    assert torch.equal(got, torch.cat((torch.full(shape, 5.0), torch.full(shape, 6.0))))


# ---------------------------------------------------------------- what is refused


def _recorded(path: Path, rank: int, pieces: Any) -> None:
    file = path / f"rank_{rank}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "pieces": pieces}))


def _rewritten(path: Path, file: str, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    safetensors.save_file(change(safetensors.load_file(path / file)), path / file)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: _rewritten(path, "model.1.safetensors", lambda held: {}), "model.1.safetensors lacks its piece of weight"),
        (lambda path: (path / "model.2.safetensors").unlink(), "model.2.safetensors lacks its piece of weight"),
        (lambda path: _recorded(path, 1, {"weight": [0, 0]}), "the 3 pieces of weight that it has do not make a whole"),
        (lambda path: _recorded(path, 1, {"weight": [5, 0]}), "the 3 pieces of weight that it has do not make a whole"),
        (lambda path: _recorded(path, 1, {"weight": [4]}), "the 3 pieces of weight that it has do not make a whole"),
        (lambda path: _recorded(path, 1, {}), "the 3 pieces of weight that it has do not make a whole"),
        (lambda path: _recorded(path, 1, {"weight": "here"}), "does not hold what a run writes"),
        (lambda path: _recorded(path, 1, 7), "does not hold what a run writes"),
        (
            lambda path: _rewritten(path, "model.1.safetensors", lambda held: {"weight": held["weight"].half()}),
            "the pieces of weight are F16 and F32",
        ),
        (lambda path: (path / "model.safetensors").write_bytes(b"\xff" * 90), "does not hold what a run writes"),
        (lambda path: (path / "rank_2.json").unlink(), "has no rank_2.json"),
        (lambda path: (path / "rank_2.safetensors").unlink(), "has no rank_2.safetensors"),
    ],
)
def test_what_is_not_all_there_is_one_line_and_leaves_nothing(tmp_path: Path, change: Callable[[Path], object], said: str) -> None:
    path = split(tmp_path, 3)
    change(path)
    with pytest.raises(CheckpointError, match=said) as raised:
        consolidate(sealed(path, 3), tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.glob("out*"))


def test_a_row_that_nobody_has_is_missed_by_the_shape_of_the_whole(tmp_path: Path) -> None:
    """What there is lies side by side from the beginning."""
    path = split(tmp_path, 3)
    for name in ("model.2.safetensors", "rank_2.json", "rank_2.safetensors"):
        (path / name).unlink()
    with pytest.raises(CheckpointError, match="the 2 pieces of weight that it has do not make a whole"):
        consolidate(sealed(path, 2), tmp_path / "out")


def test_one_piece_that_is_alone_is_no_whole(tmp_path: Path) -> None:
    """The other rank's files are gone, and the manifest was made anew."""
    path = split(tmp_path, 2)
    for name in ("model.1.safetensors", "rank_1.json", "rank_1.safetensors"):
        (path / name).unlink()
    with pytest.raises(CheckpointError, match="the 1 pieces of weight that it has do not make a whole"):
        consolidate(sealed(path, 1), tmp_path / "out")


def test_an_average_that_is_not_kept_or_not_all_there_is_refused(tmp_path: Path) -> None:
    path = split(tmp_path, 3)
    (path / "ema.1.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"ema\.1\.safetensors lacks its piece of weight"):
        consolidate(sealed(path, 3), tmp_path / "out", "ema")
    (path / "ema.2.safetensors").unlink()
    safetensors.save_file({}, path / "ema.safetensors")
    with pytest.raises(CheckpointError, match=r"keeps no averages \(train\.ema_decay=0\)"):
        consolidate(sealed(path, 3), tmp_path / "out", "ema")
    consolidate(path, tmp_path / "out")


def test_a_byte_that_changed_is_found_before_any_is_taken(tmp_path: Path) -> None:
    path = split(tmp_path, 2)
    file = path / "optimizer.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors does not have the sha256"):
        consolidate(path, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, into = split(tmp_path, 2), tmp_path / "out"
    into.write_text("before")

    def full(descriptor: int) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(consolidated.writing, "sync", full)
        with pytest.raises(RunError, match=r"out cannot be written \(No space left on device\)"):
            consolidate(path, into)
    assert into.read_text() == "before"
    assert not (tmp_path / "out.part").exists()
    consolidate(path, into)
    assert safetensors.load_file(into)["weight"].shape == (ROWS, 3)
    with pytest.raises(RunError, match="cannot be written"):
        consolidate(path, tmp_path / "nowhere" / "out")


def test_what_it_was_is_returned(tmp_path: Path) -> None:
    path = split(tmp_path, 2)
    assert consolidate(path, tmp_path / "out") == describe(path)
    assert isinstance(describe(path), Checkpoint)

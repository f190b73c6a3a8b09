"""What a save and a load take of the host's memory beside the state itself: by the kernel's own count, of a state of about 200 MB."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from processes import environment

from launcher.train import device
from launcher.train.checkpoint.tensorfile import HostMemory

PROGRAM = Path(__file__).with_name("saved_memory.py")
MOST = 1.1
"""Times the state of a rank."""


def measured(home: Path, *words: object) -> dict[str, int]:
    argv = [sys.executable, str(PROGRAM), *map(str, words)]
    # what is freed goes back to the kernel at once, so that what is taken later shows
    done = subprocess.run(argv, env=environment(home, MALLOC_MMAP_THRESHOLD_="65536"), capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_save_and_a_load_take_what_the_rank_holds_and_little_more(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    taken = measured(tmp_path, "save", folder, 2)
    print(f"save: {taken['first'] / taken['state']:.3f} of the state of a rank of two; the next one {taken['again'] / taken['state']:.3f}")
    assert 0.9 <= taken["first"] / taken["state"] <= MOST
    assert taken["again"] <= 0.02 * taken["state"]
    for rank, world in ((0, 2), (1, 3), (0, 1)):
        taken = measured(tmp_path, "load", folder, rank, world)
        print(f"load as rank {rank} of {world}: {taken['loaded'] / taken['state']:.3f} of its state")
        assert 0.9 <= taken["loaded"] / taken["state"] <= MOST


def test_a_file_is_one_slab_that_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    pinned = device.pinned
    monkeypatch.setattr(device, "pinned", lambda size, where: (made.append(size), pinned(size, where))[1])
    memory = HostMemory()
    tensors = {"a": torch.ones(3), "b": torch.arange(5), "c": torch.ones(3, dtype=torch.bool), "d": torch.ones(2, 2).bfloat16()}
    whole = sum(tensor.nbytes for tensor in tensors.values())
    for turn in range(3):
        tensors["b"] += turn
        held = b"".join(memory.copy("model", tensors))
    assert made == [whole]
    memory.copy("ema", tensors)
    memory.copy("model", {**tensors, "e": torch.ones(100)})
    assert made == [whole, whole, whole + 400]
    from safetensors.torch import load

    assert all(torch.equal(tensor, tensors[name]) for name, tensor in load(held).items())


GPU = torch.device("cuda", 0)


class Driver:
    """Stands in for the CUDA runtime: what is known to it as pinned, in bytes by address."""

    def __init__(self, refuses: bool = False) -> None:
        self.pinned: dict[int, int] = {}
        self._refuses = refuses

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:
        if not self._refuses:
            self.pinned[address] = size
        return int(self._refuses)

    def cudaHostUnregister(self, address: int) -> int:
        del self.pinned[address]
        return 0


def test_what_is_pinned_is_what_is_needed_and_no_power_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    monkeypatch.setattr(torch.cuda, "cudart", lambda: driver)
    slab = device.pinned(5_000_001, GPU)
    assert driver.pinned == {slab.data_ptr(): 5_000_001}
    del slab
    gc.collect()
    assert driver.pinned == {}
    assert device.pinned(0, GPU).numel() == 0


def test_where_the_driver_does_not_know_it_torch_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    empty = torch.empty
    monkeypatch.setattr(torch.cuda, "cudart", lambda: Driver(refuses=True))
    fake = SimpleNamespace(
        empty=lambda size, **how: (asked.append(how.pop("pin_memory", False)), empty(size, **how))[1], cuda=torch.cuda, uint8=torch.uint8
    )
    monkeypatch.setattr(device, "torch", fake)
    assert device.pinned(64, GPU).numel() == 64
    assert asked == [False, True]

"""GPUs are counted from files, on trees as NVIDIA's driver, ROCm, WSL2 and Jetson have them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import TOY, Answer

from launcher.clusters import gpus

Command = Callable[..., Answer]
NVIDIA = tuple(f"proc/driver/nvidia/gpus/0000:0{number}:00.0/information" for number in range(4))
HIDDEN = ("dev/nvidia0", "dev/nvidia1", "dev/nvidiactl", "dev/nvidia-uvm")
ROCM = ("dev/kfd", *(f"sys/class/kfd/kfd/topology/nodes/{number}/properties" for number in range(5)))
WSL = ("dev/dxg", "usr/lib/wsl/lib/libcuda.so.1")
BARE_WSL = ("dev/dxg",)
JETSON = ("dev/nvhost-gpu", "dev/nvmap")
ORIN = ("dev/nvgpu/igpu0/power",)


def tree(root: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cpu = "/nodes/0/" in name or "/nodes/1/" in name
        (root / name).write_text(f"cpu_cores_count {96 * cpu}\nsimd_count {0 if cpu else 416}\nsimd_per_cu 4\n")


@pytest.mark.parametrize(
    ("names", "environment", "count", "sure"),
    [
        ((), {}, 0, True),
        (NVIDIA, {}, 4, True),
        (HIDDEN, {}, 2, True),
        *(
            (NVIDIA, {"CUDA_VISIBLE_DEVICES": visible}, count, True)
            for visible, count in (("MIG-a,MIG-b", 1), ("0,0", 0), ("0,1,0", 0), ("GPU-a,GPU-b", 2), ("GPU-a,GPU-a", 0), ("1,9,2", 1))
        ),
        *((NVIDIA, {"CUDA_VISIBLE_DEVICES": visible}, count, True) for visible, count in (("", 0), ("0,1", 2), ("0,00", 0))),
        (ROCM, {}, 3, True),
        (ROCM[1:], {}, 0, True),
        (ROCM, {"ROCR_VISIBLE_DEVICES": "0,2"}, 2, True),
        (ROCM, {"ROCR_VISIBLE_DEVICES": "0,2", "HIP_VISIBLE_DEVICES": "1,2"}, 1, True),
        (ROCM, {"HIP_VISIBLE_DEVICES": "0", "CUDA_VISIBLE_DEVICES": "0,1"}, 1, True),
        (ROCM, {"CUDA_VISIBLE_DEVICES": "0,1"}, 2, True),
        (ROCM, {"HIP_VISIBLE_DEVICES": ""}, 0, True),
        (ROCM, {"ROCR_VISIBLE_DEVICES": "GPU-a1,GPU-b2"}, 2, True),
        (WSL, {}, 1, False),
        (WSL, {"CUDA_VISIBLE_DEVICES": "0,1"}, 2, False),
        (WSL, {"CUDA_VISIBLE_DEVICES": "-1"}, 0, True),
        (BARE_WSL, {}, 0, False),
        (JETSON, {}, 1, False),
        (ORIN, {}, 1, False),
    ],
)
def test_what_a_process_would_see_is_counted(
    tmp_path: Path, names: tuple[str, ...], environment: dict[str, str], count: int, sure: bool
) -> None:
    tree(tmp_path, names)
    assert gpus.find(environment, tmp_path) == gpus.Gpus(count, sure)


UUIDS = ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "GPU-8932aaaa-d72c-4106-c12f-20bd9faed9f7", "GPU-1f22ad2a-d72c-4106-c12f-20bd9faed9f8")


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("visible", "count", "unknown"),
    [
        ("GPU-8932f937", 1, 1),
        ("GPU-8932f937,GPU-1f", 2, 2),
        ("gpu-1F22AD2A,GPU-8932a", 2, 2),
        ("GPU-1f,GPU-1f22ad2a-d72c-4106-c12f-20bd9faed9f8", 0, 0),
        ("GPU-1f22,GPU-8932f937,GPU-1f", 0, 0),
        ("GPU-1f,gpu-1F", 0, 0),
        ("GPU-8932,GPU-1f", 0, 2),
        ("GPU-1f,GPU-8932", 1, 2),
        ("GPU-1f,GPU-bad", 1, 2),
        ("GPU-1f,GPU-bad,GPU-1f", 1, 0),
        (f"{UUIDS[0]},{UUIDS[2]},{UUIDS[1]}", 3, 3),
    ],
)
def test_uuids_may_be_cut_short(tmp_path: Path, visible: str, count: int, unknown: int, known: bool) -> None:
    for number, uuid in enumerate(UUIDS):
        place = tmp_path / NVIDIA[number]
        place.parent.mkdir(parents=True)
        shown = uuid if known else "GPU-????????-????-????-????-????????????"
        place.write_text(f"Model: \t\t NVIDIA H100\nGPU UUID: \t {shown}\nBus Location: \t 0000:0{number}:00.0\n")
    assert gpus.find({"CUDA_VISIBLE_DEVICES": visible}, tmp_path) == gpus.Gpus(count if known else unknown)


@pytest.mark.parametrize(
    ("names", "words", "world"),
    [
        (ROCM, (), (3, "cuda")),
        (WSL, (), (1, "cuda")),
        (WSL, ("cluster.processes_per_node=2",), (2, "cuda")),
        (BARE_WSL, (), (1, "cpu")),
        (BARE_WSL, ("cluster.device=cuda",), (1, "cuda")),
        (JETSON, ("cluster.device=cuda",), (1, "cuda")),
        (ROCM, ("cluster.device=cuda", "cluster.processes_per_node=4"), "this machine shows 3 CUDA devices"),
        ((), ("cluster.device=cuda",), "shows no CUDA device"),
    ],
)
def test_a_run_is_planned_for_them(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], words: tuple[str, ...], world: object
) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(gpus, "ROOT", tmp_path / "root")
    tree(tmp_path / "root", names)
    done = command("plan", *TOY, "train.round_batch=true", *words)
    if isinstance(world, str):
        assert (done.code, world in done.err) == (2, True)
        return
    assert done.code == 0, done.err
    planned = json.loads(done.out)["world"]
    assert (planned["processes_per_node"], planned["device"]) == world

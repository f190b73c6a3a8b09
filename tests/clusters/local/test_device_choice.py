"""What cluster.device means on a machine, on made-up trees and systems: what is taken, why, and what to type where nothing is."""

from __future__ import annotations

import json
import platform
from importlib import metadata
from pathlib import Path

import pytest
from helpers import TOY, Command, refused

from launcher.clusters import gpus
from launcher.clusters.local import choice
from launcher.clusters.local.choice import choose
from launcher.errors import ConfigError

CARD, INSIDE = "0000:03:00.0", "0000:00:02.0"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing but a CPU, under Linux."""
    made = tmp_path / "root"
    made.mkdir()
    monkeypatch.setattr(gpus, "ROOT", made)
    for name in ("CUDA_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    return made


def intels(root: Path, *addresses: str, vendor: str = "0x8086", driver: str = "xe") -> None:
    for number, address in enumerate(addresses, 128):
        device = root / "sys" / "devices" / address
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
        (drivers := root / "sys" / "drivers" / driver).mkdir(parents=True, exist_ok=True)
        (device / "driver").symlink_to(drivers)
        (node := root / "sys" / "class" / "drm" / f"renderD{number}").mkdir(parents=True)
        (node / "device").symlink_to(device)


def built_for(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: version)


def test_auto_takes_the_cpu_where_there_is_nothing_else_and_says_so(root: Path) -> None:
    assert choose("auto")[:2] == ("cpu", gpus.Gpus(0))
    assert choose("auto").why == "cluster.device=auto takes cpu: this machine shows no GPU to train on"
    assert choose("cpu").why == ""


def test_auto_takes_nvidias_and_amds_before_all_others(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        (root / f"proc/driver/nvidia/gpus/0000:0{number}:00.0").mkdir(parents=True)
    intels(root, CARD)
    built_for(monkeypatch, "2.13.0+xpu")
    assert choose("auto") == ("cuda", gpus.Gpus(2), "cluster.device=auto takes cuda: this machine shows 2 CUDA devices")


def test_auto_takes_cards_of_intels_where_torch_is_for_them(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    intels(root, CARD, "0000:04:00.0", INSIDE)
    built_for(monkeypatch, "2.13.0+xpu")
    found = choose("auto")
    assert found[:2] == ("xpu", gpus.Gpus(2, sure=False)), "of tiles there may be more: a number that was typed is believed"
    assert found.why == "cluster.device=auto takes xpu: this machine shows 2 XPU devices, and torch is built for it"
    monkeypatch.setenv("ZE_AFFINITY_MASK", "1")
    assert choose("auto").found.count == 1


@pytest.mark.parametrize(("version", "address"), [("2.13.0+cpu", CARD), ("2.13.0+xpu", INSIDE)])
def test_where_it_is_not_sure_auto_leaves_them_and_says_what_to_type(
    root: Path, monkeypatch: pytest.MonkeyPatch, version: str, address: str
) -> None:
    intels(root, address)
    built_for(monkeypatch, version)
    device, _, why = choose("auto")
    assert device == "cpu"
    assert "type cluster.device=xpu" in why
    assert choose("xpu")[:2] == ("xpu", gpus.Gpus(1, sure=address == INSIDE)), "typed, it is taken"


@pytest.mark.parametrize(("vendor", "driver"), [("0x1002", "amdgpu"), ("0x8086", "vfio-pci")])
def test_what_is_not_intels_or_given_away_is_none(root: Path, vendor: str, driver: str) -> None:
    intels(root, CARD, vendor=vendor, driver=driver)
    with pytest.raises(ConfigError, match=r"^cluster\.device=xpu: this machine shows no XPU device; type cluster\.device=cpu or auto$"):
        choose("xpu")


def test_a_mac_with_a_processor_of_apples_has_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert choose("auto").device == "cpu"
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert choose("auto")[:2] == choose("mps")[:2] == ("mps", gpus.Gpus(1))


@pytest.mark.parametrize("device", ["cuda", "xpu", "mps"])
def test_what_is_not_here_is_refused_in_one_line(root: Path, device: str, command: Command) -> None:
    refused(
        command(*TOY, f"cluster.device={device}"),
        2,
        f"cluster.device={device}: this machine shows no {device.upper()} device; type cluster.device=cpu or auto",
    )


def test_of_mps_there_is_one_process(monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    monkeypatch.setattr(choice, "_apple", lambda: gpus.Gpus(1))
    plan = json.loads(command("plan", *TOY, "cluster.device=mps").out)
    assert plan["world"] == {"nodes": 1, "processes_per_node": 1, "device": "mps", "uneven": []}
    refused(
        command("plan", *TOY, "cluster.device=mps", "cluster.processes_per_node=2"),
        2,
        "cluster.processes_per_node=2: processes on mps cannot add up",
        "type cluster.processes_per_node=1",
    )


def test_why_is_in_the_plan_and_so_are_the_devices_that_are_trusted(root: Path, command: Command) -> None:
    plan = json.loads(command("plan", *TOY, "cluster.trusted_devices=['NVIDIA H100*',GPU-0a]").out)
    assert plan["chosen"] == "cluster.device=auto takes cpu: this machine shows no GPU to train on"
    assert plan["trusted_devices"] == ["NVIDIA H100*", "GPU-0a"]
    assert json.loads(command("plan", *TOY, "cluster.device=cpu").out)["chosen"] == ""
    batch = json.loads(command("plan", *TOY, "cluster=slurm", "cluster.device=xpu", "cluster.trusted_devices=[GPU-0a]").out)
    assert (batch["world"]["device"], batch["trusted_devices"]) == ("xpu", ["GPU-0a"])
    refused(command("plan", *TOY, "cluster=slurm", "cluster.device=mps"), 2, "type cuda, xpu or cpu")

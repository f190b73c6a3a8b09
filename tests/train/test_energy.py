"""Energy is read, or it is said that it cannot be: counters of a processor as files, a device's power as its driver would say it."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from launcher.train import device as devices
from launcher.train import probe
from launcher.train.record import energy

CPU = torch.device("cpu")
RANGE = 1000


def counters(home: Path, **packages: int) -> list[Path]:
    """Of packages, each with a counter of its cores within."""
    places = []
    for number, micro in enumerate(packages.values()):
        for name in (f"intel-rapl:{number}", f"intel-rapl:{number}:0"):
            (home / name).mkdir()
            (home / name / "energy_uj").write_text(f"{micro}\n")
            (home / name / "max_energy_range_uj").write_text(f"{RANGE}\n")
        places.append(home / f"intel-rapl:{number}")
    return places


def test_packages_are_added_up_and_may_begin_anew(tmp_path: Path) -> None:
    one, two = counters(tmp_path, one=900, two=10)
    gauge = energy.gauge(CPU, tmp_path)
    assert gauge is not None
    gauge.look()
    for first, second in ((950, 20), (30, 40), (60, 40)):
        (one / "energy_uj").write_text(str(first))
        (two / "energy_uj").write_text(str(second))
        gauge.look()
    assert gauge.joules() == pytest.approx((50 + (30 - 950 + RANGE) + 30 + 30) / 1e6)


def test_what_is_not_readable_has_no_number(tmp_path: Path) -> None:
    assert energy.gauge(CPU, tmp_path / "none") is None
    place, other = counters(tmp_path, one=1, two=1)
    gauge = energy.gauge(CPU, tmp_path)
    assert gauge is not None
    gauge.look()
    (place / "energy_uj").write_text("text")
    gauge.look()
    assert gauge.joules() is None
    (other / "energy_uj").unlink()
    assert energy.gauge(CPU, tmp_path) is None
    assert energy.gauge(torch.device("meta"), tmp_path) is None


def test_readings_count_for_the_time_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    watts, clock = iter([1.0, 5.0, 10.0, 30.0, None]), itertools.count(0.0, 2.0)
    monkeypatch.setattr(devices, "watts", lambda device: next(watts))
    monkeypatch.setattr(energy.time, "perf_counter", lambda: next(clock))
    gauge = energy.gauge(torch.device("meta"))
    assert gauge is not None, "the first reading says that there are any"
    for _ in range(3):
        gauge.look()
    assert gauge.joules() == pytest.approx(2 * 10.0 + 2 * 30.0)
    gauge.look()
    assert gauge.joules() is None


def test_updates_go_on_for_some_seconds_and_the_energy_is_shared_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, made = itertools.count(0.0, 0.5), itertools.count()
    monkeypatch.setattr(devices, "watts", lambda device: 20.0)
    monkeypatch.setattr(energy.time, "perf_counter", lambda: clock.__next__())
    assert probe.joules(made, torch.device("meta")) is not None
    assert 3 <= next(made) <= probe.ENERGY_SECONDS / 0.5
    monkeypatch.setattr(devices, "watts", lambda device: None)
    assert probe.joules(made, torch.device("meta")) is None


def test_power_is_none_where_the_driver_s_package_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(device: torch.device) -> int:
        raise ModuleNotFoundError("pynvml")

    assert devices.watts(CPU) is None
    monkeypatch.setattr(devices, "module", lambda device: type("Kind", (), {"power_draw": staticmethod(missing)}))
    assert devices.watts(torch.device("meta")) is None
    monkeypatch.setattr(devices, "module", lambda device: type("Kind", (), {"power_draw": staticmethod(lambda device: 350_000)}))
    assert devices.watts(torch.device("meta")) == 350.0

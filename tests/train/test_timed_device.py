"""The probe computes on the device of the number that it was given, and not on the first of that kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from launcher.train import probe
from launcher.train.build import Process


class Built(Exception):
    """As far as is needed."""


@pytest.fixture
def alone() -> Iterator[None]:
    """Accelerate keeps what it found for as long as a process lives."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_the_job_lies_on_the_device_of_that_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: None) -> None:
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "cpu")  # put back at the end
    found: list[torch.device] = []

    def build(process: Process, config: dict[str, Any]) -> None:
        found.append(process.accelerator.device)
        raise Built

    monkeypatch.setattr(probe, "build", build)
    monkeypatch.setattr(probe, "set_speed", lambda where, deterministic: None)
    monkeypatch.setattr(probe.precision, "choose", lambda asked, where: ("fp32", ""))
    with pytest.raises(Built):
        probe._job({"train": {}}, torch.device("meta", 3), 1, tmp_path)
    assert found == [torch.device("meta", 3)]

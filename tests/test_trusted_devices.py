"""cluster.trusted_devices: which devices may compute; a worker on any other is refused, in one line that says what to add."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from processes import finish, toy_words

from launcher.devices import refusal
from launcher.train.device import name

H100 = "NVIDIA H100 80GB HBM3"
OWN, OTHER, THIRD = (f"GPU-{begin}-1111-2222-3333-444444444444" for begin in ("0a1b2c3d", "0a1bffff", "99999999"))


@pytest.mark.parametrize(
    "listed",
    [
        [],
        [H100],
        ["NVIDIA H100*"],
        ["NVIDIA A100*", "*H100*"],
        [OWN],
        [OWN.upper()],
        [OWN.removeprefix("GPU-")],
        ["GPU-0a1b2"],
        [THIRD, OWN],
    ],
)
def test_a_device_that_is_named_may_compute(listed: list[str]) -> None:
    assert refusal(H100, OWN, [OTHER, THIRD], listed) == ""


@pytest.mark.parametrize("listed", [["NVIDIA H100"], ["nvidia h100*"], [OTHER], ["GPU-"], ["GPU-9"], ["0a1b2c3d"], ["GPU-0a1b2d"]])
def test_one_that_is_not_is_refused_with_what_to_add(listed: list[str]) -> None:
    why = refusal(H100, OWN, [OTHER, THIRD], listed)
    assert why.startswith(f'cluster.trusted_devices does not have {H100}, UUID {OWN}; add "{OWN}" to the list')


def test_how_several_begin_names_none_of_them() -> None:
    assert "(GPU-0a1b is how several here begin)" in refusal(H100, OWN, [OTHER, THIRD], ["GPU-0a1b"])
    assert refusal(H100, OWN, [THIRD], ["GPU-0a1b"]) == ""


def test_one_without_a_uuid_goes_by_its_name_brackets_and_all() -> None:
    name = "Intel(R) Data Center GPU Max 1550 [0x0bd5]"
    assert refusal(name, "", [], [name]) == ""
    assert "which has no UUID" in refusal(name, "", [], [OWN])
    assert f'add "{name}" to the list' in refusal(name, "", [], [OWN])


def test_a_worker_on_another_device_is_refused_before_it_joins(tmp_path: Path) -> None:
    """For real, by the CPU's name: each of two processes looks for itself."""
    cpu, words = name(torch.device("cpu")), ("id=a", "train.steps=2", "cluster.processes_per_node=2")
    done = finish(tmp_path, toy_words(tmp_path / "runs", *words, "cluster.trusted_devices=['NVIDIA H100*']"))
    assert done.returncode == 2, done.stderr
    assert f"cluster.trusted_devices does not have {cpu}, which has no UUID; add" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "runs" / "toy" / "a" / "checkpoints").exists()
    done = finish(tmp_path, toy_words(tmp_path / "runs", *words, f"cluster.trusted_devices=['{cpu[:3]}*']", "name=other"))
    assert done.returncode == 0, done.stderr

"""train.device_probe: an update is timed on both kinds of device, and the quicker is what the run is planned for. There is no GPU on the
machines that run these tests: what it takes is said in its place; the CPU is timed for real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import Answer, Command, refused
from processes import finish

from launcher.clusters import submit
from launcher.clusters.gpus import Gpus
from launcher.clusters.local import choice
from launcher.rundir.rundir import RunDir
from launcher.start.device_probe import Timed, decide

PROBE = ("id=a", "train.steps=2", "train.device_probe=true")


@pytest.mark.parametrize(("gpu", "cpu", "chosen"), [(0.002, 0.001, "cpu"), (0.001, 0.002, "cuda"), (0.001, 0.001, "cuda")])
def test_the_quicker_is_taken_and_both_numbers_are_said(gpu: float, cpu: float, chosen: str) -> None:
    device, why = decide(Timed("cuda", gpu, 30, 4), Timed("cpu", cpu, 12, 1))
    assert device == chosen
    assert why == (
        f"cluster.device=auto takes {chosen}: an update takes {gpu * 1000:.3g} ms on cuda (a share of 4) and {cpu * 1000:.3g} ms on cpu "
        "(medians of 30 and 12, train.device_probe=true)"
    )


class Gpu:
    """Stands in for one: auto finds it, and an update takes what it is told to take."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answer: dict[str, Any] = {"seconds": 1e9, "updates": 5}
        self.asked: list[str] = []
        time_updates = submit.time_updates

        def timed(given: dict[str, Any]) -> dict[str, Any]:
            self.asked.append(given["device"])
            return self.answer if given["device"] == "cuda" else time_updates(given)

        monkeypatch.setattr(choice.gpus, "find", lambda: Gpus(2))
        monkeypatch.setattr(submit, "time_updates", timed)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    return Gpu(monkeypatch)


def planned(tmp_path: Path) -> tuple[str, str]:
    plan = RunDir(tmp_path / "runs" / "toy" / "a").read_plan()
    return plan.world.device, plan.chosen


def test_the_run_is_planned_for_the_cpu_where_that_is_quicker(
    gpu: Gpu, command: Command, toy_words: tuple[str, ...], tmp_path: Path
) -> None:
    done = command(*toy_words, *PROBE)
    assert done.code == 0, done.err
    assert gpu.asked == ["cuda", "cpu"]
    device, why = planned(tmp_path)
    assert device == "cpu"
    assert why.startswith("cluster.device=auto takes cpu: an update takes 1e+12 ms on cuda (a share of 2) and ")
    assert why in done.out.splitlines(), "on the screen, by rank 0's log"
    assert "\n  device: cpu\n" in RunDir(tmp_path / "runs" / "toy" / "a").config.read_text()
    again = command(*toy_words, *PROBE)
    assert again.code == 0, again.err
    assert "this run is done already" in again.out
    assert gpu.asked == ["cuda", "cpu"], "what was decided holds: nothing is timed again"
    refused(command(*toy_words, *PROBE, "cluster.device=cuda"), 2, "id=a is a run with another config (cluster.device: cpu -> cuda")


def test_the_gpu_is_taken_where_it_is_quicker_or_the_cpu_cannot_have_the_run(
    gpu: Gpu, command: Command, toy_words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begun(*words: str) -> Answer:
        return command(*toy_words, *PROBE, *words)

    gpu.answer = {"seconds": 1e-9, "updates": 5}
    answer = begun()
    assert answer.code == 2
    assert "sees no CUDA device" in answer.err, "it was started on what is not here"
    assert planned(tmp_path)[0] == "cuda"
    assert begun("id=b", "train.precision=fp16").code == 2
    assert (
        RunDir(tmp_path / "runs" / "toy" / "b")
        .read_plan()
        .chosen.startswith("cluster.device=auto takes cuda: a CPU cannot have this run (train.precision=fp16 is silently fp32")
    )
    assert gpu.asked == ["cuda", "cpu"], "of the second nothing had to be timed"


def test_what_cannot_be_timed_is_refused_in_one_line(gpu: Gpu, command: Command, toy_words: tuple[str, ...], tmp_path: Path) -> None:
    gpu.answer = {"failed": "OutOfMemoryError: 80 GiB"}
    refused(command(*toy_words, *PROBE), 2, "train.device_probe=true: cuda cannot be timed (OutOfMemoryError: 80 GiB); type")
    refused(
        command(*toy_words, *PROBE, "strategy=fsdp", "strategy.wrap_params=1"),
        2,
        "train.device_probe=true times one process, and here a model is split over several (dp_shard 2)",
    )
    refused(command(*toy_words, *PROBE, "cluster=slurm"), 2, "train.device_probe=true: the compute nodes cannot be looked at from here")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no GPU to train on; train.device_probe=true has nothing to compare it with"),
        (("cluster.device=cpu",), "train.device_probe=true has nothing to choose: cluster.device=cpu was typed"),
    ],
)
def test_where_there_is_nothing_to_compare_it_is_said(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    from processes import toy_words as words_of

    done = finish(tmp_path, words_of(tmp_path / "runs", *PROBE, *words), CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
    plan = json.loads((tmp_path / "runs" / "toy" / "a" / "plan.json").read_text())
    assert plan["chosen"].endswith(said)

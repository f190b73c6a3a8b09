"""`bench device`: the same update on the CPU and on each device. There is no GPU on the machines that run these tests: what it takes is
said in its place; the CPU is timed for real."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import Answer, Command, Launch, refused
from PIL import Image

from launcher.clusters import submit
from launcher.clusters.gpus import Gpus
from launcher.clusters.local import choice

MIB = 1 << 20


class Machine:
    """A CPU and two GPUs, which take what they are told to take."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, gpus: int = 2) -> None:
        self.seconds: dict[tuple[str, int], Iterator[float]] = {("cpu", 0): itertools.repeat(0.010)}
        self.seconds |= {("cuda", index): itertools.repeat(0.002) for index in range(gpus)}
        self.failed: dict[tuple[str, int], str] = {}
        self.joules: dict[str, float | None] = {"cpu": None, "cuda": 0.5}
        self.asked: list[tuple[str, int]] = []
        self.given: list[dict[str, Any]] = []
        monkeypatch.setattr(choice.gpus, "find", lambda: Gpus(gpus))
        monkeypatch.setattr(submit, "time_updates", self.timed)

    def timed(self, given: dict[str, Any]) -> dict[str, Any]:
        device = given["device"], given["index"]
        self.asked.append(device)
        self.given.append(given)
        if device in self.failed:
            return {"failed": self.failed[device]}
        middle = next(self.seconds[device])
        found = {"times": [middle * share for share in (0.9, 0.95, 1, 1.05, 1.1)], "joules": self.joules[device[0]], "samples": 64}
        return {**found, "seconds": middle, "updates": 5, "memory_bytes": 3 * MIB, "steps_per_epoch": 1000, "name": f"a {device[0]}"}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def table(out: str) -> dict[str, list[str]]:
    """Title -> a cell a device."""
    lines = out.partition("data and all:")[2].partition("\n\n")[0].splitlines()[2:]
    return {cells[0]: cells[1:] for line in lines for cells in [[cell.strip() for cell in line.strip().split("  ") if cell.strip()]]}


def last(out: str) -> str:
    """The sentence."""
    return " ".join(out.split()).partition("its own board. ")[2]


def test_each_device_is_timed_in_turn_and_the_quickest_is_named(machine: Machine, command: Command, toy_words: tuple[str, ...]) -> None:
    answer = command("bench", "device", *toy_words)
    assert answer.code == 0, answer.err
    there = [("cpu", 0), ("cuda", 0), ("cuda", 1)]
    assert machine.asked == [*there, *reversed(there), *there], "in turn, so that what drifts meets all of them"
    assert all(given["shares"] == 1 and given["energy"] for given in machine.given)
    assert {given["config"]["cluster"]["device"] for given in machine.given} == {"cpu", "cuda"}
    assert answer.out.startswith("1  cpu  a cpu\n2  cuda:0  a cuda\n3  cuda:1  a cuda\n")
    rows = table(answer.out)
    assert rows["median"] == ["10 ms", "2 ms", "2 ms"]
    assert rows["quartiles"] == ["9.5 to 10.5 ms", "1.9 to 2.1 ms", "1.9 to 2.1 ms"]
    assert rows["updates (n)"] == ["15"] * 3
    assert rows["samples a second"] == ["6,400", "32,000", "32,000"]
    assert rows["peak memory"] == ["3 MiB"] * 3
    assert rows["energy"] == ["not readable here", "0.5 J", "0.5 J"]
    assert rows["an epoch"] == ["10 s", "2 s", "2 s"]
    assert "an epoch costs" not in rows
    assert not Path("runs").exists()
    assert answer.lines[0] == "9 processes, one after another: from 27 s to 2 min, more where an update takes seconds"
    assert answer.lines[1] == "round 1 of 3: cpu"
    assert answer.lines[2] == "round 1 of 3: cuda:0; about 0 s to go"


def test_that_there_is_nothing_to_compare_is_said_first(
    monkeypatch: pytest.MonkeyPatch, command: Command, toy_words: tuple[str, ...]
) -> None:
    Machine(monkeypatch, gpus=1)
    answer = command("bench", "device", *toy_words, "cluster.device=cpu")
    assert answer.lines[0].startswith("the CPU is the only device to be timed here: there is nothing to compare it with")
    assert answer.lines[1] == "3 processes, one after another: from 9 s to 45 s, more where an update takes seconds"


def test_two_that_cannot_be_told_apart_are_not(machine: Machine, command: Command, toy_words: tuple[str, ...]) -> None:
    machine.seconds["cuda", 1] = itertools.cycle([0.0018, 0.0024, 0.0021])
    assert last(command("bench", "device", *toy_words).out).startswith("Use either: an update takes 2 ms on cuda:0 and ")


@pytest.mark.parametrize(
    ("cpu", "price", "sentence"),
    [
        (0.001, "", "Use cpu: an update takes 1 ms on cpu and 2 ms on cuda:0, 2 times as long."),
        (0.001, "price=cpu:0.36,cuda:3.6", "2 times as long, and an epoch costs 0.0001, the least."),
        (
            0.010,
            "price=cpu:0.36,cuda:0.36",
            "Use cuda:0: an update takes 2 ms on cuda:0 and 10 ms on cpu, 5 times as long, and an epoch costs",
        ),
        (
            0.010,
            "price=cpu:0.36,cuda:36",
            "Use cuda:0 for time, an update takes 2 ms on cuda:0 and 10 ms on cpu, 5 times as long; or cpu for money, for the quickest "
            "costs 0.02 an epoch instead of 0.001.",
        ),
        (0.002, "price=cpu:0.36,cuda:36", "Use cpu, where an epoch costs 0.0002: an update takes as long on the next"),
        (0.010, "price=cpu:0.36,xpu:2", "The price of xpu is not used: none was timed."),
    ],
)
def test_the_sentence_weighs_time_and_money(
    cpu: float, price: str, sentence: str, monkeypatch: pytest.MonkeyPatch, command: Command, toy_words: tuple[str, ...]
) -> None:
    machine = Machine(monkeypatch, gpus=1)
    machine.seconds["cpu", 0] = itertools.repeat(cpu)
    answer = command("bench", "device", *toy_words, *filter(None, [price]))
    assert answer.code == 0, answer.err
    assert sentence in last(answer.out)
    assert ("an epoch costs" in table(answer.out)) == bool(price)
    if price.endswith("xpu:2"):
        assert table(answer.out)["an epoch costs"] == ["0.001", "no price"]


def test_a_device_without_numbers_is_told_with_its_reason(machine: Machine, command: Command, toy_words: tuple[str, ...]) -> None:
    machine.failed["cuda", 1] = "OutOfMemoryError: 80 GiB"
    out = command("bench", "device", *toy_words).out
    assert "3  cuda:1  no numbers: OutOfMemoryError: 80 GiB\n" in out
    assert machine.asked.count(("cuda", 1)) == 1, "it is not asked again"
    assert table(out)["median"] == ["10 ms", "2 ms", "–"]
    out = command("bench", "device", *toy_words, "train.precision=fp16").out
    assert "1  cpu  no numbers: train.precision=fp16 is silently fp32" in out
    assert "There is nothing to choose: cuda:0 is the only device" in last(out)
    machine.failed["cuda", 0] = "no kernel"
    refused(
        quiet(command("bench", "device", *toy_words, "train.precision=fp16")),
        2,
        "bench device: cpu: train.precision=fp16",
        "cuda:0: no kernel",
    )


def quiet(answer: Answer) -> Answer:
    """Without the lines of what is being timed."""
    return answer._replace(
        err="".join(line for line in answer.err.splitlines(keepends=True) if not re.match("round |[0-9]+ processes", line))
    )


def test_many_devices_go_down(monkeypatch: pytest.MonkeyPatch, command: Command, toy_words: tuple[str, ...]) -> None:
    Machine(monkeypatch, gpus=8)
    out = command("bench", "device", *toy_words).out
    assert max(map(len, out.splitlines())) <= 80
    assert "  1  cpu     10 ms   9.5 to 10.5 ms" in out
    assert "…" not in out


def test_a_picture_where_it_is_asked_for(machine: Machine, command: Command, toy_words: tuple[str, ...], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    answer = command("bench", "device", *toy_words, "price=cpu:1,cuda:2", f"to={tmp_path}")
    assert answer.out.endswith(f"\n{tmp_path / 'bench-device.png'}\n")
    with Image.open(tmp_path / "bench-device.png") as picture:
        assert picture.size[0] == round(5 * 2.6 * 110), "time, speed, memory, energy, cost"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ((), ("bench : there is nothing of that name to be timed", "type bench device +exp=cifar")),
        (("devices",), ("bench devices: there is nothing",)),
        (("device", "-m"), ("leave out --multirun",)),
        (("device", "price=cpu:1", "price=cpu:2"), ("price=cpu:2: price=cpu:1 is there already; type price= once",)),
        (("device", "price=gpu:1"), ("price=gpu:1: gpu is no kind of device", "cpu")),
        (("device", "price=cpu:1,cpu:2"), ("cpu has two prices",)),
        (("device", "price=cpu:-1"), ("-1 is no price of an hour",)),
        (("device", "price=cpu:nan"), ("nan is no price of an hour",)),
        (("device", "price=cpu"), ("nothing is no price of an hour",)),
        (("device", "price="), ("price=: there is nothing after it; type price=cpu:0.10",)),
        (("device", "to=a.jpg"), ("the picture is a PNG; type to=a.png",)),
        (("device", "{toy}", "cluster=slurm"), ("bench device times the machine it is typed on; type cluster=local",)),
        (("device", "{toy}", "optim.lr=nan"), ("optim.lr=nan",)),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    machine: Machine, command: Command, toy_words: tuple[str, ...], words: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    refused(command("bench", *(each for word in words for each in (toy_words if word == "{toy}" else (word,)))), 2, *parts)
    assert machine.asked == []


@pytest.mark.slow
def test_the_cpu_of_this_machine_is_timed_for_real(launch: Launch, toy_words: tuple[str, ...]) -> None:
    done = launch("bench", "device", *toy_words, "price=cpu:0.10", env={"CUDA_VISIBLE_DEVICES": ""}, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = table(done.stdout)
    assert int(rows["updates (n)"][0]) >= 15
    assert rows["energy"][0] == "not readable here" or rows["energy"][0].endswith(" J")
    assert float(rows["an epoch costs"][0]) > 0
    assert last(done.stdout) == "There is nothing to choose: cpu is the only device of this machine that an update could be timed on."

"""What a partition allows, read from what `scontrol show partition -o` prints, against what a job asks for."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from launcher.clusters.slurm import Slurm, limits, scheduler
from launcher.clusters.submit import Reply
from launcher.errors import ClusterError, NoAnswer

LINE = (
    "PartitionName={name} AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default={default} QoS=N/A DefaultTime=NONE "
    "DisableRootJobs=NO ExclusiveUser=NO GraceTime=0 Hidden=NO MaxNodes={nodes} MaxTime={time} MinNodes={least} LLN=NO "
    "MaxCPUsPerNode={cpus} MaxCPUsPerSocket=UNLIMITED Nodes=node[1-{total}] PriorityJobFactor=1 PriorityTier=1 RootOnly=NO ReqResv=NO "
    "OverSubscribe=NO OverTimeLimit=NONE PreemptMode=OFF State={state} TotalCPUs={total_cpus} TotalNodes={total} "
    "SelectTypeParameters=NONE JobDefaults=(null) DefMemPerNode=UNLIMITED MaxMemPerNode={memory} TRES={tres} "
    "TRESBillingWeights=CPU=1.0,Mem=0.25G,GRES/gpu=9"
)


@dataclasses.dataclass
class Shown:
    """One partition; the defaults are a small one with GPUs."""

    name: str = "gpu"
    default: str = "YES"
    state: str = "UP"
    nodes: str = "UNLIMITED"
    least: str = "0"
    time: str = "1-00:00:00"
    cpus: str = "UNLIMITED"
    total: str = "4"
    total_cpus: str = "64"
    memory: str = "UNLIMITED"
    tres: str = "cpu=64,mem=256G,node=4,billing=100,gres/gpu=16,gres/gpu:h100=16"


GPU = Shown()
SMALL = Shown("small", "NO", nodes="2", time="30:00", memory="8192", cpus="8")
ENDLESS = Shown("endless", "NO", time="UNLIMITED", tres="cpu=64,mem=262144M,node=4,billing=100,gres/gpu=16")
CPU = Shown("cpu", "NO", tres="cpu=64,mem=1.50T,node=4,billing=100")
WIDE = Shown("wide", "NO", least="3")
DOWN, DRAIN, INACTIVE = (Shown(word.lower(), "NO", word) for word in ("DOWN", "DRAIN", "INACTIVE"))
ALL = (GPU, SMALL, ENDLESS, CPU, WIDE, DOWN, DRAIN, INACTIVE)
UNCOUNTED = Shown(tres="cpu=64,mem=256G,node=4,billing=100")
"""As on a cluster whose AccountingStorageTRES has no gres/gpu: nobody says how many GPUs there are."""

Ask = dict[str, Any]
FITS: tuple[tuple[tuple[Shown, ...], Ask], ...] = (
    (ALL, {}),
    (ALL, {"nodes": 4, "processes_per_node": 4}),
    (ALL, {"time": "1-0"}),
    (ALL, {"time": "366-0", "partition": "endless"}),
    (ALL, {"time": "30:00", "partition": "small", "nodes": 2, "memory": "8G"}),
    (ALL, {"memory": 0}),
    (ALL, {"memory": "64G", "nodes": 4}),
    (ALL, {"memory": "384G", "nodes": 4, "partition": "cpu", "device": "cpu"}),
    (ALL, {"partition": "cpu", "device": "cpu", "processes_per_node": 4}),
    (ALL, {"partition": "small,gpu", "nodes": 4}),
    (ALL, {"partition": "down,gpu"}),
    (ALL, {"partition": "wide", "nodes": 3}),
    ((UNCOUNTED,), {"processes_per_node": 8}),
    ((), {"partition": "hidden"}),
    ((Shown(nodes="INFINITE", time="NONE", total="UNLIMITED", total_cpus="UNLIMITED", tres=""),), {"nodes": 9}),
    ((Shown(name="7"),), {"partition": 7}),
)
DOES_NOT: tuple[tuple[tuple[Shown, ...], Ask, tuple[str, ...]], ...] = (
    (ALL, {"partition": "gpus"}, ("cluster.partition=gpus: no such partition; did you mean gpu?; there are gpu, small,",)),
    (ALL, {"partition": "GPU"}, ("cluster.partition=GPU: no such partition",)),
    (ALL, {"partition": "gpu,nope"}, ("cluster.partition=nope: no such partition",)),
    ((SMALL, CPU), {}, ("cluster.partition: this cluster has no default; type one of small, cpu",)),
    (ALL, {"partition": "drain"}, ("cluster.partition=drain is DRAIN",)),
    (ALL, {"partition": "inactive"}, ("cluster.partition=inactive is INACTIVE",)),
    (ALL, {"partition": "inactive,drain"}, ("cluster.partition=inactive is INACTIVE",)),
    (ALL, {"partition": "down", "nodes": 5}, ("cluster.nodes=5 is more than partition down gives",)),
    (ALL, {"time": "1-0:01"}, ("cluster.time=1-0:01 is more than partition gpu allows (1-00:00:00); type cluster.time=1-00:00:00",)),
    (ALL, {"partition": "small", "time": "4:00:00"}, ("cluster.time=4:00:00 is more than", "type cluster.time=30:00")),
    (ALL, {"nodes": 5}, ("cluster.nodes=5 is more than partition gpu gives a job (4)",)),
    (ALL, {"nodes": 3, "partition": "small", "time": "10:00"}, ("cluster.nodes=3 is more than partition small gives a job (2)",)),
    (ALL, {"nodes": 2, "partition": "wide"}, ("cluster.nodes=2: partition wide gives no job fewer than 3",)),
    (
        ALL,
        {"nodes": 4, "processes_per_node": 5},
        ("cluster.processes_per_node: 4 nodes x 5 GPUs is more than partition gpu has in all (16)",),
    ),
    (ALL, {"partition": "cpu"}, ("cluster.processes_per_node: 1 node x 1 GPUs is more than partition cpu has in all (0)",)),
    (ALL, {"cpus_per_process": 65}, ("cluster.cpus_per_process: 1 node x 65 CPUs is more than partition gpu has in all (64)",)),
    (ALL, {"cpus_per_process": 9, "partition": "small", "time": "10:00"}, ("cluster.cpus_per_process: 9 CPUs a node is more", "(8)")),
    (ALL, {"memory": "65G", "nodes": 4}, ("cluster.memory=65G is more than partition gpu has for a node (65536M)",)),
    (ALL, {"memory": "9G", "partition": "small", "time": "10:00"}, ("cluster.memory=9G is more", "(8192M)")),
    (ALL, {"memory": "2T", "partition": "cpu", "device": "cpu"}, ("cluster.memory=2T is more", "(1572864M)")),
    (ALL, {"partition": "small,wide", "nodes": 99, "time": "10:00"}, ("cluster.nodes=99 is more than partition small",)),
)


def read(shown: tuple[Shown, ...], monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, str]]:
    text = "".join(LINE.format(**dataclasses.asdict(each)) + "\n" for each in shown)
    monkeypatch.setattr(scheduler, "ask", lambda argv, seconds: Reply(0, text, "", "scontrol"))
    return scheduler.partitions()


@pytest.mark.parametrize(("shown", "asked"), FITS, ids=lambda value: str(value)[:40])
def test_what_fits_is_let_through(shown: tuple[Shown, ...], asked: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    limits.check(Slurm(**asked), read(shown, monkeypatch))


@pytest.mark.parametrize(("shown", "asked", "parts"), DOES_NOT, ids=lambda value: str(value)[:40])
def test_what_does_not_fit_is_refused_by_key_and_limit(
    shown: tuple[Shown, ...], asked: Ask, parts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ClusterError) as refusal:
        limits.check(Slurm(**asked), read(shown, monkeypatch))
    for part in parts:
        assert part in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("asked", "warns"), [("down", True), ("down,gpu", False), ("gpu", False), ("down,drain", False)])
def test_a_partition_that_is_down_queues_what_waits_for_it(
    asked: str, warns: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of those that take no jobs (DRAIN, INACTIVE) SLURM says so itself."""
    limits.check(Slurm(partition=asked), read(ALL, monkeypatch))
    assert ("waits in the queue until it is up" in capsys.readouterr().err) is warns


def test_the_time_to_type_instead_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for shown in ALL[:2]:
        partitions = read((shown,), monkeypatch)
        with pytest.raises(ClusterError) as refusal:
            limits.check(Slurm(partition=shown.name, time="300-0"), partitions)
        offered = re.search(r"type cluster\.time=([\d:-]+)", str(refusal.value))
        assert offered
        limits.check(Slurm(partition=shown.name, time=offered[1]), partitions)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1-00:00:00", 86_400), ("00:10:00", 600), ("30:00", 1800), ("7-12:30:15", 649_815), ("UNLIMITED", None), ("NONE", None), ("", None)],
)
def test_a_limit_as_scontrol_prints_it(text: str, seconds: float | None) -> None:
    assert limits.time_seconds(text) == seconds


def test_an_answer_that_is_none_is_an_error_in_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    down = "slurm_load_partitions error: Unable to contact slurm controller (connect failure)"
    monkeypatch.setattr(scheduler, "ask", lambda argv, seconds: Reply(1, "", down, "scontrol"))
    with pytest.raises(NoAnswer, match=r"scontrol: the controller does not answer \(slurm_load_partitions error: Unable to contact"):
        scheduler.partitions()
    monkeypatch.setattr(scheduler, "ask", lambda argv, seconds: Reply(1, "", "scontrol: error: no permission\n\n", "scontrol"))
    with pytest.raises(ClusterError, match=r"^scontrol refused: no permission$"):
        scheduler.partitions()
    monkeypatch.setattr(scheduler, "ask", lambda argv, seconds: Reply(0, "No partitions in the system\n", "", "scontrol"))
    assert scheduler.partitions() == {}

"""What an examination's report means: which nodes are bad and why, of a whole report and of what was left behind."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher.doctor.findings import expand, left_behind, publish, read_report
from launcher.doctor.judge import GIB, STAGES, Verdict, culprits, judge
from launcher.doctor.table import table
from launcher.plan import Mesh, Plan, World
from launcher.rundir.rundir import RunDir

Entry = dict[str, Any]
Change = Callable[[list[Entry]], None]


def plan(device: str = "cuda", nodes: int = 3, each: int = 1) -> Plan:
    world = World(nodes, each, device)
    return Plan("doctor", "a", "/runs/doctor/a", world, 1, 0, "python", "/", "/", (), "", "", (), "0", mesh=Mesh(world.size))


def entry(rank: int, node: str, each: int) -> Entry:
    """What a process on a sound node finds."""
    found: Entry = {
        "rank": rank,
        "local_rank": rank % each,
        "node": node,
        "allotted": "",
        "stage": "end",
        "stopped": "",
        "raised": False,
        "device": {"name": "H100", "count": each, "bytes": 80 * GIB, "free": 79 * GIB},
        "health": {"by": "pynvml", "ecc": 0, "throttle": []},
        "matmul": {"wrong": 0, "flops": 7e14, "dtype": "bfloat16"},
        "host": {"run_free": 900 * GIB, "tmp_free": 90 * GIB, "memory_free": 500 * GIB},
        "sum": {"wrong": 0, "timed": [{"bytes": 2**26, "seconds": 0.001}], "latency": 3e-5},
    }
    if rank % each == 0:
        found |= {"files": {"unseen": [], "seconds": 0.1}, "clock": {"offset": 0.0, "rtt": 1e-4}, "links": []}
    return found


def report(change: Change = lambda ranks: None, nodes: int = 3, each: int = 1, *, complete: bool = True) -> dict[str, Any]:
    names = [f"n{number}" for number in range(1, nodes + 1)]
    ranks = [entry(rank, names[rank // each], each) for rank in range(nodes * each)]
    for stride in (1, 2) if nodes > 2 else (1,) if nodes == 2 else ():
        for number in range(nodes):
            link = {"from": names[(number - stride) % nodes], "bytes_per_second": 4e10, "wrong": 0}
            ranks[number * each]["links"].append(link)
    change(ranks)
    return {"complete": complete, "nodes": names, "agents": names, "ranks": ranks}


def setting(rank: int, check: str, **values: Any) -> Change:
    return lambda ranks: ranks[rank][check].update(values)


def linking(bad: str, to: str | None = None, **values: Any) -> Change:
    """Change the links that `bad` sends on, or only the one `to` a node."""

    def change(ranks: list[Entry]) -> None:
        for here in ranks:
            for link in here.get("links", ()):
                if link["from"] == bad and to in (None, here["node"]):
                    link.update(values)

    return change


def both(*changes: Change) -> Change:
    def change(ranks: list[Entry]) -> None:
        for each in changes:
            each(ranks)

    return change


def without(node: str) -> Change:
    def change(ranks: list[Entry]) -> None:
        ranks[:] = [here for here in ranks if here["node"] != node]

    return change


def stopping(**stages: tuple[str, str]) -> Change:
    """n1=("join", "no end within 60 s"): where a process stopped and what it said; nothing is a process that fell silent."""

    def change(ranks: list[Entry]) -> None:
        for here in ranks:
            here["stage"], here["stopped"] = stages[here["node"]]

    return change


def slow_network(ranks: list[Entry]) -> None:
    for here in ranks:
        for link in here["links"]:
            if "n2" in (link["from"], here["node"]):
                link["bytes_per_second"] = 1e9


FINE: tuple[str, ...] = ()
CASES: tuple[tuple[str, Change, tuple[str, ...], str], ...] = (
    ("all sound", lambda ranks: None, FINE, "all fine"),
    ("a wrong product", setting(1, "matmul", wrong=3), ("n2",), "computed 3 elements wrong"),
    ("a check that raised", setting(2, "matmul", error="RuntimeError: CUDA error"), ("n3",), "matmul: RuntimeError"),
    ("no GPU", setting(2, "device", error="RuntimeError: torch sees 0 CUDA devices"), ("n3",), "torch sees 0"),
    ("ECC errors", setting(0, "health", ecc=2), ("n1",), "2 uncorrected ECC errors"),
    ("a slow GPU", setting(2, "matmul", flops=4e14), ("n3",), "57% of the median"),
    ("another GPU than the majority", setting(1, "device", name="A100"), ("n2",), "A100"),
    ("a wrong sum with a wrong link", both(setting(0, "sum", wrong=1), linking("n2", wrong=1)), ("n2",), "a wrong sum"),
    ("a wrong sum and nothing else", setting(0, "sum", wrong=1), ("n1", "n2", "n3"), "a wrong sum"),
    ("one wrong link", linking("n1", "n2", wrong=1), ("n1", "n2"), "n1 to n2"),
    ("a slow network card", slow_network, ("n2",), "its fastest link has 2%"),
    ("a node that sees no other's files", setting(2, "files", unseen=["n1", "n2"]), ("n3",), "does not see"),
    ("a file that nobody sees", both(setting(0, "files", unseen=["n2"]), setting(2, "files", unseen=["n2"])), ("n2",), "n1 does not see"),
)


@pytest.mark.parametrize(("change", "bad", "reason"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_a_report_says_of_the_nodes(change: Change, bad: tuple[str, ...], reason: str) -> None:
    verdict = judge(report(change), plan())
    assert tuple(sorted(verdict.bad)) == bad
    assert reason in str(verdict)
    assert verdict.fine == (not bad)
    assert verdict.warnings == []


NOTES: tuple[tuple[str, Change, str, str], ...] = (
    ("a clock ahead", setting(2, "clock", offset=3.5), "cuda", "n3: its clock is 3.5 s ahead"),
    (
        "the first node's clock",
        both(setting(1, "clock", offset=4.0), setting(2, "clock", offset=4.0)),
        "cuda",
        "n1: its clock is 4.0 s behind",
    ),
    ("a full disk", setting(0, "host", run_free=GIB), "cuda", "n1: 1.0 GiB of the run directory's disk"),
    ("throttled", setting(1, "health", throttle=["power brake"]), "cuda", "n2: GPU 0 is slowed down (power brake)"),
    ("a GPU that somebody uses", setting(1, "device", free=20 * GIB), "cuda", "n2: 60 GiB of GPU 0"),
    ("a slow CPU", setting(1, "matmul", flops=1e9), "cpu", "not held against it"),
    ("another CPU", setting(1, "device", name="Xeon"), "cpu", "n2 has 1 x Xeon"),
    ("a slow link on CPUs", slow_network, "cpu", "n2: network"),
)


@pytest.mark.parametrize(("change", "device", "note"), [case[1:] for case in NOTES], ids=[case[0] for case in NOTES])
def test_what_is_only_said(change: Change, device: str, note: str) -> None:
    verdict = judge(report(change), plan(device))
    assert verdict.fine, verdict
    assert len(verdict.warnings) == 1
    assert note in verdict.warnings[0]


def test_a_clock_that_could_not_be_read_well_is_not_suspicious() -> None:
    assert judge(report(setting(2, "clock", offset=3.5, rtt=4.0)), plan()).warnings == []


def test_of_two_nodes_neither_is_the_slow_one_or_the_odd_one() -> None:
    verdict = judge(report(both(linking("n1", bytes_per_second=1e9), setting(1, "device", name="A100")), nodes=2), plan(nodes=2))
    assert verdict.fine
    assert len(verdict.warnings) == 2


TIME = "no end within 60 s"
LEFT: tuple[tuple[str, Change, tuple[str, ...], str], ...] = (
    ("one never came", both(stopping(n1=("join", TIME), n2=("join", TIME), n3=("join", TIME)), without("n2")), ("n2",), "no process of it"),
    (
        "one hangs before the others",
        stopping(n1=("join", TIME), n2=("start", TIME), n3=("join", TIME)),
        ("n2",),
        "no further than stage start",
    ),
    ("one died", stopping(n1=("sum", "Connection closed by peer"), n2=("sum", "Broken pipe"), n3=("sum", "")), ("n3",), "fell silent"),
    ("all hang", stopping(n1=("sum", TIME), n2=("sum", TIME), n3=("sum", TIME)), (), f"all processes stopped in stage sum ({TIME})"),
)


@pytest.mark.parametrize(("change", "bad", "reason"), [case[1:] for case in LEFT], ids=[case[0] for case in LEFT])
def test_what_is_left_of_an_examination_that_did_not_end(change: Change, bad: tuple[str, ...], reason: str) -> None:
    verdict = judge(report(change, complete=False), plan())
    assert tuple(sorted(verdict.bad)) == bad
    assert reason in str(verdict)
    assert not verdict.fine


def test_an_error_of_its_own_is_held_against_a_node_and_a_lost_peer_is_not() -> None:
    def change(ranks: list[Entry]) -> None:
        for here, said in zip(ranks, ("Connection reset by peer", "OSError: Read-only file system", "Broken pipe"), strict=True):
            here.update(stage="files", stopped=said, raised=True)

    verdict = judge(report(change, complete=False), plan())
    assert list(verdict.bad) == ["n2"]
    assert "Read-only" in str(verdict)


def test_where_no_process_began_the_node_without_torchrun_is_named() -> None:
    nothing = {**report(complete=False), "ranks": []}
    assert list(judge({**nothing, "agents": ["n1", "n3"]}, plan()).bad) == ["n2"]
    verdict = judge(nothing, plan())
    assert verdict.bad == {}
    assert "did not bring the nodes together" in verdict.problem


def test_a_process_that_is_missing_is_named_by_its_node() -> None:
    left = report(lambda ranks: ranks.pop(3), nodes=2, each=2, complete=False)
    assert "n2" in judge(left, plan(nodes=2, each=2)).bad


@pytest.mark.parametrize(
    ("pairs", "named"),
    [
        ([], []),
        ([("a", "b")], ["a", "b"]),
        ([("a", "b"), ("b", "c")], ["b"]),
        ([("a", "b"), ("b", "a")], ["a", "b"]),
        ([("b", "b"), ("a", "b")], ["b"]),
        ([("a", "b"), ("c", "d")], ["a", "b", "c", "d"]),
    ],
)
def test_culprits(pairs: list[tuple[str, str]], named: list[str]) -> None:
    assert culprits(pairs) == named


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("n1", ["n1"]),
        ("node[1-3,5],gpu07", ["node1", "node2", "node3", "node5", "gpu07"]),
        ("n[08-11]", ["n08", "n09", "n10", "n11"]),
        ("rack[1-2]n[01-02]-ib", ["rack1n01-ib", "rack1n02-ib", "rack2n01-ib", "rack2n02-ib"]),
    ],
)
def test_expand(text: str, names: list[str]) -> None:
    assert expand(text) == names


def test_the_bad_nodes_are_a_list_and_a_report_keeps_its_verdict(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.attempt(0).mkdir(parents=True)
    assert publish(run, 0, plan(), report()).fine
    assert not (run.attempt(0) / "bad_nodes").exists()
    publish(run, 0, plan(), report(both(setting(0, "matmul", wrong=1), setting(2, "health", ecc=1))))
    assert (run.attempt(0) / "bad_nodes").read_text() == "n1\nn3\n"
    written = read_report(run, 0)
    assert written is not None
    assert written["verdict"]["fine"] is False


def test_a_report_of_what_was_left_behind(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.attempt(0).mkdir(parents=True)
    run.log_event("attempt", attempt=0, reason="nodes n[1-3]")
    assert left_behind(run, 0, plan())["nodes"] == ["n1", "n2", "n3"]
    here = entry(1, "n2", 1) | {"stage": "join", "stopped": TIME}
    (run.attempt(0) / "doctor_rank_1.json").write_text(json.dumps(here))
    run.agent_log(0, 1).touch()
    left = left_behind(run, 0, plan())
    assert left["agents"] == ["n2"]
    assert sorted(judge(left, plan()).bad) == ["n1", "n3"]


@pytest.mark.parametrize("change", [case[1] for case in (*CASES, *LEFT)] + [case[1] for case in NOTES])
def test_every_report_has_a_table(change: Change) -> None:
    shown = table(report(change, complete=False), plan())
    assert shown.startswith("check")
    assert table({**report(complete=False), "ranks": []}, plan()).count("not examined") > 5


def test_a_gpu_that_nobody_could_look_into_is_said_in_plain_sight() -> None:
    blind = {"by": "", "ecc": None, "throttle": [], "why": "pynvml: No module; nvidia-smi: not found"}
    assert "NOT EXAMINED" in table(report(both(*(setting(rank, "health", **blind) for rank in range(3)))), plan())


def test_a_verdict_is_one_line() -> None:
    verdict = Verdict()
    verdict.blame(["n2", "n1"], "slow")
    verdict.blame(["n1"], "wrong")
    verdict.blame(["n1"], "slow")
    assert str(verdict) == "n1: slow, wrong; n2: slow"
    assert STAGES[0] == "start"
    assert STAGES[-1] == "end"
    assert dataclasses.asdict(verdict)["bad"] == {"n2": ["slow"], "n1": ["slow", "wrong"]}

"""What the doctor's report means: which nodes are bad and why. Pure functions of the report and the plan; no torch, no file, no clock.

The report (findings.py makes it) has `nodes`, the names the scheduler gave; `agents`, those of them on which launcher.node began;
`complete`, whether every process came to the end; `ranks`, one mapping for each process that wrote anything (examine/__main__.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from launcher.devices import CPU
from launcher.plan import Plan
from launcher.verdict.diagnose import LOST_PEER

Entry = Mapping[str, Any]
Pair = tuple[str, str]

STAGES = ("start", "join", "device", "compare", "files", "clock", "sum", "links", "gather", "end")
"""What a process does, in this order; all but the first two in step with the others."""

SLOW_DEVICE = 0.8
"""Of the median speed of all devices."""
SLOW_LINK = 0.5
"""Of the median of the nodes' fastest links, measured while all nodes send and receive."""
SKEW_SECONDS = 2.0
GIB = 2**30
LEAST_FREE = (("run_free", 5 * GIB, "the run directory's disk"), ("tmp_free", GIB, "/tmp"), ("memory_free", 2 * GIB, "memory"))
"""Bytes below which it is said; no node is condemned for it."""


@dataclass
class Verdict:
    bad: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Node -> why it should not be used."""
    problem: str = ""
    """What is wrong where no node can be named."""
    warnings: list[str] = field(default_factory=list[str])

    @property
    def fine(self) -> bool:
        return not self.bad and not self.problem

    def blame(self, nodes: Iterable[str], reason: str) -> None:
        for node in nodes:
            if reason not in self.bad.setdefault(node, []):
                self.bad[node].append(reason)

    def __str__(self) -> str:
        """One line."""
        named = [f"{node}: {', '.join(reasons)}" for node, reasons in sorted(self.bad.items())]
        return "; ".join([*named, *filter(None, [self.problem])]) or "all fine"


def judge(report: Mapping[str, Any], plan: Plan) -> Verdict:
    """The verdict on a report, be it complete or what was left behind."""
    verdict = Verdict()
    entries: list[Entry] = sorted(report["ranks"], key=lambda entry: entry["rank"])
    _presence(verdict, report, entries, plan)
    if not report["complete"]:
        _silence(verdict, entries)
    for entry in entries:
        _errors(verdict, entry)
    _devices(verdict, entries, plan)
    _speed(verdict, entries, plan)
    _sums(verdict, entries)
    _links(verdict, entries, plan)
    _files(verdict, entries)
    _clocks(verdict, entries)
    _room(verdict, entries)
    if not report["complete"] and verdict.fine:
        verdict.problem = _where_all_are(entries)
    return verdict


def culprits(pairs: Sequence[Pair]) -> list[str]:
    """Of the pairs between which something failed: the one node that is in all of them; every node in them where there is no such one."""
    common = set(pairs[0]).intersection(*pairs) if pairs else set[str]()
    return sorted(common) if len(common) == 1 else sorted({node for pair in pairs for node in pair})


# ---------------------------------------------------------------- who came


def _presence(verdict: Verdict, report: Mapping[str, Any], entries: Sequence[Entry], plan: Plan) -> None:
    there = Counter(str(entry["node"]) for entry in entries)
    agents: list[str] = report["agents"]
    for node in report["nodes"]:
        if node not in there and (entries or node not in agents):
            began = "torchrun began there, its processes did not" if node in agents else "it cannot be reached or does not see the run"
            verdict.blame([node], f"no process of it wrote anything: {began}")
    for node, count in there.items():
        if count < plan.world.processes_per_node:
            verdict.blame([node], f"{count} of {plan.world.processes_per_node} processes began")


def _silence(verdict: Verdict, entries: Sequence[Entry]) -> None:
    """A process that gave up left word of it. One that did not is dead or hangs; so does, mostly, the one that came least far."""
    silent = [entry for entry in entries if not entry["stopped"] and entry["stage"] != "end"]
    if silent and len(silent) < len(entries):
        for entry in silent:
            verdict.blame([entry["node"]], f"rank {entry['rank']} fell silent in stage {entry['stage']}")
        return
    reached = {entry["rank"]: STAGES.index(entry["stage"]) for entry in entries}
    if reached and min(reached.values()) < max(reached.values()):
        for entry in entries:
            if reached[entry["rank"]] == min(reached.values()):
                verdict.blame([entry["node"]], f"rank {entry['rank']} came no further than stage {entry['stage']}")


def _where_all_are(entries: Sequence[Entry]) -> str:
    if not entries:
        return "torchrun did not bring the nodes together: no process was started"
    stopped = next((str(entry["stopped"]) for entry in entries if entry["stopped"]), "no word")
    return f"all processes stopped in stage {entries[0]['stage']} ({stopped})"


def _errors(verdict: Verdict, entry: Entry) -> None:
    if entry["stopped"] and entry.get("raised") and not LOST_PEER.search(entry["stopped"]):
        verdict.blame([entry["node"]], f"rank {entry['rank']}: {entry['stopped']}")
    for check in ("device", "matmul", "host"):
        if error := entry.get(check, {}).get("error"):
            verdict.blame([entry["node"]], f"{check}: {error}")


# ---------------------------------------------------------------- devices


def _devices(verdict: Verdict, entries: Sequence[Entry], plan: Plan) -> None:
    on_gpu = plan.world.device != CPU
    found = [entry for entry in entries if "name" in entry.get("device", {})]
    for entry in found:
        device, health, node = entry["device"], entry.get("health", {}), entry["node"]
        if on_gpu and device["count"] < plan.world.processes_per_node:
            verdict.blame([node], f"{device['count']} GPUs where {plan.world.processes_per_node} processes need one each")
        if on_gpu and device["free"] < 0.9 * device["bytes"]:
            taken = (device["bytes"] - device["free"]) / GIB
            verdict.warnings.append(f"{node}: {taken:.0f} GiB of GPU {entry['local_rank']} are taken by somebody else")
        if health.get("ecc"):
            verdict.blame([node], f"GPU {entry['local_rank']}: {health['ecc']} uncorrected ECC errors")
        if health.get("throttle"):
            verdict.warnings.append(f"{node}: GPU {entry['local_rank']} is slowed down ({', '.join(health['throttle'])})")
    _odd_ones(verdict, found, lambda entry: _kind(entry["device"]), "has", condemn=on_gpu)
    for entry in entries:
        wrong = entry.get("matmul", {}).get("wrong", 0)
        if wrong:
            verdict.blame([entry["node"]], f"matmul: device {entry['local_rank']} computed {wrong} elements wrong")


def _kind(device: Mapping[str, Any]) -> str:
    return f"{device['count']} x {device['name']} of {device['bytes'] / GIB:.0f} GiB"


def _odd_ones(verdict: Verdict, entries: Sequence[Entry], what: Callable[[Entry], Hashable], verb: str, *, condemn: bool) -> None:
    """Whoever differs from the majority; where there is none, everybody is only named."""
    seen = {str(entry["node"]): what(entry) for entry in entries}
    ranked = Counter(seen.values()).most_common()
    if len(ranked) < 2:
        return
    usual, count = ranked[0]
    for node, value in sorted(seen.items()):
        if value == usual and count > len(seen) / 2:
            continue
        if condemn and count > len(seen) / 2:
            verdict.blame([node], f"{verb} {value}, the others {usual}")
        else:
            verdict.warnings.append(f"{node} {verb} {value}")


def _speed(verdict: Verdict, entries: Sequence[Entry], plan: Plan) -> None:
    timed = [(entry, float(entry["matmul"]["flops"])) for entry in entries if "flops" in entry.get("matmul", {})]
    usual = median(speed for _, speed in timed) if timed else 0.0
    for entry, speed in timed:
        if speed < SLOW_DEVICE * usual:
            text = f"matmul: device {entry['local_rank']} computes at {speed / usual:.0%} of the median of all devices"
            if plan.world.device != CPU:
                verdict.blame([entry["node"]], text)
            else:
                verdict.warnings.append(f"{entry['node']}: {text} (CPUs may be shared; not held against it)")


# ---------------------------------------------------------------- between nodes


def _sums(verdict: Verdict, entries: Sequence[Entry]) -> None:
    """A wrong sum is wrong everywhere; the links say who it was, if anything does."""
    if not any(entry.get("sum", {}).get("wrong") for entry in entries):
        return
    if wrong := _wrong_links(entries):
        verdict.blame(culprits(wrong), "all-reduce: a wrong sum")
    else:
        verdict.blame({str(entry["node"]) for entry in entries}, "all-reduce: a wrong sum, and no link that shows whose")


def _wrong_links(entries: Sequence[Entry]) -> list[Pair]:
    return [(link["from"], entry["node"]) for entry in entries for link in entry.get("links", ()) if link["wrong"]]


def _links(verdict: Verdict, entries: Sequence[Entry], plan: Plan) -> None:
    if wrong := _wrong_links(entries):
        verdict.blame(culprits(wrong), "data arrives changed: " + ", ".join(f"{a} to {b}" for a, b in wrong))
    speeds = {(link["from"], entry["node"]): link["bytes_per_second"] for entry in entries for link in entry.get("links", ())}
    nodes = {node for pair in speeds for node in pair}
    if len(nodes) < 3:
        return  # of two, either may be the slow one
    fastest = {node: max(speed for pair, speed in speeds.items() if node in pair) for node in sorted(nodes)}
    usual = median(fastest.values())  # not of all links: of three nodes' links a single slow node has most
    for node, speed in fastest.items():
        if speed < SLOW_LINK * usual:
            text = f"network: its fastest link has {speed / usual:.0%} of what the other nodes' have"
            if plan.world.device != CPU:
                verdict.blame([node], text)
            else:
                verdict.warnings.append(f"{node}: {text}")


def _files(verdict: Verdict, entries: Sequence[Entry]) -> None:
    unseen = [(entry["node"], writer) for entry in entries for writer in entry.get("files", {}).get("unseen", ())]
    if unseen:
        verdict.blame(culprits(unseen), "files: " + ", ".join(f"{a} does not see what {b} wrote" for a, b in unseen[:4]))


def _clocks(verdict: Verdict, entries: Sequence[Entry]) -> None:
    clocks = {str(entry["node"]): entry["clock"] for entry in entries if "clock" in entry}
    usual = median(clock["offset"] for clock in clocks.values()) if clocks else 0.0
    for node, clock in clocks.items():
        skew = clock["offset"] - usual
        if abs(skew) - clock["rtt"] / 2 > SKEW_SECONDS:
            verdict.warnings.append(
                f"{node}: its clock is {abs(skew):.1f} s {'ahead' if skew > 0 else 'behind'} (+-{clock['rtt'] / 2:.3f} s)"
            )


def _room(verdict: Verdict, entries: Sequence[Entry]) -> None:
    for entry in entries:
        for key, least, what in LEAST_FREE:
            free = entry.get("host", {}).get(key)
            if free is not None and free < least:
                verdict.warnings.append(f"{entry['node']}: {free / GIB:.1f} GiB of {what} are free")

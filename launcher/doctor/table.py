"""The doctor's report as a table: check, result, what each node has to do with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from launcher.devices import CPU
from launcher.doctor.judge import GIB
from launcher.plan import Plan

MOST_NODES = 8
"""Beyond it, a note per node is no longer read; the extremes are."""

Entry = Mapping[str, Any]
Row = tuple[str, str, str]


def table(report: Mapping[str, Any], plan: Plan) -> str:
    entries: list[Entry] = sorted(report["ranks"], key=lambda entry: entry["rank"])
    rows: list[Row] = [
        ("check", "result", "by node"),
        _processes(report, entries, plan),
        _devices(entries),
        *([_health(entries)] if plan.world.device != CPU else []),
        _matmul(entries),
        *_sums(entries),
        _links(entries),
        _files(entries),
        _clocks(entries),
        *(_room(entries, key, what) for key, what in (("run_free", "run disk"), ("tmp_free", "/tmp"), ("memory_free", "memory"))),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"{check.ljust(widths[0])}  {result.ljust(widths[1])}  {notes}".rstrip() for check, result, notes in rows)


def _processes(report: Mapping[str, Any], entries: Sequence[Entry], plan: Plan) -> Row:
    done = [entry for entry in entries if entry["stage"] == "end"]
    came = list(dict.fromkeys(str(entry["node"]) for entry in entries))
    missing = [f"{node} missing" for node in report["nodes"] if node not in came]
    stages = [f"{entry['node']} rank {entry['rank']} in {entry['stage']}" for entry in entries if entry["stage"] != "end"]
    return (
        "processes",
        f"{len(done)} of {plan.world.size} to the end",
        ", ".join([*(stages if stages else came), *missing][: MOST_NODES * 2]),
    )


def _devices(entries: Sequence[Entry]) -> Row:
    shown = _by_node(entries, "device", _device)
    kinds = set(shown.values())
    return "devices", kinds.pop() if len(kinds) == 1 else ("differ" if kinds else "not examined"), _notes(shown) if kinds else ""


def _device(device: Mapping[str, Any]) -> str:
    return f"{device['count']} x {device['name']}, {device['bytes'] / GIB:.0f} GiB"


def _health(entries: Sequence[Entry]) -> Row:
    found = [entry["health"] for entry in entries if "health" in entry]
    asked = sorted({health["by"] for health in found if health["by"]})
    if not asked:
        why = next((health["why"] for health in found), "no GPU worked")
        return "ECC, throttle", "NOT EXAMINED", why
    errors = sum(health["ecc"] or 0 for health in found)
    slowed = sum(bool(health["throttle"]) for health in found)
    unseen = sum(not health["by"] for health in found)
    more = f", {unseen} GPUs NOT EXAMINED" if unseen else ""
    return "ECC, throttle", f"{errors} errors, {slowed} slowed down (by {', '.join(asked)}{more})", ""


def _matmul(entries: Sequence[Entry]) -> Row:
    found = [entry["matmul"] for entry in entries if "flops" in entry.get("matmul", {})]
    if not found:
        return "matmul", "not examined", ""
    wrong = sum(matmul["wrong"] for matmul in found)
    notes = _by_node(
        entries, "matmul", lambda matmul: f"{matmul['flops'] / 1e9:.0f}" + (f" ({matmul['wrong']} wrong)" if matmul["wrong"] else "")
    )
    usual = median(matmul["flops"] for matmul in found) / 1e9
    return "matmul", f"{'exact' if not wrong else 'WRONG'}, median {usual:.0f} GFLOP/s in {found[0]['dtype']}", _notes(notes)


def _sums(entries: Sequence[Entry]) -> list[Row]:
    sums = [entry["sum"] for entry in entries if "sum" in entry]
    if not sums:
        return [("all-reduce", "not examined", "")]
    if len(entries) == 1:
        return [("all-reduce", "one process", "")]
    right = "exact" if not any(found["wrong"] for found in sums) else "WRONG"
    speeds = ", ".join(f"{_size(timed['bytes'])} at {timed['bytes'] / timed['seconds'] / 1e9:.2f} GB/s" for timed in sums[0]["timed"])
    return [("all-reduce", f"{right}, {speeds}", ""), ("latency", f"{sums[0]['latency'] * 1e6:.0f} us for one number", "")]


def _size(size: float) -> str:
    return f"{size / 2**20:g} MiB"


def _links(entries: Sequence[Entry]) -> Row:
    links = [(f"{link['from']} to {entry['node']}", link) for entry in entries for link in entry.get("links", ())]
    if not links:
        return "links", "one node" if len({entry["node"] for entry in entries}) == 1 else "not examined", ""
    notes = {name: f"{link['bytes_per_second'] / 1e9:.2f}" + (" WRONG" if link["wrong"] else "") for name, link in links}
    right = "exact" if not any(link["wrong"] for _, link in links) else "WRONG"
    return "links", f"{right}, median {median(link['bytes_per_second'] for _, link in links) / 1e9:.2f} GB/s", _notes(notes)


def _files(entries: Sequence[Entry]) -> Row:
    files = {str(entry["node"]): entry["files"] for entry in entries if "files" in entry}
    if not files:
        return "shared files", "not examined", ""
    unseen = {node: f"does not see {', '.join(found['unseen'])}" for node, found in files.items() if found["unseen"]}
    slowest = max(found["seconds"] for found in files.values())
    return "shared files", "NOT SEEN by all" if unseen else f"seen by all within {slowest:.2f} s", _notes(unseen)


def _clocks(entries: Sequence[Entry]) -> Row:
    clocks = {str(entry["node"]): entry["clock"] for entry in entries if "clock" in entry}
    if not clocks:
        return "clocks", "not examined", ""
    offsets = [clock["offset"] for clock in clocks.values()]
    doubt = max(clock["rtt"] for clock in clocks.values()) / 2
    result = "one clock" if len(clocks) == 1 else f"within {max(offsets) - min(offsets):.4f} s (+-{doubt:.4f} s)"
    return "clocks", result, _notes({node: f"{clock['offset']:+.4f} s" for node, clock in clocks.items()}) if len(clocks) > 1 else ""


def _room(entries: Sequence[Entry], key: str, what: str) -> Row:
    free = {str(entry["node"]): entry["host"][key] / GIB for entry in entries if key in entry.get("host", {})}
    if not free:
        return what, "not examined", ""
    return what, f"{min(free.values()):.1f} GiB free at least", _notes({node: f"{size:.1f}" for node, size in free.items()})


def _by_node(entries: Iterable[Entry], check: str, show: Callable[[Mapping[str, Any]], str]) -> dict[str, str]:
    """What the processes of each node have to say, in one phrase a node."""
    said: dict[str, dict[str, None]] = {}
    for entry in entries:
        found = entry.get(check)
        if found:
            said.setdefault(str(entry["node"]), {})[f"ERROR {found['error']}" if "error" in found else show(found)] = None
    return {node: " ".join(phrases) for node, phrases in said.items()}


def _notes(by_node: Mapping[str, str]) -> str:
    shown = [f"{node} {text}" for node, text in list(by_node.items())[:MOST_NODES]]
    rest = len(by_node) - len(shown)
    return ", ".join(shown) + (f", and {rest} more" if rest > 0 else "")

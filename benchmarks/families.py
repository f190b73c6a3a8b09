"""Scripts of six families that know nothing of the launcher, under `script=`: on this machine with two processes to the end, stopped three
times and resumed; on a SLURM cluster with 2 nodes x 2 processes, preempted three times and met by a time limit three times.

python benchmarks/families.py                                          # all; 30 min, of which the cluster must be nobody else's
python benchmarks/families.py --families DDP --modes local,stopped
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import carried
from carried import FAMILIES, MODES, Carried
from measure import load, machine, names_of, one_line, table, versions
from peers import conditions

PACKAGES = ("torch", "accelerate", "transformers", "lightning", "deepspeed")
RECORD = Path(__file__).with_name("results") / "families.json"


def main() -> int:
    options = _options()
    record: dict[str, Any] = json.loads(options.json.read_text()) if options.json.is_file() else {"runs": []}
    families = []
    for name in options.families:
        if missing := FAMILIES[name].missing():
            print(f"{name}: skipped: pip install {missing}")
        else:
            families.append(name)
    record["versions"], record["machine"] = _versions(), machine()
    for mode in options.modes:
        on_cluster = "cluster=slurm" in MODES[mode].on
        if on_cluster and (problem := conditions.usable()):
            print(f"{mode}: skipped: {problem}")
            continue
        for turn in range(options.repeat):
            groups = [families] if on_cluster else [[name] for name in families]
            for group in groups:
                _carry(mode, [Carried(name, mode, turn, options.scratch.resolve()) for name in group], record)
                options.json.parent.mkdir(exist_ok=True)
                options.json.write_text(json.dumps(record, indent=1) + "\n")
    print(f"\n{one_line(record['versions'])}\n{one_line(record['machine'])}; load {load()}\n")
    print(_table(record["runs"]))
    return int(any(not _is_right(run) for run in record["runs"]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", type=names_of(FAMILIES), default=list(FAMILIES), help=",".join(FAMILIES))
    parser.add_argument("--modes", type=names_of(MODES), default=list(MODES), help=",".join(MODES))
    parser.add_argument("--repeat", type=int, default=1, help="runs of each cell")
    parser.add_argument("--scratch", type=Path, default=conditions.scratch_default() / "families", help="seen by all nodes")
    parser.add_argument("--json", type=Path, default=RECORD, help="the record; cells that are not run again stay in it")
    return parser.parse_args()


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    done = subprocess.run(["sbatch", "--version"], capture_output=True, text=True, check=False) if conditions.usable() == "" else None
    return {**versions(), **found, **({"slurm": done.stdout.split()[-1]} if done and done.stdout else {})}


def _carry(mode: str, runs: list[Carried], record: dict[str, Any]) -> None:
    {
        "local": lambda: carried.alone(runs[0]),
        "stopped": lambda: carried.stopped(runs[0]),
        "preempted": lambda: carried.preempted(runs),
        "time limit": lambda: carried.limited(runs),
    }[mode]()
    for run in runs:
        outcome = run.outcome().as_dict()
        _compare(outcome, record["runs"])
        cell = {key: outcome[key] for key in ("family", "mode", "turn")}
        others = [each for each in record["runs"] if any(each[key] != value for key, value in cell.items())]
        order = [(family, mode) for family in FAMILIES for mode in MODES]
        record["runs"] = sorted([*others, outcome], key=lambda each: (order.index((each["family"], each["mode"])), each["turn"]))
        print(f"{run.family:18} {run.mode:12} {_cell(outcome)} ({outcome['seconds']:.0f} s)", flush=True)


def _compare(outcome: dict[str, Any], runs: list[dict[str, Any]]) -> None:
    """Of one that was stopped: how many losses are those of the run that was left alone, to the digits that are printed."""
    if outcome["mode"] == "local":
        return
    losses = str(outcome.pop("losses")).split()
    same = {key: outcome[key] for key in ("family", "asked")} | {"mode": "local"}
    if alone := next((run for run in runs if all(run[key] == value for key, value in same.items())), None):
        outcome["equal"] = sum(one == other for one, other in zip(losses, alone["losses"].split(), strict=False))


def _is_right(run: dict[str, Any]) -> bool:
    return run["state"] == "done" and run["done"] == run["asked"]


def _cell(run: dict[str, Any]) -> str:
    steps = f"{run['done']}/{run['asked']}"
    told = steps if _is_right(run) else f"**{steps}, {run['state']}**"
    told += f" in {run['attempts']} attempts" if run["mode"] != "local" else ""
    told += f", {run['equal']} losses equal" if "equal" in run else ""
    return told + (f", {run['again']} again" if run["again"] else "")


def _table(runs: list[dict[str, Any]]) -> str:
    """Steps done of those asked, attempts, steps that were trained twice; several turns side by side."""
    rows = [["", *MODES]]
    for family in FAMILIES:
        if any(run["family"] == family for run in runs):
            rows.append([family, *(_turns([run for run in runs if (run["family"], run["mode"]) == (family, mode)]) for mode in MODES)])
    return table(rows)


def _turns(runs: list[dict[str, Any]]) -> str:
    return "; ".join(_cell(run) for run in runs) or "not run"


if __name__ == "__main__":
    sys.exit(main())

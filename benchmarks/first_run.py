"""The first run on a cluster: how often the first command is enough. This launcher beside three others, on slurm/devcluster.

python benchmarks/first_run.py                                        # all; 2 h, and the cluster must be nobody else's meanwhile
python benchmarks/first_run.py --peers launcher,torchx --conditions plain
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure import load, machine, names_of, one_line, table
from peers import conditions, trial
from peers.conditions import CONDITIONS
from peers.contenders import CONTENDERS

from launcher import __version__

PACKAGES = (
    "torchx==0.7.0",
    "hydra-core==1.3.8",
    "hydra-submitit-launcher==1.2.0",
    "submitit==1.5.4",
    "accelerate==1.15.0",
    "torch==2.13.0",
    "numpy==2.4.6",
    "transformers==5.24.0",
    "lightning==2.6.6",
)
RECORD = Path(__file__).with_name("results") / "first_run.json"


def main() -> int:
    options = _options()
    if problem := conditions.usable():
        print(f"first_run: skipped: {problem}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of every `finally`: the cluster is left as it was found
    scratch = options.scratch.resolve()
    environment = _environment(scratch / "venv") if set(options.peers) != {"launcher"} else scratch / "venv"
    record = _record(environment, options.json, conditions.accounting())
    options.json.parent.mkdir(exist_ok=True)
    for name in options.conditions:
        for peer in options.peers:
            for turn in range(options.repeat):
                place = scratch / "trials" / f"{peer}-{name}-{turn}".replace(" ", "_").replace(",", "")
                outcome = trial.run(CONTENDERS[peer], CONDITIONS[name], place, environment)
                _tell(outcome)
                _keep(record, outcome, turn)
                options.json.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    print(f"\n{one_line(record['versions'])}\n{one_line(record['machine'])}; load {load()}\n")
    print(_table(record["runs"]))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=names_of(CONTENDERS), default=list(CONTENDERS), help=",".join(CONTENDERS))
    parser.add_argument("--conditions", type=names_of(CONDITIONS), default=list(CONDITIONS), help=",".join(CONDITIONS))
    parser.add_argument("--repeat", type=int, default=1, help="runs of each cell")
    parser.add_argument("--scratch", type=Path, default=conditions.scratch_default(), help="seen by all nodes; not below /tmp")
    parser.add_argument("--json", type=Path, default=RECORD, help="the record; cells that are not run again stay in it")
    return parser.parse_args()


def _environment(place: Path) -> Path:
    """The peers' packages, in versions that are pinned here, away from this project's own."""
    pip = place / "bin/pip"
    if not pip.exists():
        venv.create(place, with_pip=True)
    if any(_versions(place).get(name, "").partition("+")[0] != version for name, _, version in (p.partition("==") for p in PACKAGES)):
        subprocess.run([pip, "install", "--quiet", *PACKAGES], check=True)
    return place


def _record(environment: Path, path: Path, accounting: bool) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"runs": []}
    record["versions"] = {**_versions(environment), "slurm": conditions.slurm_version(), "launcher": __version__}
    record["machine"] = machine()
    record["accounting database"] = accounting
    return record


def _versions(environment: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for information in sorted(environment.glob("lib/python3*/site-packages/*.dist-info")):
        name, _, version = information.name.removesuffix(".dist-info").rpartition("-")
        if name.replace("_", "-") in {package.partition("==")[0] for package in PACKAGES}:
            found[name.replace("_", "-")] = version
    return found


def _keep(record: dict[str, Any], outcome: trial.Outcome, turn: int) -> None:
    cell = {"contender": outcome.contender, "condition": outcome.condition, "turn": turn}
    others = [run for run in record["runs"] if any(run[key] != value for key, value in cell.items())]
    order = [(condition, contender) for condition in CONDITIONS for contender in CONTENDERS]
    runs = [*others, {**cell, **outcome.as_dict()}]
    record["runs"] = sorted(runs, key=lambda run: (order.index((run["condition"], run["contender"])), run["turn"]))


def _tell(outcome: trial.Outcome) -> None:
    print(f"{outcome.condition:24} {outcome.contender:20} {outcome.cell} ({outcome.members}, {outcome.seconds:.0f} s)", flush=True)


def _table(runs: list[dict[str, Any]]) -> str:
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        cells.setdefault((run["condition"], run["contender"]), []).append(run)
    contenders = [name for name in CONTENDERS if any(name == contender for _, contender in cells)]
    rows = [["", *contenders]]
    for condition in CONDITIONS:
        if any(condition == name for name, _ in cells):
            rows.append([condition, *(_cell(cells.get((condition, name), [])) for name in contenders)])
    return table(rows)


def _cell(runs: list[dict[str, Any]]) -> str:
    told = list(dict.fromkeys(run["cell"] for run in runs))
    if len(told) < 2:
        return "".join(told)
    return f"{sum(run['ok'] for run in runs)} of {len(runs)} ok; {'; '.join(cell for cell in told if cell != 'ok')}"


if __name__ == "__main__":
    sys.exit(main())

"""What the verbs that do not train cost beside an empty Hydra app and beside an empty Python, in whole processes.

    python benchmarks/startup.py                            # 25 rounds, about a minute and a half
    python benchmarks/startup.py --against ../older         # and beside the same verbs of another checkout

`render` and `plan` may cost 1.25 times an empty Hydra app, `--help` 1.3 times and `status`, with 20 runs to show, 3 times `python -c pass`.
Each round starts every contender once, in an order that rotates; the empty app and the empty Python are in it twice, as the control.
A benchmark, not a test: it prints PASS or over, and exits with 0.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import measure
from launcher.rundir.rundir import RunDir

ROOT = Path(__file__).resolve().parent.parent
WARM_UP_ROUNDS = 2
RUNS = 20
EMPTY_HYDRA_APP = """\
import hydra

@hydra.main(config_path=None, **({"version_base": "1.3"} if hydra.__version__ < "1.4" else {}))
def main(config):
    pass

main()
"""
QUIET = ("hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none")
"""As conf/config.yaml has it for ours: no log file, no directory of outputs."""
LAUNCHER = ("-m", "launcher")
BEFORE = " before"
"""Behind the name of a contender that is another checkout's."""
CONTENDERS = {
    "pass": ("-c", "pass"),
    "pass again": ("-c", "pass"),
    "--help": (*LAUNCHER, "--help"),
    "status": (*LAUNCHER, "status"),
    "hydra": ("empty_hydra_app.py", *QUIET),
    "hydra again": ("empty_hydra_app.py", *QUIET),
    "render": (*LAUNCHER, "render", "+exp=cifar"),
    "plan": (*LAUNCHER, "plan", "+exp=cifar"),
}
"""Name -> the arguments of Python."""
COMPARED = {
    "pass again": ("pass", None),
    "--help": ("pass", 1.3),
    "status": ("pass", 3.0),
    "hydra again": ("hydra", None),
    "render": ("hydra", 1.25),
    "plan": ("hydra", 1.25),
}
"""Name -> what it is compared with, and the bound on its share of that one's wall time."""


def start(name: str, folder: Path, environment: dict[str, str]) -> tuple[float, float]:
    """(wall, user + system CPU) seconds of one process from its start to its end. Raises RuntimeError where it fails."""
    argv = [sys.executable, *CONTENDERS[name.removesuffix(BEFORE)]]
    began = time.perf_counter()
    process = subprocess.Popen(argv, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)  # reaped above: Popen must not wait for it again
    if process.returncode != 0:
        raise RuntimeError(f"python {' '.join(CONTENDERS[name])} ended with {process.returncode}")
    return wall, usage.ru_utime + usage.ru_stime


def make_runs(folder: Path, environment: dict[str, str]) -> None:
    """Run directories as training leaves them: two attempts, 500 lines of metrics, three of four done."""
    plan, script = (
        subprocess.run([sys.executable, *CONTENDERS[verb]], cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout
        for verb in ("plan", "render")
    )
    for number in range(RUNS):
        here = RunDir(folder / "runs" / f"cifar{number % 4}" / f"20260101-{number:06d}")
        for attempt in range(2):
            here.attempt(attempt).mkdir(parents=True)
        here.plan.write_text(plan, encoding="utf-8")
        here.script.write_text(script, encoding="utf-8")
        here.lock.touch()
        for attempt in range(2):
            here.log_event("started", attempt=attempt, restart=0, step=0, steps=25_000)
        values = {"loss": 0.123456789, "accuracy": 0.9, "lr": 0.1, "samples": 12_800, "samples_per_second": 1234.5}
        lines = [json.dumps({"step": 50 * line, "split": "train", **values}) for line in range(1, 501)]
        here.metrics.write_text("\n".join(lines) + "\n", encoding="utf-8")
        if number % 4:
            here.summary.write_text(json.dumps({"state": "done", "attempt": 1, "test_accuracy": 0.93}), encoding="utf-8")


def measure_processes(rounds: int, against: Path | None = None) -> dict[str, list[tuple[float, float]]]:
    """(wall, CPU) seconds of each contender's processes, round by round, without the warm-up; of the launcher's in `against` too."""
    ours = [name for name, arguments in CONTENDERS.items() if arguments[: len(LAUNCHER)] == LAUNCHER]
    older = [f"{name}{BEFORE}" for name in ours] if against else []
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in (*CONTENDERS, *older)}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("LAUNCHER_", "HYDRA_"))}
        environment |= {"PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(folder / "state")}  # no runs but those made here
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else our modules are compiled in every process, and the installed ones are not
        environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
        (folder / "empty_hydra_app.py").write_text(EMPTY_HYDRA_APP, encoding="utf-8")
        make_runs(folder, environment)
        for number in range(-WARM_UP_ROUNDS, rounds):
            for name in measure.rotated(list(times), number + WARM_UP_ROUNDS):
                there = {**environment, "PYTHONPATH": str(against)} if name in older else environment
                spent = start(name, folder, there)
                if number >= 0:
                    times[name].append(spent)
    return times


def summarise(times: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    """Medians in ms, and the paired ratios of COMPARED, by wall and by CPU time."""
    result: dict[str, Any] = {}
    for name, spent in times.items():
        wall, cpu = ([1000 * pair[kind] for pair in spent] for kind in (0, 1))
        result[name] = {"wall_ms": measure.bootstrap(wall).median, "cpu_ms": measure.bootstrap(cpu).median}
        base, bound = COMPARED.get(name, (None, None))
        if base is not None:
            base_wall, base_cpu = ([1000 * pair[kind] for pair in times[base]] for kind in (0, 1))
            result[name] |= {"base": base, "bound": bound, "wall": measure.ratios(wall, base_wall), "cpu": measure.ratios(cpu, base_cpu)}
        if name.endswith(BEFORE):
            now_wall, now_cpu = ([1000 * pair[kind] for pair in times[name.removesuffix(BEFORE)]] for kind in (0, 1))
            result[name] |= {"base": "now / before", "wall": measure.ratios(now_wall, wall), "cpu": measure.ratios(now_cpu, cpu)}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25, help="processes of each contender")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another checkout of the launcher, beside this one")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    before = measure.load()
    result = summarise(measure_processes(options.rounds, options.against and options.against.resolve()))
    if options.json:
        print(json.dumps({"n": options.rounds, "machine": measure.machine(), **result}, default=vars))
        return
    print(f"n={options.rounds} processes of each contender, interleaved; {RUNS} runs for status to show")
    print(f"{measure.one_line(measure.machine())}; load before {before}, after {measure.load()}")
    print(measure.one_line(measure.versions("hydra-core", "omegaconf")), end="\n\n")
    rows = [("contender", "wall ms", "CPU ms", "against", "wall ratio [95 %]", "CPU ratio [95 %]", "bound", "")]
    for name, values in result.items():
        compared, bound = "base" in values, values.get("bound")
        verdict = "" if bound is None else "PASS" if values["wall"].median <= bound else "over"
        against = [values["base"], values["wall"].as_ratio(), values["cpu"].as_ratio()] if compared else ["", "1", "1"]
        rows.append((name, f"{values['wall_ms']:.1f}", f"{values['cpu_ms']:.1f}", *against, f"{bound or ''}", verdict))
    print(measure.table(rows))


if __name__ == "__main__":
    main()

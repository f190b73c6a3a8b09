"""The scripts of benchmarks/families as users would run them with `script=`: left alone, stopped, preempted, met by a time limit.

What is counted is read from the logs of rank 0: which steps there are, and how often. Nothing is typed after a job was submitted; of a run
on one machine that a person stopped, `resume` is.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
SCRIPTS = Path(__file__).with_name("families")
TIMES = 3
"""How often a run is stopped, preempted or met by its limit."""
FAR = 20
"""Steps of an attempt before it is disturbed."""
OUT = "${oc.env:LAUNCHER_CHECKPOINT_DIR}"
PROGRESS = r'script.progress="step:? (?P<step>\d+)/(?P<total>\d+) loss:? (?P<loss>\S+)"'
_STEP = re.compile(r"step:? (\d+)/(\d+) loss:? (\S+)")


@dataclass(frozen=True)
class Family:
    script: str
    packages: tuple[str, ...] = ("torch",)
    resume: str = "[--resume]"
    signal: str = "TERM"
    on_nodes: str = ""
    """More words where there are two nodes: what this script has to be told of them."""

    def missing(self) -> str:
        return " ".join(name for name in self.packages if importlib.util.find_spec(name) is None)


FAMILIES = {
    "DDP": Family("ddp.py"),
    "Accelerate": Family("nlp_example.py", ("accelerate", "transformers")),
    "Lightning": Family("mnist.py", ("lightning",), signal="USR1", on_nodes=",--nodes,2"),
    "Trainer": Family("text_trainer.py", ("transformers",)),
    "torchtitan-shaped": Family("titan.py", resume="[]"),
    "DeepSpeed": Family("engine.py", ("deepspeed",)),
}


@dataclass(frozen=True)
class Mode:
    steps: int
    pause: float
    """Seconds that a step takes at least."""
    on: tuple[str, ...]
    patience: int
    """Seconds for one run."""


_LOCAL = ("cluster.processes_per_node=2",)
_SLURM = (
    *("cluster=slurm", "cluster.device=cpu", "cluster.nodes=2", "cluster.processes_per_node=2", "cluster.cpus_per_process=1"),
    "cluster.shared_filesystem=true",
)
MODES = {
    "local": Mode(200, 0.02, _LOCAL, 200),
    "stopped": Mode(200, 0.1, _LOCAL, 300),
    "preempted": Mode(1200, 0.1, (*_SLURM, "cluster.time=30:00"), 900),
    "time limit": Mode(1200, 0.15, (*_SLURM, "cluster.time=2:00", "cluster.warning=20"), 1800),
}


@dataclass
class Outcome:
    family: str
    mode: str
    turn: int
    state: str
    asked: int
    done: int
    """Different steps that rank 0 tells of."""
    again: int
    """Steps that were trained more than once."""
    attempts: int
    disturbed: int
    seconds: float
    losses: str
    """In the order of steps."""

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


class Carried:
    """One run of a family."""

    def __init__(self, family: str, mode: str, turn: int, scratch: Path) -> None:
        self.family, self.mode, self.turn = family, mode, turn
        self._family, self._mode = FAMILIES[family], MODES[mode]
        self.home = scratch / f"{self._family.script.removesuffix('.py')}-{mode.replace(' ', '-')}-{turn}"
        self.run = self.home / "runs" / self._family.script.removesuffix(".py") / "a"
        self.begun = time.monotonic()
        self.disturbed = 0
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True)

    def words(self) -> list[str]:
        more = self._family.on_nodes if "cluster=slurm" in self._mode.on else ""
        args = f"[--steps,{self._mode.steps},--pause,{self._mode.pause},--output-dir,'{OUT}'{more}]"
        return [
            *(f"script={SCRIPTS / self._family.script}", f"script.args={args}", f"script.resume_args={self._family.resume}"),
            *(f"script.stop_signal={self._family.signal}", PROGRESS, "id=a", *self._mode.on),
        ]

    def start(self, words: Sequence[str]) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        environment["XDG_STATE_HOME"] = str(self.home / "state")
        with (self.home / "launcher.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "launcher", *words],
                cwd=self.home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )

    def steps(self, attempt: int | None = None) -> list[tuple[int, str]]:
        """Steps and losses that rank 0 has told, of one attempt or of all."""
        logs = sorted(self.run.glob("attempts/[0-9]*/rank_0.log" if attempt is None else f"attempts/{attempt:03d}/rank_0.log"))
        return [(int(step), loss) for log in logs for step, _, loss in _STEP.findall(log.read_text(errors="replace"))]

    def requeued(self, word: str) -> int:
        return sum(event["event"] == "requeued" and word in str(event.get("reason")) for event in self._events())

    def attempt(self) -> int:
        return max((int(path.name) for path in self.run.glob("attempts/[0-9]*")), default=0)

    def summary(self) -> dict[str, object]:
        try:
            return json.loads((self.run / "summary.json").read_text())
        except (OSError, ValueError):
            return {}

    def is_over(self) -> bool:
        """Done, or ended so that nobody goes on with it."""
        last = self._events()[-1:]
        ended = bool(last) and last[0]["event"] in ("failed", "stuck")
        return self.summary().get("state") == "done" or ended or time.monotonic() - self.begun > self._mode.patience

    def outcome(self) -> Outcome:
        counted = Counter(step for step, _ in self.steps())
        state = str(self.summary().get("state", "no end"))
        again = sum(count - 1 for count in counted.values())
        done = len(set(counted) & set(range(1, self._mode.steps + 1)))
        spent = time.monotonic() - self.begun
        losses = " ".join(loss for _, loss in sorted(dict(self.steps()).items()))
        return Outcome(
            self.family,
            self.mode,
            self.turn,
            state,
            self._mode.steps,
            done,
            again,
            self.attempt() + 1,
            self.disturbed,
            round(spent, 1),
            losses,
        )

    def _events(self) -> list[dict[str, object]]:
        try:
            return [json.loads(line) for line in (self.run / "events.jsonl").read_text().splitlines(keepends=True) if line.endswith("\n")]
        except (OSError, ValueError):
            return []


def alone(run: Carried) -> None:
    _wait(run.start(run.words()), run)


def stopped(run: Carried) -> None:
    """Three times by a person: Ctrl-C, TERM, Ctrl-C; and `resume`."""
    words = run.words()
    for time_of in range(TIMES):
        process = run.start(words)
        _until(lambda attempt=time_of, process=process: len(run.steps(attempt)) >= FAR or process.poll() is not None, run)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM if time_of == 1 else signal.SIGINT)
            run.disturbed += 1
        _wait(process, run)
        words = ["resume", str(run.run)]
    _wait(run.start(words), run)


def submitted(runs: Sequence[Carried]) -> None:
    for run in runs:
        _wait(run.start(run.words()), run)


def preempted(runs: Sequence[Carried]) -> None:
    """Three times a job with priority takes all nodes for a moment, when each run has come some steps further."""
    submitted(runs)
    for count in range(TIMES):
        for run in runs:
            _until(lambda run=run, count=count: run.is_over() or (len(run.steps(run.attempt())) >= FAR and run.attempt() >= count), run)
        wish = ["--partition=urgent", "--nodes=3", "--exclusive", "--time=1", "--output=/dev/null", "--wrap=sleep 1"]
        subprocess.run(["sbatch", *wish], check=True, capture_output=True, cwd=runs[0].home)
        for run in runs:
            _until(lambda run=run, count=count: run.is_over() or run.attempt() > count, run)
    for run in runs:
        _until(run.is_over, run)
        run.disturbed = min(TIMES, run.attempt())


def limited(runs: Sequence[Carried]) -> None:
    submitted(runs)
    for run in runs:
        _until(run.is_over, run)
        run.disturbed = run.requeued("limit")


def _until(condition: Callable[[], bool], run: Carried) -> None:
    while not condition() and time.monotonic() - run.begun < MODES[run.mode].patience:
        time.sleep(0.5)


def _wait(process: subprocess.Popen[bytes], run: Carried) -> None:
    try:
        process.wait(max(1.0, MODES[run.mode].patience - (time.monotonic() - run.begun)))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

"""The scripts of benchmarks/families under each contender: what is typed, what has to be written besides, whether they ended well.

None of them is changed for anybody. Each is always told to resume: whoever starts a job again starts it with the same words.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

FAMILIES = Path(__file__).resolve().parents[1] / "families"
STEPS = 300
"""Of a tenth of a second: long enough to be preempted."""
_WORDS = ("--steps", str(STEPS), "--pause", "0.1", "--output-dir", "out")
_LOGS = ("runs/*/*/attempts/[0-9]*/rank_*.log", "slurm-*.out", "O-*", "logs/*_log.out")
_LAST = re.compile(rf"step:? {STEPS}/{STEPS} ")


def copy(directory: Path) -> None:
    for path in FAMILIES.glob("*.py"):
        shutil.copy(path, directory)


def words(script: str) -> list[str]:
    resume = [] if script == "titan.py" else ["--resume"]
    return [*_WORDS, *resume, *(["--nodes", "2"] if script == "mnist.py" else [])]


def results(directory: Path) -> list[bool]:
    """One that is right where one process tells of the last step; where several do, each has trained a model of its own."""
    texts = [path.read_text(errors="replace") for pattern in _LOGS for path in directory.glob(pattern)]
    told = sum(len(_LAST.findall(text)) for text in texts)
    return [told == 1] if told else []


def own(script: str, minutes: int) -> list[str]:
    listed = ",".join(word for word in words(script) if word != "--resume")
    return [
        *("python", "-m", "launcher", f"script={script}", f"script.args=[{listed}]", "cluster=slurm", "cluster.nodes=2"),
        *([] if script == "titan.py" else ["script.resume_args=[--resume]"]),
        *(["script.stop_signal=USR1"] if script == "mnist.py" else []),
        *("cluster.processes_per_node=2", "cluster.device=cpu", "cluster.cpus_per_process=1", f"cluster.time={minutes}:00"),
        "cluster.shared_filesystem=true",
    ]


def torchx(script: str, minutes: int) -> list[str]:
    return [
        *("torchx", "run", "-s", "slurm", "-cfg", f"partition=batch,time={minutes}", "dist.ddp", "-j", "2x2", "--max_retries", "3"),
        *("--script", script, "--", *words(script)),
    ]


def submitit(script: str, minutes: int) -> list[str]:
    return ["python", "submit_script.py", str(minutes), script, *words(script)]


def accelerate(script: str, minutes: int) -> list[str]:
    """The published job script with another program in it."""
    told = f"s|train_accelerate.py|{script}|; s|[$]{{ACCELERATE_DIR}}/out/member-[^ ]*|{shlex.join(words(script))}|"
    return ["bash", "-c", f"sed {shlex.quote(told)} submit_multinode.sh >mine.sh && sbatch --time={minutes} mine.sh"]

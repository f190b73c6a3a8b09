"""Bad input and hostile strings before a real SLURM: refused in one line and nothing queued, or carried byte for byte and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from batch_jobs import ON_SLURM, Batch, gone_within
from devcluster import DevCluster
from helpers import Answer, records, refused
from test_shell import HOSTILE
from test_slurm_hostile import quoted

Command = Callable[..., Answer]
pytestmark = [pytest.mark.slurm, pytest.mark.timeout(240)]

HELD = "+cluster.sbatch.hold=true"


@pytest.fixture
def cluster(
    devcluster: DevCluster, tmp_path: Path, batch: Batch, monkeypatch: pytest.MonkeyPatch, command: Command
) -> Iterator[DevCluster]:
    """For `command`. At the end nothing of this test is left: no job, no process."""
    for name, value in devcluster.env.items():
        monkeypatch.setenv(name, value)
    yield devcluster
    devcluster.cancel(*devcluster.jobs_below(tmp_path))
    gone_within(batch.processes, 20)


@pytest.fixture
def words(toy_words: tuple[str, ...]) -> tuple[str, ...]:
    return (*toy_words, *ON_SLURM)


# ---------------------------------------------------------------- refused

NO_SUCH = "sbatch refused: allocation failure: "
CANNOT = "Requested node configuration is not available"
REFUSED = (
    (("cluster.partition=shrt",), "cluster.partition=shrt: no such partition; did you mean short?; there are batch, urgent, short"),
    (("cluster.nodes=4",), "cluster.nodes=4 is more than partition batch gives a job (3); type at most that"),
    (("cluster.nodes=2", "cluster.partition=short"), "cluster.nodes=2 is more than partition short gives a job (1)"),
    (
        ("cluster.partition=short", "cluster.time=11:00"),
        "cluster.time=11:00 is more than partition short allows (00:10:00); type cluster.time=",
    ),
    (("cluster.device=cuda", "cluster.processes_per_node=5", "train.batch_size=60"), CANNOT),
    (("cluster.device=cuda", "cluster.gpu_type=h100"), CANNOT),
    (("cluster.device=cuda", "cluster.gpu_request=gres", "cluster.gpu_type=h100"), CANNOT),
    (("+cluster.sbatch.gres=lustre:1",), "sbatch refused: Invalid generic resource (gres) specification"),
    (("cluster.memory=65G",), CANNOT),
    (("cluster.memory=193G",), "cluster.memory=193G is more than partition batch has for a node (196608M)"),
    (("cluster.cpus_per_process=17",), CANNOT),
    (("cluster.cpus_per_process=49",), "cluster.cpus_per_process: 1 node x 49 CPUs is more than partition batch has in all (48)"),
    (("cluster.constraint=fast",), f"{NO_SUCH}Invalid feature specification"),
    (("cluster.exclude=node9",), f"{NO_SUCH}Invalid node name specified"),
    (("+cluster.sbatch.reservation=mine",), f"{NO_SUCH}Requested reservation is invalid"),
    (("+cluster.sbatch.dependency=never",), f"{NO_SUCH}Job dependency problem"),
    (("+cluster.sbatch.begin=someday",), "sbatch refused: Invalid time specification (pos=0): someday; Invalid --begin specification"),
    ((f"+cluster.sbatch.comment={'x' * 2000}",), f"{NO_SUCH}Pathname of a file, directory or other parameter too long"),
    (("+cluster.sbatch.comment=true",), "option '--comment' requires an argument"),
)


@pytest.mark.parametrize(("row", "part"), REFUSED, ids=lambda value: value[-1][-40:] if isinstance(value, tuple) else "")
def test_what_the_cluster_cannot_give_is_one_line(
    row: tuple[str, ...], part: str, command: Command, words: tuple[str, ...], cluster: DevCluster, tmp_path: Path
) -> None:
    refused(command(*words, *row), 4, part)
    assert cluster.jobs_below(tmp_path) == []
    assert list((tmp_path / "runs").glob("*")) == []


def test_no_controller(batch: Batch, cluster: DevCluster, tmp_path: Path) -> None:
    cluster.controller("stop")
    try:
        done = batch(*batch.words, "id=kept", HELD)
    finally:
        cluster.controller("start")
    run = tmp_path / "runs" / "toy" / "kept"
    answer = Answer(done.returncode, done.stdout, done.stderr)
    refused(
        answer,
        4,
        "Unable to contact slurm controller (connect failure)",
        f"the script is kept in {run}",
        f"python -m launcher resume {run}",
    )
    assert cluster.jobs_below(tmp_path) == []
    assert batch("resume", "kept").returncode == 0
    assert cluster.jobs_below(tmp_path) == [batch.job(run)]
    done = batch("resume", "kept")
    refused(Answer(done.returncode, done.stdout, done.stderr), 3, f"is pending as job {batch.job(run)} already")


# ---------------------------------------------------------------- carried

TEXTS = [text for text in HOSTILE if text and "/" not in text]


def shown(cluster: DevCluster, job: str) -> dict[str, str]:
    """`scontrol show job`: the fields that stand on a line of their own, and JobName."""
    text = cluster.slurm("scontrol", "show", "job", job)
    found = dict(line.removeprefix("   ").partition("=")[::2] for line in text.split("\n"))
    return {**found, "JobName": text.split("\n")[0].partition(" JobName=")[2]}


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_a_hostile_text_arrives_byte_for_byte(
    text: str, command: Command, words: tuple[str, ...], cluster: DevCluster, tmp_path: Path
) -> None:
    carried = text not in ("\t", "\x01", "\x7f")  # those only as a path
    comment = (f"+cluster.sbatch.comment={quoted(text)}",) if carried else ()
    answer = command(*words, "id=A-z_0.9", HELD, f"runs_dir={quoted(f'{tmp_path}/{text}/-x')}", *comment)
    assert (answer.code, answer.err) == (0, "")
    run = tmp_path / text / "-x" / "toy" / "A-z_0.9"  # what is printed shows control characters by their number
    (job,) = (str(event["job"]) for event in records(run / "events.jsonl") if event["event"] == "queued")
    found = shown(cluster, job)
    assert found["JobName"] == "toy.A-z_0.9"
    assert found.get("Comment", " ").removesuffix(" ") == (text if carried else "")  # scontrol puts one behind it
    assert (found["WorkDir"], found["Command"]) == (str(run), f"{run}/job.sh")
    if "%" not in text:  # scontrol shows what a pattern would make of it; test_runs_in_hostile_places shows what is made of it
        assert found["StdOut"] == (f"{run}/job.log" if "\\" not in text else str(run).replace("\\", "\\\\") + "/\\job.log")
    refused(command("resume", str(run)), 3, f"is pending as job {job} already")


NASTY = ("a b'\"; touch x; $(touch x) `touch x` é", "%x %j %A $SLURM_JOB_ID \\")
KNOWN = {
    "attempts",
    "checkpoints",
    "code",
    "config.yaml",
    "events.jsonl",
    "job.log",
    "job.sh",
    "metrics.jsonl",
    "plan.json",
    "summary.json",
    "tb",
}


def test_runs_in_hostile_places_train_to_the_end(batch: Batch, cluster: DevCluster, environment: dict[str, str], tmp_path: Path) -> None:
    runs: list[Path] = []
    for text in NASTY:
        where = tmp_path / text / "-rf"
        where.mkdir(parents=True)
        done = subprocess.run(
            [sys.executable, "-m", "launcher", *batch.words, "runs_dir=runs", "train.steps=2", f"+cluster.env.HOSTILE={quoted(text)}"],
            cwd=where,
            env={**environment, **cluster.env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        runs.append(Path(done.stdout.splitlines()[-1]))
        assert runs[-1].parent == where / "runs" / "toy"
    before = {path for path in tmp_path.rglob("*") if not any(path.is_relative_to(run) for run in runs)}
    for run in runs:
        batch.wait_until_over(run)
        log = (run / "job.log").read_text()
        assert json.loads((run / "summary.json").read_text())["state"] == "done", log
        assert {path.name for path in run.iterdir() if not path.name.startswith(".")} <= KNOWN
    after = {path for path in tmp_path.rglob("*") if not any(path.is_relative_to(run) for run in runs)}
    assert after - before == set()

"""What a site sets for sbatch in every login shell counts where the plan leaves it open, and nothing of an outer job does."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_slurm import FakeSlurm
from helpers import Command, refused, run_dir

from launcher.clusters.slurm import site

OPEN = {"SBATCH_ACCOUNT": "lab", "SBATCH_QOS": "long", "SBATCH_RESERVATION": "course", "SBATCH_WCKEY": "k", "SBATCH_CONSTRAINT": "a100"}
OURS = {
    "SBATCH_TIMELIMIT": "1",
    "SBATCH_EXPORT": "NONE",
    "SBATCH_OUTPUT": "x",
    "SBATCH_JOB_NAME": "x",
    "SBATCH_ARRAY_INX": "1-9",
    "SBATCH_NO_REQUEUE": "1",
    "SBATCH_WAIT": "1",
    "SBATCH_SIGNAL": "USR1",
}
NEVER = {"SQUEUE_FORMAT": "%i", "SQUEUE_STATES": "RUNNING", "SLURM_TIME_FORMAT": "%s", "SLURM_EXIT_ERROR": "0", "SLURM_JOB_NAME": "x"}


@pytest.fixture(autouse=True)
def _nothing_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "_told", set())


def _set(monkeypatch: pytest.MonkeyPatch, *variables: dict[str, str]) -> None:
    for each in variables:
        for name, value in each.items():
            monkeypatch.setenv(name, value)


def _seen(fake: FakeSlurm) -> dict[str, str]:
    return {name: value for name, value in fake.environment.items() if name.startswith(("SBATCH_", "SLURM_", "SQUEUE_"))}


def test_what_the_plan_leaves_open_is_the_sites(
    command: Command,
    on_slurm: tuple[str, ...],
    fake: FakeSlurm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _set(monkeypatch, OPEN, OURS, NEVER, {"SLURM_CONF": "/etc/slurm.conf"})
    answer = command(*on_slurm, "cluster.qos=mine")
    assert answer.code == 0
    wanted = {name: value for name, value in OPEN.items() if name != "SBATCH_QOS"} | {"SLURM_CONF": "/etc/slurm.conf"}
    assert _seen(fake) == wanted
    for name in (*OURS, "SBATCH_QOS"):
        assert answer.err.count(f"launcher: warning: {name} of the environment is not used") == 1
    assert "#SBATCH --qos=mine" in (run_dir(answer) / "job.sh").read_text()
    answer = command("resume", str(run_dir(answer)))
    assert "already" in answer.err, "the queue is read as ever, whatever SQUEUE_FORMAT says"


def test_inside_a_job_it_is_nobodys_and_one_line_says_so(
    command: Command, on_slurm: tuple[str, ...], fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    _set(monkeypatch, OPEN, NEVER, {"SLURM_JOB_ID": "7", "SLURM_CLUSTERS": "far", "SLURM_CPU_BIND": "none"})
    answer = command(*on_slurm)
    assert answer.code == 0
    assert _seen(fake) == {}
    assert "--clusters=far" not in fake.calls[-1]
    names = ", ".join(sorted(OPEN))
    told = (
        f"launcher: warning: typed inside job 7; "
        f"the new job takes nothing from it, nor from {names}, which may be that job's (cluster.inside=true runs in it)\n"
    )
    assert answer.err == told
    monkeypatch.setattr(site, "_told", set())
    assert command(*on_slurm, "-m", "seed=1,2").err.count(told) == 1


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("SLURM_CPU_BIND", "+cluster.srun.cpu-bind=…"),
        ("SLURM_MPI_TYPE", "+cluster.srun.mpi=…"),
        ("SRUN_EXPORT_ENV", "cluster.env.NAME=…"),
        ("SLURM_HINT", "+cluster.sbatch.hint=…"),
        ("SLURM_WAIT", "+cluster.srun.wait=…"),
        ("SLURM_ACCOUNT", "cluster.account=…"),
        ("SLURM_NTASKS", "cluster.processes_per_node=…"),
        ("SLURM_CONF", ""),
        ("SLURM_TIME_FORMAT", ""),
        ("SLURM_ROOT", ""),
    ],
)
def test_what_srun_would_read_in_a_job_is_not_taken_there_and_said_once(
    name: str, instead: str, command: Command, on_slurm: tuple[str, ...], fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "1")
    answer = command(*on_slurm)
    assert answer.code == 0
    assert (name in _seen(fake)) == (name == "SLURM_CONF")
    said = f"launcher: warning: {name} of the environment is not used: a job takes none that are srun's; type {instead}\n"
    assert answer.err == (said if instead else "")


@pytest.mark.parametrize(
    ("script", "name", "taken"),
    [
        ("#SBATCH --mem=4G\n", "SBATCH_MEM_PER_CPU", False),
        ("#SBATCH --mem=4G\n", "SBATCH_MEM_PER_NODE", False),
        ("", "SBATCH_MEM_PER_NODE", True),
        ("#SBATCH --gres=gpu:4\n", "SBATCH_GPUS_PER_NODE", False),
        ("#SBATCH --gpus-per-node=4\n", "SBATCH_GRES", False),
        ("#SBATCH --partition=a\n", "SBATCH_PARTITION", False),
        ("", "SBATCH_PARTITION", True),
        ("#SBATCH --cpus-per-task=4\n", "SBATCH_CPUS_PER_GPU", False),
        ("#SBATCH --cpus-per-task=4\n", "SBATCH_TRES_PER_TASK", False),
        ("#SBATCH --gpus-per-node=4\n", "SBATCH_GPUS_PER_SOCKET", False),
        ("#SBATCH --bb=a\n", "SBATCH_BURST_BUFFER", False),
        ("#SBATCH --cpu-freq=high\n", "SBATCH_CPU_FREQ_REQ", False),
        ("#SBATCH --reservation=a\n", "SBATCH_RESERVATION", False),
        ("#SBATCH --switches=1\n", "SBATCH_REQ_SWITCH", False),
        ("", "SBATCH_OF_A_LATER_VERSION", True),
        ("echo '#SBATCH --account=x'\n", "SBATCH_ACCOUNT", True),
    ],
)
def test_the_plan_wins(script: str, name: str, taken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv(name, "1")
    assert (name in site.environment(script)) is taken


def test_the_partition_of_the_site_is_the_one_that_is_checked(
    command: Command,
    on_slurm: tuple[str, ...],
    fake: FakeSlurm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SBATCH_PARTITION", "nope")
    assert "cluster.partition=nope: no such partition" in command(*on_slurm).err
    monkeypatch.setenv("SBATCH_PARTITION", "batch")
    assert command(*on_slurm).code == 0
    assert _seen(fake) == {"SBATCH_PARTITION": "batch"}


@pytest.mark.parametrize(
    "says",
    [
        "allocation failure: Required partition not available (inactive or drain)",
        "allocation failure: Requested reservation is not usable now",
        "allocation failure: Requested nodes are busy",
        "allocation failure: Requested partition configuration not available now",
        "allocation failure: Partition in DOWN state",
        "allocation failure: Required node not available (down, drained or reserved)",
        "allocation failure: Job is in held state, pending scheduler release",
        "allocation failure: Requested account has breached requested QOS usage threshold",
    ],
)
def test_what_sbatch_takes_is_not_refused_for_what_test_only_says(
    says: str,
    command: Command,
    on_slurm: tuple[str, ...],
    fake: FakeSlurm,
) -> None:
    fake.test_only(f"fail '{says}'")
    answer = command(*on_slurm)
    assert answer.code == 0
    assert f"estimated start unknown: {says}" in answer.out
    assert [Path(place).name for place in fake.submitted] == ["job.sh"]
    fake.sbatch(f"fail 'sbatch: error: Batch job submission failed: {says}'")
    refused(command(*on_slurm, "id=b"), 4, f"sbatch refused: Batch job submission failed: {says}")
    assert not list(Path(fake.home.parent, "runs").glob("*/b"))

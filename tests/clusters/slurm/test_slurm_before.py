"""What is asked and done before sbatch: the place, the prelude, the partition, the data, and an environment without an outer job."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm
from helpers import ON_SLURM, Command, refused, run_dir

from launcher.clusters import submit
from launcher.clusters.slurm import batch, site
from launcher.errors import ConfigError


def test_what_can_be_known_before_is_refused_before(
    command: Command, toy_words: tuple[str, ...], fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = (*toy_words, *ON_SLURM)
    vouched = (*here, "cluster.shared_filesystem=true")
    refused(command(*here), 2, f"runs_dir: {tmp_path}/runs/toy/", "is on this machine alone", "or type cluster.shared_filesystem=true")
    refused(command(*here, "runs_dir=/dev/shm/x"), 2, "runs_dir: /dev/shm/x/toy/", "is on this machine alone")
    Path("link").symlink_to("/dev/shm")
    refused(command(*here, "runs_dir=link/x"), 2, "runs_dir: /dev/shm/x/toy/")
    assert (batch._file_system("/dev/shm/x"), batch._file_system("/proc/x")) == ("tmpfs", "proc")
    refused(command(*vouched, "cluster.prelude=nope.sh"), 2, "cluster.prelude=nope.sh is no file; type the path of a shell script, or null")
    refused(command(*vouched, f"cluster.prelude={tmp_path}"), 2, "is no file")
    refused(
        command(*vouched, "cluster.partition=btch"), 4, "cluster.partition=btch: no such partition; did you mean batch?; there are batch"
    )
    refused(command(*vouched, "cluster.nodes=5", "train.batch_size=60"), 4, "cluster.nodes=5 is more than partition batch gives a job (4)")
    monkeypatch.setenv("PATH", "/nowhere")
    refused(command(*vouched), 4, "sbatch: not found; type this on a login node of the cluster, or cluster=local")
    monkeypatch.setenv("PATH", str(fake.bin))
    (fake.bin / "sbatch").chmod(0o644)
    refused(command(*vouched), 4, "sbatch: not found")
    (fake.bin / "sbatch").chmod(0o755)
    (fake.bin / "sbatch").write_bytes(b"\x7fELF not for this machine")
    refused(command(*vouched), 4, "sbatch cannot be run (Exec format error)")
    assert fake.calls == []
    fake.nothing_is_left()


def test_data_is_prepared_before_anything_is_submitted(
    command: Command, on_slurm: tuple[str, ...], fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def prepare(node: dict[str, object]) -> submit.Found:
        seen.append(fake.submitted)
        if len(seen) == 1:
            raise ConfigError("data: there is no such data set")
        return submit.Found({"noise": 0.25}, {})

    monkeypatch.setattr(submit, "prepare_data", prepare)
    refused(command(*on_slurm), 2, "data: there is no such data set")
    fake.nothing_is_left()
    run = run_dir(command(*on_slurm))
    assert (seen, len(fake.submitted)) == ([[], []], 1)
    assert "noise: 0.25" in (run / "config.yaml").read_text()  # what was found is what the job reads


def test_a_job_submitted_from_inside_a_job_takes_nothing_from_it(
    command: Command, on_slurm: tuple[str, ...], fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "SLURM_JOB_ID",
        "SLURM_CPU_BIND",
        "SLURM_NTASKS",
        "SBATCH_PARTITION",
        "SBATCH_ACCOUNT",
        "SRUN_CPUS_PER_TASK",
        "SQUEUE_FORMAT",
    ):
        monkeypatch.setenv(name, "9")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    monkeypatch.setenv("MINE", "kept")
    monkeypatch.setattr(site, "_told", set())
    answer = command(*on_slurm)
    assert (answer.code, answer.lines) == (0, [])
    told = (
        "typed inside job 9; the new job takes nothing from it, "
        "nor from SBATCH_ACCOUNT, SBATCH_PARTITION, which may be that job's (cluster.inside=true runs in it)"
    )
    assert answer.err == f"launcher: warning: {told}\n"
    foreign = ("SLURM", "SBATCH", "SRUN", "SQUEUE")
    assert {name: value for name, value in fake.environment.items() if name.startswith(foreign)} == {"SLURM_CONF": "/etc/slurm.conf"}
    assert fake.environment["MINE"] == "kept"


def test_the_prelude_that_runs_is_the_one_that_was_submitted(command: Command, on_slurm: tuple[str, ...], fake: FakeSlurm) -> None:
    Path("site.sh").write_text("module load cuda\n")
    run = run_dir(command(*on_slurm, "cluster.prelude=site.sh"))
    Path("site.sh").write_text("module load nonsense\n")
    assert (run / "prelude" / "site.sh").read_text() == "module load cuda\n"
    assert f" . {shlex.quote(str(run))}/prelude/site.sh\n".replace("'", "") in (run / "job.sh").read_text().replace("'", "")

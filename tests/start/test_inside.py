"""Started as one of several, each process would train the whole run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from devcluster import DevCluster
from helpers import Answer

from launcher.errors import ConfigError
from launcher.start import inside

Command = Callable[..., Answer]

SEVERAL = (
    {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "RANK": "{rank}", "LOCAL_WORLD_SIZE": "2"},
    {"CROSS_RANK": "0", "WORLD_SIZE": "2", "RANK": "{rank}", "LOCAL_SIZE": "2"},
    {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "{rank}"},
    {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "{rank}"},
    {"PMI_SIZE": "2", "PMI_RANK": "{rank}"},
    {"PMIX_RANK": "{rank}", "MPI_LOCALNRANKS": "2"},
)
ONE = (
    {"WORLD_SIZE": "2", "RANK": "1"},
    {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "1", "RANK": "0"},
    {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},
    {"SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "4"},
    {"PMIX_RANK": "0", "PMI_RANK": "0", "PMI_SIZE": "1"},
)


@pytest.mark.parametrize("words", [("+exp=cifar",), ("resume", "cifar"), ("-m", "+exp=cifar", "seed=1,2"), ("drill", "crash")])
@pytest.mark.parametrize("variables", SEVERAL)
def test_of_several_processes_one_says_what_to_type(
    command: Command, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(inside, "PATIENCE_SECONDS", 0)
    for rank in (0, 1):
        for name, value in variables.items():
            monkeypatch.setenv(name, value.format(rank=rank))
        done = command(*words)
        assert done.code == 2
        assert done.err.count("\n") == (rank == 0)
        assert "type python -m launcher +exp=… cluster.processes_per_node=2" in done.err or rank


@pytest.mark.parametrize("variables", ONE)
def test_a_shell_in_a_job_and_variables_left_over_are_no_process_of_several(variables: dict[str, str]) -> None:
    inside.refuse(variables)


def test_several_nodes_are_named() -> None:
    with pytest.raises(ConfigError, match=r"cluster\.nodes=2 cluster\.processes_per_node=4"):
        inside.refuse({"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "8", "RANK": "0", "LOCAL_WORLD_SIZE": "4"})


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=2")


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["run", "drill crash"])
def test_under_torchrun_nothing_trains(
    verb: str, tmp_path: Path, environment: dict[str, str], toy_words: tuple[str, ...], no_process_left: None
) -> None:
    """Also where process 0 is the slower one: torchrun ends it when another has failed."""
    slow = tmp_path / "slow" / "sitecustomize.py"
    slow.parent.mkdir()
    slow.write_text("import os, time\nos.environ.get('RANK') == '0' and time.sleep(2)\n", encoding="utf-8")
    path = f"{slow.parent}:{environment['PYTHONPATH']}"
    argv = [sys.executable, *TORCHRUN, "-m", "launcher", *verb.split(), *toy_words]
    done = subprocess.run(
        argv, cwd=tmp_path, env={**environment, "PYTHONPATH": path}, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode
    assert done.stderr.count("launcher: torchrun has started this 2 times") == 1, done.stderr
    assert "cluster.processes_per_node=2" in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.slurm
@pytest.mark.parametrize("verb", ["run", "drill crash"])
def test_in_a_step_of_srun_nothing_trains(
    verb: str, tmp_path: Path, devcluster: DevCluster, environment: dict[str, str], toy_words: tuple[str, ...], no_process_left: None
) -> None:
    argv = ["srun", "-n2", sys.executable, "-m", "launcher", *verb.split(), *toy_words]
    done = subprocess.run(
        argv,
        cwd=tmp_path,
        env={**environment, **devcluster.env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    said = [line for line in done.stderr.splitlines() if not line.startswith("srun:")]
    assert (done.returncode, done.stdout, len(said)) == (2, "", 1), done.stderr
    assert said[0].startswith("launcher: srun has started this 2 times"), said
    assert not (tmp_path / "runs").exists()

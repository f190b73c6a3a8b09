"""Started as one of several, each process would train the whole run; and what CUDA shows of what is listed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from helpers import Answer

from launcher import inside
from launcher.errors import ConfigError

Command = Callable[..., Answer]

SEVERAL = (
    {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "RANK": "{rank}", "LOCAL_WORLD_SIZE": "2"},
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


@pytest.mark.parametrize("words", [("+exp=cifar",), ("resume", "cifar"), ("-m", "+exp=cifar", "seed=1,2")])
@pytest.mark.parametrize("variables", SEVERAL)
def test_of_several_processes_one_says_what_to_type(
    command: Command, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: tuple[str, ...]
) -> None:
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

"""`cluster.env` sets values. A name that means more to bash, the loader, Python or SLURM is refused, or has to be forced by name."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from batch_shell import Shell
from helpers import Command, Launch, refused, refused_process

from launcher.clusters.slurm import Slurm
from launcher.errors import ConfigError
from launcher.plan import Plan, World

RUNS = "PATH[$(touch canary)]"
SLURM = ("cluster=slurm", "cluster.device=cpu")

EVALUATED = ("RANDOM", "SECONDS", "OPTIND", "HISTCMD", "SRANDOM", "SLURM_JOB_ID", "SLURM_JOB_END_TIME", "limit", "attempt", "port")
OF_BASH = (
    *("IFS", "ENV", "BASH_ENV", "BASH_FUNC_srun", "BASHOPTS", "SHELLOPTS", "PS4", "PS0", "PROMPT_COMMAND", "GLOBIGNORE", "EXECIGNORE"),
    *("EPOCHSECONDS", "BASH_XTRACEFD", "BASH_LOADABLES_PATH", "CDPATH", "TMOUT", "POSIXLY_CORRECT", "COMP_WORDS", "run", "python", "_x"),
)
OF_SLURM = ("SLURM_ARRAY_TASK_ID", "SLURM_NODEID", "SLURM_STEP_ID", "SLURMD_NODENAME", "SLURM_RESTART_COUNT")
POWERFUL = (
    *("PATH", "HOME", "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "DYLD_INSERT_LIBRARIES", "GLIBC_TUNABLES", "MALLOC_TRACE", "GCONV_PATH"),
    *("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONWARNINGS", "PYTHONUSERBASE", "PYTHONPYCACHEPREFIX", "PYTHONBREAKPOINT"),
    *("SLURM_CONF", "SBATCH_WAIT", "SRUN_DEBUG", "PMI_RANK", "PMIX_MCA_x", "SLURM_EXPORT_ENV"),
    *("CC", "CUDA_INJECTION64_PATH", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "MPLBACKEND", "OMP_TOOL_LIBRARIES", "UCX_MODULE_DIR"),
    *("OPENSSL_CONF", "GIT_SSH_COMMAND", "PERL5OPT", "LESSOPEN", "APPTAINER_BIND"),
)
PLAIN = (
    *(
        "NCCL_DEBUG",
        "NCCL_IB_HCA",
        "NCCL_NET_PLUGIN",
        "UCX_NET_DEVICES",
        "FI_PROVIDER",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING",
        "GLOO_SOCKET_IFNAME",
    ),
    *("PYTHONUNBUFFERED", "PYTHONHASHSEED", "PYTHONFAULTHANDLER", "CUDA_VISIBLE_DEVICES", "CUDA_LAUNCH_BLOCKING", "MALLOC_ARENA_MAX"),
    *(
        "WANDB_MODE",
        "HF_HOME",
        "HF_TOKEN",
        "TMPDIR",
        "LANG",
        "LC_ALL",
        "TZ",
        "http_proxy",
        "no_proxy",
        "HTTPS_PROXY",
        "MY_OWN",
        "TORCH_HOME",
    ),
    *("XDG_CACHE_HOME", "LAUNCHER_CACHE", "LAUNCHER_DATA", "SLURM_CPU_BIND", "OMP_PROC_BIND", "KMP_AFFINITY", "MKL_NUM_THREADS"),
)


def _plan(place: Path) -> Plan:
    return Plan(
        name="toy", id="a", run_dir=str(place), world=World(1, 1, "cpu"), threads=1, max_restarts=0, python="python3", directory=str(place),
        project=str(place), env=(), config_hash="", code_hash="", overrides=(), version="0",
    )  # fmt: skip


@pytest.mark.parametrize("name", [*EVALUATED, *OF_BASH, *OF_SLURM])
def test_what_bash_or_slurm_give_a_meaning_to_is_refused_and_cannot_be_forced(name: str, tmp_path: Path) -> None:
    for force in ([], [name]):
        with pytest.raises(ConfigError, match=rf"cluster\.env\.{name} belongs to .*; leave it out"):
            Slurm(device="cpu", env={name: RUNS}, env_force=force).world()


@pytest.mark.parametrize("name", ["RANDOM", "OPTIND", "HISTCMD"])
def test_quoting_would_not_help(name: str, tmp_path: Path) -> None:
    """What the list is for: the script as it would be, in bash, up to where it changes directory."""
    script = Slurm(device="cpu", env={name: RUNS}).render(_plan(tmp_path)).partition("run=")[0]
    subprocess.run(["bash", "-c", script], cwd=tmp_path, check=False, timeout=10, capture_output=True)
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", ["RANDOM", "OPTIND", "HISTCMD", "SLURM_JOB_ID", "IFS"])
def test_no_script_runs_what_a_value_says(name: str, launch: Launch, toy_words: tuple[str, ...], tmp_path: Path) -> None:
    """As processes: the command, and bash on what it would have printed."""
    done = launch("render", *toy_words, *SLURM, f"+cluster.env.{name}='{RUNS}'")
    subprocess.run(["bash", "-c", done.stdout.partition("run=")[0]], cwd=tmp_path, check=False, timeout=10, capture_output=True)
    assert not (tmp_path / "canary").exists()
    refused_process(done, 2, f"cluster.env.{name} belongs to")


@pytest.mark.parametrize("name", POWERFUL)
def test_what_changes_which_code_runs_has_to_be_forced(name: str) -> None:
    env: dict[str, str | None] = {"A": "1", name: "/x"}
    with pytest.raises(ConfigError, match=rf"cluster\.env\.{name} can change which code runs; .* 'cluster\.env_force=\[A,{name}\]'"):
        Slurm(device="cpu", env=env, env_force=["A"]).world()
    Slurm(device="cpu", env=env, env_force=[name]).world()


@pytest.mark.parametrize("name", PLAIN)
def test_other_variables_need_no_force(name: str) -> None:
    Slurm(device="cpu", env={name: "x"}).world()


def test_a_plugin_of_nccl_by_name_is_plain_and_by_path_is_not() -> None:
    with pytest.raises(ConfigError, match="NCCL_NET_PLUGIN can change which code runs"):
        Slurm(device="cpu", env={"NCCL_NET_PLUGIN": "/tmp/x.so"}).world()


def test_the_command_names_what_to_type(command: Command, toy_words: tuple[str, ...]) -> None:
    words = ("render", *toy_words, *SLURM, "+cluster.env.LD_LIBRARY_PATH=/opt/lib")
    refused(command(*words), 2, "cluster.env.LD_LIBRARY_PATH can change which code runs", "'cluster.env_force=[LD_LIBRARY_PATH]'")
    assert "export LD_LIBRARY_PATH=/opt/lib" in command(*words, "cluster.env_force=[LD_LIBRARY_PATH]").out
    refused(command(*words, "cluster.env_force=[PATH]"), 2, "cluster.env_force: PATH is not in cluster.env")
    refused(command(*words, "cluster.env_force=PATH"), 2, "cluster.env_force='PATH'")
    refused(command(*words[:-1], f"+cluster.env.RANDOM='{RUNS}'"), 2, "cluster.env.RANDOM belongs to the shell")


@pytest.mark.parametrize("name", ["SLURM_JOB_ID", "SLURM_JOB_END_TIME"])
@pytest.mark.parametrize("how", ["environment", "prelude"])
def test_nothing_is_computed_with_what_is_no_number(shell: Shell, name: str, how: str, tmp_path: Path) -> None:
    """bash would run it. The end of the job is computed with when the scheduler has warned."""
    line = f"export {name}='PATH[$(touch {tmp_path}/canary)]'\n"
    shell.stubs = shell.stubs.replace('show) echo "JobState=RUNNING"', "show) true") + (line if how == "environment" else "")
    status, said = shell.start(line if how == "prelude" else None)
    assert not (tmp_path / "canary").exists(), said
    assert (status, "SLURM_JOB_ID is no number" in said) == ((4, True) if name == "SLURM_JOB_ID" else (0, False)), said
    if status == 0:
        assert re.search(r"^LAUNCHER_DEADLINE=\d+$", (shell.run / "seen").read_text(), re.MULTILINE)

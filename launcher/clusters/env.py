"""Which variables `cluster.env` may name: quoting keeps a value one word, and not what a name means to those who read it.

bash evaluates what is assigned to RANDOM; the loader, Python and a scheduler run or load what some of theirs name. The first kind nobody
needs. The others have their uses, so `cluster.env_force` lets them through, by name; like `trust`, it does not count from just any file.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from launcher.clusters.texts import check_text, options, texts
from launcher.errors import ConfigError

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SCRUBBED = ("ACCELERATE_", "FSDP_", "PARALLELISM_CONFIG_", "TORCHELASTIC_", "PET_")
_OURS = {
    **dict.fromkeys(("OMP_NUM_THREADS", "SRUN_CPUS_PER_TASK"), "cluster.cpus_per_process=…, where a cluster has it, or leave it out"),
    **dict.fromkeys(("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "NODE_RANK"), "nothing: leave it out"),
    **dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"), "cluster.processes_per_node=…"),
    **dict.fromkeys(("MASTER_ADDR", "LAUNCHER_INTERFACE"), "cluster.interface=…"),
    **dict.fromkeys(("MASTER_PORT", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "PYTHONSAFEPATH"), "nothing: leave it out"),
    **dict.fromkeys(("LAUNCHER_ATTEMPT", "LAUNCHER_AGENT_PID", "LAUNCHER_DEADLINE"), "nothing: leave it out"),
    "LAUNCHER_KEY": "+cluster.env.LAUNCHER_KEY_FILE=… and the path of a file that has the key, for others read a config",
    **dict.fromkeys(("LAUNCHER_HEAD", "LAUNCHER_PORT", "LAUNCHER_JOB", "LAUNCHER_MEETING"), "nothing: leave it out"),
    **dict.fromkeys(("LAUNCHER_NODE", "LAUNCHER_HOST", "LAUNCHER_HOSTS", "LAUNCHER_PROCESSES"), "nothing: leave it out"),
    "LAUNCHER_PYTHON": "cluster.python=…",
}


def family(text: str) -> re.Pattern[str]:
    return re.compile("|".join(text.split()))


_OF_BASH = family(r"""
    IFS UID EUID PPID ENV GROUPS SHELLOPTS SHLVL PWD OLDPWD CDPATH HOSTNAME HOSTTYPE HOSTFILE MACHTYPE OSTYPE IGNOREEOF
    S?RANDOM SECONDS EPOCH(SECONDS|REALTIME) LINENO FUNCNAME FUNCNEST DIRSTACK PIPESTATUS COPROC(_PID)? MAPFILE REPLY CHILD_MAX
    OPT(ARG|ERR|IND) PS[0-9] PROMPT_\w+ POSIXLY_CORRECT TIMEFORMAT TMOUT LINES COLUMNS INPUTRC INSIDE_EMACS
    BASH\w* COMP_\w+ COMPREPLY READLINE_\w+ HIST\w+ (GLOB|F|EXEC)IGNORE GLOBSORT [a-z_][a-z0-9_]*(?<!_proxy)
""")
"""Those in small letters are the script's own, or bash's (`auto_resume`); but for `http_proxy` and its like."""

_POWERFUL = family(r"""
    PATH HOME SHELL XDG_(CONFIG|DATA)_\w+ LD_\w+ DYLD_\w+ \w+_PRELOAD\w* GLIBC_TUNABLES MALLOC_\w+ GCONV_PATH LOCPATH NLSPATH GETCONF_DIR
    HOSTALIASES PYTHON\w* VIRTUAL_ENV CONDA_\w+ PIP_\w+ PMI\w* PRTE_\w+ OMPI_\w+
    CC CXX LD AR CPP NVCC\w* CUDAHOSTCXX MPICC CUDA_(HOME|PATH|ROOT|INJECTION\w+) (ROCM|HIP)_\w*PATH
    TORCH_EXTENSIONS_DIR TORCHINDUCTOR_\w*(DIR|PATH|CXX|CC|COMMAND|CACHE) TRITON_(CACHE_DIR|LIBCUDA_PATH|HOME|PTXAS\w*) NUMBA_CACHE_DIR
    MPLBACKEND MPLCONFIGDIR MATPLOTLIBRC (KMP|OMP)_TOOL\w* NCCL_\w*(PLUGIN|CONF_FILE) UCX_MODULE\w* FI_PROVIDER_PATH (RDMAV|IBV)_DRIVERS
    OCL_ICD\w* VK_\w+ OPENSSL_\w+ SSL_CERT_\w+ GIT_\w+ SSH_\w+ EDITOR VISUAL PAGER LESS(OPEN|CLOSE) BROWSER
    PERL5\w+ RUBYOPT NODE_OPTIONS (JDK_|_)?JAVA_\w*OPTIONS APPTAINER\w*_\w+ SINGULARITY\w*_\w+ ENROOT_\w+ LMOD_\w+ MODULE(PATH|SHOME|S_\w+)
""")
"""By these the loader, Python, a compiler or a library finds what it runs."""

_HARMLESS = family(r"""
    PYTHON(UNBUFFERED|FAULTHANDLER|HASHSEED|DONTWRITEBYTECODE|UTF8|IOENCODING|OPTIMIZE|DEVMODE|TRACEMALLOC|MALLOC|MALLOCSTATS|NOUSERSITE)
    PYTHON(VERBOSE|ASYNCIODEBUG|PROFILEIMPORTTIME|INTMAXSTRDIGITS|COERCECLOCALE|DUMPREFS|NODEBUGRANGES|_GIL|_CPU_COUNT)
    MALLOC_(ARENA_MAX|TRIM_THRESHOLD_|MMAP_THRESHOLD_|MMAP_MAX_|TOP_PAD_|PERTURB_|CONF)
""")
"""Of those families what only says how, or how much."""


class Scheduler(NamedTuple):
    """Names that mean something to one."""

    name: str
    of_the_job: re.Pattern[str]
    """What it says to the job itself."""
    powerful: re.Pattern[str]
    """By which it finds what it runs."""
    harmless: re.Pattern[str]
    """Of those, what only says how."""


def check_env(env: object, force: object, scheduler: Scheduler | None = None) -> None:
    """Raises ConfigError for a variable that the script could not export, that would undo what the launcher decides, or that means
    more than a value to who reads it and is not in `force`.
    """
    forced = texts("env_force", force)
    known = options("env", env)
    for name in forced:
        if name not in known:
            raise ConfigError(f"cluster.env_force: {name} is not in cluster.env; type +cluster.env.{name}=…, or leave it out here")
    for name, value in known.items():
        if not _VARIABLE.fullmatch(name):
            raise ConfigError(f"cluster.env.{name}: {name!r} cannot name a variable; type letters, digits and _")
        if name in _OURS or name.startswith(_SCRUBBED):
            raise ConfigError(f"cluster.env.{name}: the launcher sets it itself; type {_OURS.get(name, 'nothing: leave it out')}")
        if _OF_BASH.fullmatch(name):
            raise ConfigError(f"cluster.env.{name} belongs to the shell that runs the job; leave it out")
        if scheduler is not None and scheduler.of_the_job.fullmatch(name):
            raise ConfigError(f"cluster.env.{name} belongs to {scheduler.name}, which tells it to the job; leave it out")
        if value is None:
            continue
        check_text(f"env.{name}", value)
        if name not in forced and _is_powerful(name, value, scheduler):
            every = ",".join([*forced, name])
            raise ConfigError(f"cluster.env.{name} can change which code runs; if that is what you want, add 'cluster.env_force=[{every}]'")


def _is_powerful(name: str, value: Any, scheduler: Scheduler | None) -> bool:
    if name.startswith("NCCL_") and name.endswith("_PLUGIN"):
        return "/" in str(value)  # a name is looked for where libraries are
    if scheduler is not None and scheduler.powerful.fullmatch(name):
        return not scheduler.harmless.fullmatch(name)
    return bool(_POWERFUL.fullmatch(name)) and not _HARMLESS.fullmatch(name)

"""Names in `cluster.env` that mean something to SLURM."""

from __future__ import annotations

from launcher.clusters.env import Scheduler, family

SLURM = Scheduler(
    "SLURM",
    of_the_job=family(r"""
    SLURM_(ARRAY|JOB|STEP|HET|CLUSTER|SUBMIT|TASK)\w* SLURMD_\w+
    SLURM_(NODEID|PROCID|LOCALID|GTIDS|NODELIST|NNODES|NTASKS|NPROCS|RESTART_COUNT)
"""),
    powerful=family(r"(SLURM|SBATCH|SRUN|SALLOC|SACCT|SQUEUE|SINFO|SCONTROL|SCANCEL|SPANK)_\w+"),
    harmless=family(r"SLURM_CPU_BIND\w*"),
)

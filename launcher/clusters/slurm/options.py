"""The long options of sbatch and srun, so that a misspelt one is refused here and not by a job that never starts.

From the manual pages of SLURM 22.05 to 25.05. Where a site's plugin (SPANK) brings an option of its own, `cluster.site_options` names it.
"""

from __future__ import annotations

_BOTH = """
account acctg-freq bb bbf begin clusters
cluster-constraint comment constraint container container-id contiguous core-spec
cores-per-socket cpu-freq cpus-per-gpu cpus-per-task deadline delay-boot dependency distribution
exclude exclusive extra extra-node-info
gid gpu-bind gpu-freq gpus gpus-per-node gpus-per-socket
gpus-per-task gres gres-flags hint hold input
licenses mail-type mail-user mcs-label mem mem-bind mem-per-cpu mem-per-gpu mincpus network nice no-kill nodefile nodelist
ntasks-per-core ntasks-per-gpu ntasks-per-socket oom-kill-step overcommit oversubscribe partition power prefer priority profile propagate
qos quiet reboot reservation segment sockets-per-node spread-job stepmgr switches
thread-spec threads-per-core time-min tmp tres-bind tres-per-task uid use-min-nodes verbose wckey x11
"""

SBATCH = frozenset(f"{_BOTH} batch get-user-env ignore-pbs kill-on-invalid-dep wait-all-nodes".split())
SRUN = frozenset(
    f"""{_BOTH} accel-bind bcast bcast-exclude compress cpu-bind disable-status epilog exact external-launcher immediate interactive label
    mpi msg-timeout multi-prog no-allocate overlap preserve-env prolog pty quit-on-interrupt relative resv-ports send-libs slurmd-debug
    task-epilog task-prolog threads treewidth unbuffered wait whole container-image container-mounts container-name container-save
    container-mount-home no-container-mount-home container-remap-root no-container-remap-root container-entrypoint
    no-container-entrypoint container-writable container-readonly container-env""".split()
)

OURS = {
    "job-name": "name=…",
    "nodes": "cluster.nodes=…",
    "ntasks": "cluster.processes_per_node=…",
    "ntasks-per-node": "cluster.processes_per_node=…",
    "cpus-per-task": "cluster.cpus_per_process=…",
    "gpus": "cluster.processes_per_node=…",
    "gpus-per-node": "cluster.processes_per_node=… and cluster.gpu_type=…",
    "gpus-per-task": "cluster.processes_per_node=…",
    "time": "cluster.time=…",
    "mem": "cluster.memory=…",
    "partition": "cluster.partition=…",
    "account": "cluster.account=…",
    "qos": "cluster.qos=…",
    "constraint": "cluster.constraint=…",
    "exclude": "cluster.exclude=…",
    "signal": "cluster.warning=…",
    "array": "--multirun",
    "chdir": "runs_dir=…",
    "output": "runs_dir=…",
    "error": "runs_dir=…",
    "open-mode": "nothing: logs are always appended",
    "export": "cluster.env.NAME=…",
    "export-file": "cluster.env.NAME=…",
    "requeue": "cluster.requeue=true",
    "no-requeue": "cluster.requeue=false",
    "kill-on-bad-exit": "nothing: it is always on",
    "parsable": "nothing",
    "test-only": "nothing: it is always asked first",
    "wrap": "+exp=…",
    "wait": "python -m launcher logs RUN -f",
    "container-image": "cluster.image=… and cluster.container=pyxis",
    "container-mounts": "cluster.mounts=[…]",
}
"""Options that the launcher writes itself, and what to type instead."""

OURS_OF_SBATCH = frozenset(("wait",))
"""Of these the ones that srun has too, with another meaning that is the user's business."""

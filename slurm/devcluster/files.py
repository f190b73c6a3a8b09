"""The text of every file that the daemons and the nodes read. Pure: a shape in, text out."""

from __future__ import annotations

import socket

from state import HEAD, LOGS, STATE, Misused, Shape, address, names

CPUS, MEMORY_MB, GPUS = 16, 65536, 4

_PARTITIONS = {
    "batch": {"Default": "YES", "PriorityTier": "1", "MaxTime": "1-0", "PreemptMode": "REQUEUE", "GraceTime": "6"},
    "urgent": {"PriorityTier": "10", "MaxTime": "1-0", "PreemptMode": "OFF"},
    "short": {"PriorityTier": "1", "MaxTime": "10", "MaxNodes": "1", "PreemptMode": "OFF"},
}


def _options(accounting: bool) -> dict[str, str]:
    return {
        "ClusterName": "devcluster",
        "SlurmctldHost": f"{socket.gethostname().split('.')[0]}({HEAD})",
        "SlurmUser": "root",
        "SlurmctldPort": "26817",
        "SlurmdPort": "26818",
        "AuthType": "auth/munge",
        "CredType": "cred/munge",
        "AuthInfo": f"socket={STATE}/munge.socket,cred_expire=5",
        "StateSaveLocation": f"{STATE}/controller",
        "SlurmdSpoolDir": f"{STATE}/%n/spool",
        "SlurmctldPidFile": f"{STATE}/slurmctld.pid",
        "SlurmdPidFile": f"{STATE}/%n/slurmd.pid",
        "SlurmctldLogFile": f"{LOGS}/slurmctld.log",
        "SlurmdLogFile": f"{LOGS}/%n.log",
        "MailProg": "/bin/true",
        # cgroups would be the host's own: nothing of this cluster may depend on them
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core_Memory",
        "SlurmdParameters": "config_overrides",
        "GresTypes": "gpu",
        "DefMemPerCPU": str(MEMORY_MB // CPUS),
        "ReturnToService": "2",
        "JobRequeue": "1",
        "MaxArraySize": "1001",
        "MinJobAge": "300",
        "KillWait": "5",
        "SlurmdTimeout": "15",
        "MessageTimeout": "5",
        # slurmctld speaks to each node itself: through a dead node it would wait for the living ones behind it
        "TreeWidth": "65533",
        "SchedulerParameters": "sched_interval=2,sched_min_interval=0,batch_sched_delay=0,bf_interval=2,default_queue_depth=1000",
        "PreemptType": "preempt/partition_prio",
        "PreemptMode": "REQUEUE",
        "SlurmctldParameters": "",
        **(_ACCOUNTING if accounting else {"AccountingStorageType": "accounting_storage/none"}),
    }


_ACCOUNTING = {
    "AccountingStorageType": "accounting_storage/slurmdbd",
    "AccountingStorageHost": HEAD,
    "AccountingStoragePort": "26819",
    # the one option that names a munge socket for the way to slurmdbd
    "AccountingStoragePass": f"{STATE}/munge.socket",
    "AccountingStorageEnforce": "associations",
    "AccountingStorageTRES": "gres/gpu",
    "JobAcctGatherType": "jobacct_gather/linux",
}


def setting(key: str) -> str:
    """`gracetime` as `batch.GraceTime`, `short.maxtime` as `short.MaxTime`, `killwait` as `KillWait`."""
    partition, _, option = key.rpartition(".")
    if partition and partition not in _PARTITIONS:
        raise Misused(f"{key}: no partition is called {partition}: {', '.join(_PARTITIONS)}")
    if option.lower() == "gracetime":
        partition = partition or "batch"
    known = {*_options(True), *(name for each in _PARTITIONS.values() for name in each)}
    option = next((name for name in known if name.lower() == option.lower()), option)
    return f"{partition}.{option}" if partition else option


def slurm(shape: Shape) -> str:
    options = _options(shape["accounting"])
    partitions = {name: dict(values) for name, values in _PARTITIONS.items()}
    for key, value in shape["settings"].items():
        partition, _, option = key.rpartition(".")
        (partitions[partition] if partition else options)[option] = value
    nodes = f"node[1-{shape['nodes']}]"
    first, last = (address(f"node{n}") for n in (1, shape["nodes"]))
    lines = [f"{key}={value}" for key, value in options.items() if value]
    lines.append(
        f"NodeName={nodes} NodeAddr={first.rpartition('.')[0]}.[{first.rpartition('.')[2]}-{last.rpartition('.')[2]}]"
        f" Sockets=1 CoresPerSocket={CPUS} ThreadsPerCore=1 RealMemory={MEMORY_MB} Gres=gpu:{GPUS} State=UNKNOWN"
    )
    for name, values in partitions.items():
        lines.append(f"PartitionName={name} Nodes={nodes} " + " ".join(f"{key}={value}" for key, value in values.items() if value))
    return "\n".join(lines) + "\n"


def gres(shape: Shape) -> str:
    return f"NodeName=node[1-{shape['nodes']}] Name=gpu File={STATE}/gpu/gpu[0-{GPUS - 1}]\n"


def hosts(shape: Shape, kind: str) -> str:
    nodes = {
        "full": [f"{address(node)} {node}" for node in names(shape["nodes"])] + [f"{HEAD} {socket.gethostname().split('.')[0]}"],
        "none": [],
        "loopback": [f"127.0.1.1 {node}" for node in names(shape["nodes"])],
    }[kind]
    return "\n".join(["127.0.0.1 localhost", "::1 localhost ip6-localhost", *nodes]) + "\n"


# No server listens on the node's own loopback: the kernel refuses at once, where a lost packet would cost 10 s.
RESOLVER = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"

"""SLURM's words, from 22.05 on, and what they mean: its lines in the log of a job, sbatch's refusals, squeue's reasons to wait."""

from __future__ import annotations

import re

from launcher.verdict.jobs import SUSPENDED, Job
from launcher.verdict.signatures import CAUSE, HOST_MEMORY, PLACED, RESUME, SCHEDULER, WAIT, Match, Signature, Words

_ADVICE = {
    "host_oom": HOST_MEMORY,
    "no_python": "install it " + PLACED,
    "account": "`sacctmgr show associations user=$USER` lists yours; in a new run: cluster.account=…",
    "qos": "`sacctmgr show associations user=$USER format=account,qos` lists yours; in a new run: cluster.qos=…",
    "partition": "`sinfo` lists them; in a new run: cluster.partition=…",
    "node_config": "`sinfo -o '%P %D %c %m %G'` lists what there is; in a new run: ask for less of it",
    "time_limit": RESUME + "; in a new run: a longer cluster.time, or a longer cluster.warning if it could not save in time",
    "cancelled": "what it has saved stays: " + RESUME,
}
"""By the name of a signature; RESUME where there is none."""


def _known(name: str, pattern: str, verdict: str, kind: str = CAUSE) -> Signature:
    return Signature(name, re.compile(pattern, re.MULTILINE), verdict, _ADVICE.get(name, RESUME), kind)


WORDS = Words(
    signatures=(
        _known(
            "host_oom", r"^srun: error: (?P<host>\S+): tasks? \S+: Out Of Memory", "{host} ran out of memory: the kernel killed a process"
        ),
        _known("host_oom", r"[Dd]etected \d+ oom[-_ ]kill|exceeded memory limit", "a node ran out of memory: the kernel killed a process"),
        _known("no_python", r"execve\(\): (?P<path>[^:\n]+): (No such file|Permission denied)", "a node has no {path}"),
        _known("account", r"[Ii]nvalid account|[Aa]ccount.* not (allowed|permitted)", "the account may not have this job"),
        _known("qos", r"[Ii]nvalid qos|violates accounting/QOS policy", "the QOS may not have this job"),
        _known("partition", r"[Ii]nvalid partition|group not permitted to use this partition", "the partition may not have this job"),
        _known(
            "node_config",
            r"Requested node configuration is not available|More processors requested",
            "no node of the partition is as asked for",
        ),
        # Without DUE TO, a step was ended by srun, for one of its tasks had failed, and a job by scancel.
        _known("time_limit", r"CANCELLED AT (?P<at>\S+) (?i:due to) TIME LIMIT", "the time limit ended the job", SCHEDULER),
        _known(
            "preempted", r"CANCELLED AT (?P<at>\S+) (?i:due to) PREEMPTION", "preempted: a job that comes first took the nodes", SCHEDULER
        ),
        _known("node_failure", r"^srun: error: Node failure on (?P<host>\S+)", "{host} failed", SCHEDULER),
        _known("node_failure", r"CANCELLED AT (?P<at>\S+) (?i:due to) NODE FAILURE", "a node failed", SCHEDULER),
        _known(
            "requeued", r"CANCELLED AT (?P<at>\S+) (?i:due to) JOB REQUEUE", "the job was requeued by hand, or its node was lost", SCHEDULER
        ),
        _known(
            "cancelled",
            r"\*\*\* JOB \S+ ON \S+ CANCELLED AT (?P<at>\S+) ((?i:due to) SIGNAL \w+ )?\*\*\*",
            "cancelled with scancel",
            SCHEDULER,
        ),
    ),
    task=re.compile(r"^srun: error: (?P<host>\S+): tasks? \S+: (?:Exited.*|(?P<how>.*))", re.MULTILINE),
    host=re.compile(r"slurmstepd-(?P<host>[^:\s]+): "),
)


# ---------------------------------------------------------------- why a job waits

_STARTS = "nothing: it starts by itself"
_NEVER = "it never starts so: python -m launcher cancel {run}, and in a new run: "


def _waits(pattern: str, verdict: str, advice: str = _STARTS) -> Signature:
    return Signature("pending", re.compile(pattern), verdict, advice, WAIT)


WAITING = (
    _waits(r"None|", "the scheduler has not come to it yet"),
    _waits(r"SUSPENDED", "on its nodes, by the scheduler or those who run it", "nothing: it goes on when they resume it"),
    _waits(r"STOPPED", "on its nodes, somebody has stopped its processes", "scancel --signal=CONT {job}"),
    _waits(r"Resources", "what it asks for is in use"),
    _waits(r"Priority", "other jobs come first"),
    _waits(r"BeginTime", "its time has not come; a job that was requeued waits two minutes"),
    _waits(r"Dependency", "it waits for another job"),
    _waits(r"DependencyNeverSatisfied", "it waits for a job that failed", _NEVER + "no such dependency (cluster.sbatch)"),
    _waits(r"JobHeldUser", "you hold it, or whoever submitted it", "scontrol release {job}"),
    _waits(r"JobHeldAdmin", "those who run the cluster hold it", "ask them"),
    _waits(
        r"(?i)(job )?launch ?failed requeued held",
        "a node failed to start it, so it is held",
        "look at the nodes, then: scontrol release {job}",
    ),
    _waits(r"JobLaunchFailure", "a node failed to start it", "look at the nodes; scontrol release {job} if it is held"),
    _waits(r"JobHoldMaxRequeue", "it was requeued too often, so it is held", "find out why, then: scontrol release {job}"),
    _waits(r"PartitionTimeLimit", "its time limit is beyond what the partition allows", _NEVER + "a shorter cluster.time"),
    _waits(r"Partition(Node|Max|Min|Config)\w*", "the partition gives no job that many nodes", _NEVER + "other cluster.nodes"),
    _waits(r"Partition(Down|Inactive)", "the partition takes no jobs at present"),
    _waits(r"ReqNodeNotAvail.*UnavailableNodes:(?P<nodes>\S+)", "nodes that it needs are down, drained or reserved: {nodes}"),
    _waits(r"ReqNodeNotAvail.*maintenance", "nodes that it needs are reserved for maintenance"),
    _waits(
        r"ReqNodeNotAvail.*|Nodes required for job are .*|NodeDown|FrontEndDown|Power\w+",
        "nodes that it needs are down, drained or reserved",
    ),
    _waits(r"InvalidAccount|AccountNotAllowed", "its account may not use this partition", _NEVER + "another cluster.account"),
    _waits(r"InvalidQOS|QOSNotAllowed", "its QOS may not be used here", _NEVER + "another cluster.qos"),
    _waits(r"BadConstraints", "no node is as it asks for", _NEVER + "another cluster.constraint or gpu_type"),
    _waits(r"JobArrayTaskLimit", "as many members of the sweep run as cluster.throttle lets"),
    _waits(r"QOSUsageThreshold", "its account has used up its share"),
    _waits(r"(QOS|Assoc)Grp(?P<what>\w+?)(Limit)?", "all jobs of its {owner} together are at the limit of {what}"),
    _waits(
        r"(QOS|Assoc)Max(?P<what>\w+)Per(Job|Node)\w*|QOSMin(?P<least>\w+)",
        "the {owner} has a limit for each job, and this one is beyond it: {what}",
        _NEVER + "keep within that limit",
    ),
    _waits(r"(QOS|Assoc|)Max(?P<what>\w+?)(Limit|PerUser(Limit)?|PerAccount)", "your jobs are at the {owner}'s limit of {what}"),
    _waits(r"(QOS|Association)(?P<what>Job|Resource|Time)Limit", "it is at a limit of its {owner}"),
    _waits(r"Licenses", "a licence that it needs is in use"),
    _waits(r"Re(quires)?(qResv|servation)\w*|ResvOverRun", "it waits for its reservation"),
    _waits(r"Prolog\w*|Cleaning|BurstBuffer\w*", "its nodes are being prepared, or cleaned up"),
    _waits(r".*", "the scheduler has a reason of its own"),
)

_LIMITED = {
    "Jobs": "jobs", "Submit": "jobs", "Node": "nodes", "Wall": "time", "Cpu": "CPUs", "CPU": "CPUs", "Mem": "memory", "GRES": "GPUs (GRES)",
    "Billing": "cost (billing)", "Energy": "energy", "License": "licences",
}  # fmt: skip


def waiting(reason: str) -> Match:
    """A reason as squeue has it, in words."""
    plain = reason.replace("_", " ").strip("() ")
    signature, found = next((each, found) for each in WAITING if (found := each.pattern.fullmatch(plain)))
    groups = found.groupdict("")
    limited = groups.get("what", "") or groups.get("least", "")
    words = next((words for prefix, words in _LIMITED.items() if limited.startswith(prefix)), limited)
    owner = "QOS" if plain.startswith("QOS") else "account"
    return Match(signature, reason, {**groups, "owner": owner, "what": words + (", in minutes" if "Minutes" in limited else "")})


_HELD = ("RESV_DEL_HOLD", "REQUEUE_HOLD", "SPECIAL_EXIT")
"""Until somebody releases it."""


def waits(job: Job, run: str) -> tuple[str, str]:
    """Why it does not run, and what to type: words that fit behind `it waits: `."""
    match = waiting(job.state if job.phase == SUSPENDED else job.reason)
    words = match.verdict if job.state == "PENDING" else f"{job.state.lower()}: {match.verdict}"
    advice = match.advice(run=run, job=job.id)
    advice = f"scontrol release {job.id}" if job.state in _HELD and not advice.startswith("scontrol") else advice
    return words, re.sub(r"\b(scontrol|scancel) ", rf"\1 --clusters={job.cluster} ", advice) if job.cluster else advice

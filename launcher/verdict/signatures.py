"""Known failures: the words of a log, what they mean, what to type then.

The words are those of torch 2.13, NCCL and gloo; a scheduler brings its own. Where a line fits several signatures, the first one is it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from launcher.verdict import gpu_words

CAUSE, SCHEDULER, SYMPTOM, WAIT = "cause", "scheduler", "symptom", "wait"
"""A cause explains a failure; the scheduler ends jobs for reasons of its own; a symptom is what a rank says whose peer has failed."""


@dataclass(frozen=True)
class Signature:
    name: str
    pattern: re.Pattern[str]
    """Of a part of a line. Its group `host` names a node, `at` a time. A word of any length is sought from its start
    alone, so that a long line costs no more than it is long."""
    verdict: str
    """What happened; may hold the pattern's groups."""
    advice: str
    """What to type; may hold the groups, {run}, {python} and {job}."""
    kind: str = CAUSE


@dataclass(frozen=True)
class Match:
    signature: Signature
    line: str
    groups: Mapping[str, str]

    @property
    def verdict(self) -> str:
        return self.signature.verdict.format(**self.groups)

    def advice(self, **context: str) -> str:
        """`context`: run, python and job, as a shell takes them."""
        return self.signature.advice.format(**self.groups, **context)


@dataclass(frozen=True)
class Words:
    """What one scheduler says in the log of a job."""

    signatures: tuple[Signature, ...] = ()
    task: re.Pattern[str] | None = None
    """A line by which it says that the processes of a node are over: groups `host`, and `how` unless that says nothing."""
    host: re.Pattern[str] | None = None
    """How a line begins that names the node it is about, as `host`."""

    @functools.cached_property
    def table(self) -> tuple[Signature, ...]:
        """With those of all: of one name the scheduler's come first, for they name the node; names that only it has come last."""
        ours = dict.fromkeys(each.name for each in SIGNATURES)
        first = [each for each in self.signatures if each.name in ours]
        known = (each for name in ours for table in (first, SIGNATURES) for each in table if each.name == name)
        return (*known, *(each for each in self.signatures if each.name not in ours))


NONE = Words()
"""Of a run on this machine, or of a scheduler with nothing to say."""


def find(lines: Iterable[str], *kinds: str, words: Words = NONE) -> Match | None:
    """The first signature of these kinds, in the order of the table, that any of the lines fits."""
    text = "\n".join(lines)
    for signature in words.table:
        if signature.kind in kinds and (found := signature.pattern.search(text)):
            start, end = text.rfind("\n", 0, found.start()) + 1, text.find("\n", found.end())
            return Match(signature, text[start : end if end >= 0 else len(text)], found.groupdict(""))
    return None


RESUME = "python -m launcher resume {run}"
_SMALLER = "in a new run: train.accumulate=2 or more (the same batch in smaller parts), or a smaller train.batch_size"
HOST_MEMORY = "in a new run: more memory for each node (cluster.memory=64G, or 0 for all of it), or fewer loader workers"
_SHARED = "in a new run: runs_dir=… on a file system that every node shares, mounted where there is a container (cluster.mounts)"
PLACED = "on a file system that the nodes share, or into the image (cluster.image); then: " + RESUME
_DRIVER = "`nvidia-smi` on that node tells; in a new run: cluster.exclude=…, or a torch built for its driver"

_ADVICE = {
    "cuda_oom": _SMALLER,
    "host_oom": HOST_MEMORY,
    "shared_memory": "in a new run: fewer loader workers, or a container with more shared memory",
    "disk_full": "make room there, then: " + RESUME,
    "quota": "make room there, then: " + RESUME,
    "file_system": "when it is back: " + RESUME,
    "not_visible": _SHARED,
    "no_python": "install it " + PLACED,
    "import": "install it for {python} " + PLACED,
    "no_cuda": "install a CUDA build of torch for {python}, or in a new run: cluster.device=cpu",
    "driver": _DRIVER,
    "gpu_kind": "install a torch built for these GPUs " + PLACED,
    "device_assert": "look at the labels and indices of the data; CUDA_LAUNCH_BLOCKING=1 in cluster.env shows the line",
    "gpu_fault": "in a new run: leave that node out with cluster.exclude=…, and tell who runs the cluster",
    "port": "another attempt takes another port: " + RESUME,
    "unreachable": "in a new run: name the network between the nodes with cluster.interface=… (`ip -br addr` on a node lists them)",
    "hung": "its stacks are at the end of its log: python -m launcher logs {run} --rank {rank}; then: " + RESUME,
    "replicas": "in a new run: leave that node out with cluster.exclude=…; here: " + RESUME + ", from before it happened",
    "bad_loss": "in a new run: a lower optim.lr, train.clip_norm=1, or train.on_bad=rollback to pass these batches over",
    "fenced": "nothing: the newer attempt trains",
    "short_limit": "in a new run: {time}",
    "rendezvous": "look at that node's agent log and at job.log; then: " + RESUME,
    "collective_timeout": "one rank hung or took another branch; the last lines of each: python -m launcher logs {run}",
    "lost_peer": "look at the nodes and at the network between them if it happens again; " + RESUME,
}
"""By the name of a signature; RESUME where there is none."""


def _known(name: str, pattern: str, verdict: str, kind: str = CAUSE) -> Signature:
    return Signature(name, re.compile(pattern, re.MULTILINE), verdict, _ADVICE.get(name, RESUME), kind)


SIGNATURES = (
    _known("cuda_oom", r"CUDA out of memory\. Tried to allocate (?P<size>[\d.]+ \w+)", "a GPU ran out of memory when asked for {size}"),
    _known("cuda_oom", r"CUDA out of memory|CUDA error: out of memory|Cuda failure \d+ 'out of memory'", "a GPU ran out of memory"),
    _known("cuda_oom", r"CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED", "a GPU ran out of memory"),
    _known(
        "host_oom",
        r"DataLoader worker \(pid.*is killed by signal: Killed",
        "a loader worker was killed, which is what running out of memory looks like",
    ),
    _known("host_oom", r"can't allocate memory|^MemoryError\b|Cannot allocate memory", "a node ran out of memory"),
    _known(
        "shared_memory", r"insufficient shared memory \(shm\)|unable to \w+ shared memory object", "/dev/shm of a node or container is full"
    ),
    _known("disk_full", r"No space left on device|\bENOSPC\b", "the disk is full"),
    _known("quota", r"Disk quota exceeded|\bEDQUOT\b", "the disk quota is used up"),
    _known("file_system", r"Stale (NFS )?file handle|Input/output error|Read-only file system", "a file system failed"),
    _known("not_visible", r"(?<!\S)(?P<host>\S+) does not see \S+;", "{host} does not see the run directory"),
    _known("not_visible", r"couldn't chdir to |Could not open std(out|err) file", "a node does not see the run directory"),
    _known("not_visible", r"No module named '?launcher\b", "a node does not see the run's copy of the code"),
    _known("no_python", r"(?<!\S)(?P<path>\S{0,200}?python[\d.]*): (command not found|[Nn]o such file)", "a node has no {path}"),
    _known("import", r"No module named '?(?P<module>[\w.]+)", "the environment of the nodes has no module {module}"),
    _known("import", r"(?P<what>cannot import name '[^']+' from '[^']+')", "an import failed: {what}"),
    _known(
        "import",
        r"(?<!\S)(?P<what>\S{1,200}?\.so[.\d]*): cannot open shared object file",
        "the environment of the nodes lacks the library {what}",
    ),
    _known("no_cuda", r"Torch not compiled with CUDA|have NCCL built in", "this torch is built without CUDA"),
    _known(
        "driver", r"NVIDIA driver on your system is too old|driver version is insufficient", "a node's driver is too old for this torch"
    ),
    _known(
        "driver", r"Found no NVIDIA driver|[Nn]o CUDA-capable device|No CUDA GPUs are available|no GPUs found", "a node has no CUDA device"
    ),
    _known("driver", r"sees (?P<count>\d+) CUDA devices on", "a node has {count} CUDA devices, less than one for each process"),
    _known("driver", r"CUDA driver initialization failed|CUDA unknown error", "the CUDA driver of a node does not work"),
    _known("gpu_kind", r"no kernel image is available for execution", "this torch has no code for the GPUs of the nodes"),
    _known("device_assert", r"device-side assert triggered", "a GPU kernel refused its input: an index or a label out of range"),
    _known("gpu_fault", gpu_words.OF_THE_NODE.pattern, "a GPU is broken, or what joins it to the others"),
    _known("gpu_fault", gpu_words.OF_BOTH.pattern, "a GPU broke, or a kernel that runs astray or has no end brought it down"),
    _known("port", r"EADDRINUSE|(?i:address already in use)", "the port at which the nodes meet was taken"),
    _known(
        "unreachable",
        r"socket has timed out after \S+ while trying to connect to \((?P<head>[^)]+)\)",
        "a node does not reach the first node at {head}",
    ),
    _known(
        "unreachable",
        r"(?<!\S)(?P<host>\S+) (has no route to|reaches) the first node at (?P<head>\S+)",
        "{host} does not reach the first node at {head}",
    ),
    _known("fenced", r"attempt (?P<holder>\d+) has taken over", "attempt {holder} has taken over; this one writes no more"),
    _known("short_limit", r"in a row .*in a new run: (?P<time>cluster\.time=[\d:]+)", "start-up leaves hardly any of the time limit"),
    _known("hung", r"rank (?P<rank>\d+) on (?P<host>\S+) hangs in (?P<phase>\w+) of step", "rank {rank} on {host} hangs in {phase}"),
    _known(
        "replicas",
        r"(?P<who>rank \d+ on .{1,200}) holds other (?P<what>weights|optimizer state|averages) than",
        "{who} holds other {what} than the others: memory fails there",
    ),
    _known("bad_loss", r"the loss of steps (?P<steps>\d+ to \d+) is", "the loss of steps {steps} is no good"),
    _known("bad_loss", r"(?P<name>\S{1,200}) has values that are not finite, so there is no", "{name} has values that are not finite"),
    # What follows from something else, the most telling first.
    _known(
        "rendezvous",
        r"RendezvousTimeoutError|Timed out after \S+ seconds waiting for clients",
        "a node never came to where the nodes meet",
        SYMPTOM,
    ),
    _known(
        "collective_timeout",
        r"operation timeout: \w+\(SeqNum=\d+, OpType=(?P<op>\w+)",
        "the ranks waited in vain for each other in {op}",
        SYMPTOM,
    ),
    _known(
        "collective_timeout",
        r"operation timeout|NCCL operations have failed or timed out|watchdog got stuck",
        "the ranks waited in vain for each other",
        SYMPTOM,
    ),
    _known(
        "collective_timeout", r"Timed out waiting \d+ms|[Ww]ait timeout after \d+ ?ms", "the ranks waited in vain for each other", SYMPTOM
    ),
    _known("loader", r"DataLoader worker .*(exited unexpectedly|is killed by signal)", "a loader worker was killed", SYMPTOM),
    _known(
        "lost_peer",
        r"(?i:Connection (was likely )?(reset|closed|refused)|Broken pipe|remote process|peer closed|Failed to (recv|send)|Socket Timeout)"
        r"|RendezvousClosedError|C10d store has failed|NCCL",
        "the ranks lost each other, and no rank, node or scheduler says why",
        SYMPTOM,
    ),
)

LOST_PEER = re.compile("|".join(each.pattern.pattern for each in SIGNATURES if each.kind == SYMPTOM))
"""What a rank says whose peer has died, or hangs: true, and not the cause."""

ENDS = {
    "TIMEOUT": _known("time_limit", "", "the time limit ended the job", SCHEDULER),
    "PREEMPTED": _known("preempted", "", "preempted: a job that comes first took the nodes", SCHEDULER),
    "NODE_FAIL": _known("node_failure", "", "a node failed", SCHEDULER),
    "CANCELLED": _known("cancelled", "", "cancelled", SCHEDULER),
    "OUT_OF_MEMORY": _known("host_oom", "", "a node ran out of memory: the kernel killed a process"),
}
"""How a scheduler says that a job ended (launcher/verdict/jobs.py), in words, where it has none of its own for it."""

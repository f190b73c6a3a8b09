"""What processes compute on: the words for it, which torch has too, and what is known of each kind without torch.

The only file of this half that spells them; all that has to be asked of torch is in launcher/train/device.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from launcher.errors import ConfigError

CPU, CUDA, XPU, MPS = "cpu", "cuda", "xpu", "mps"


@dataclass(frozen=True)
class Kind:
    shown: str
    """One of them, in a message."""
    build: str
    """Of torch, that computes on it."""
    backend: str | None
    """Of torch.distributed, by which its processes add up; None: one process is all there can be."""
    deterministic: tuple[tuple[str, str], ...] = ()
    """What the environment of train.deterministic=true has to hold."""
    apptainer: tuple[str, ...] = ()
    """Options with which a container sees it."""
    visible: str = ""
    """The variable that lists those which a process sees."""


KINDS: dict[str, Kind] = {
    CPU: Kind("CPU", "any build", "gloo"),
    # cuBLAS reads it once, at the first handle. To torch a GPU of AMD's (ROCm) is of this kind, and RCCL is called NCCL.
    CUDA: Kind("CUDA device", "a CUDA or ROCm build", "nccl", (("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),), ("--nv",), "CUDA_VISIBLE_DEVICES"),
    XPU: Kind("XPU device", "an XPU build", "xccl", visible="ZE_AFFINITY_MASK"),
    MPS: Kind("MPS device", "a build for macOS on Apple's processors", None),
}
HOST_BACKEND = "gloo"
"""By which all kinds send what lies in the host's memory."""


def has_cublas(device: str) -> bool:
    """Whether its libraries are NVIDIA's, or AMD's under the same names: cuBLAS, cuDNN, streams that a graph can be captured from."""
    return device == CUDA


def counted(device: str, count: int) -> str:
    """`2 CUDA devices`."""
    return f"no {KINDS[device].shown}" if count == 0 else f"{count} {KINDS[device].shown}{'s' * (count > 1)}"


def check_processes(device: str, nodes: int, processes: int) -> None:
    """Raises ConfigError where processes on that kind could not add up."""
    if KINDS[device].backend is None and nodes * processes > 1:
        raise ConfigError(
            f"cluster.processes_per_node={processes}: processes on {device} cannot add up between them; type "
            "cluster.processes_per_node=1, or cluster.device=cpu"
        )


def check_trusted(listed: Sequence[str]) -> None:
    """Of `cluster.trusted_devices`. Raises ConfigError for an entry that can name nothing."""
    for entry in listed:
        if not isinstance(entry, str) or not entry.strip() or not entry.isprintable():  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(
                f"cluster.trusted_devices: {entry!r} names no device; type names (* and ? stand for others) or UUIDs, for example "
                "'cluster.trusted_devices=[\"NVIDIA H100*\"]'"
            )


def refusal(name: str, uuid: str, others: Sequence[str], listed: Sequence[str]) -> str:
    """Why a device is not to be computed on, empty where it is. `uuid` may be empty, `others`: the UUIDs of what else its process sees.

    An entry is the name, a pattern of it, the UUID, or how that UUID alone begins: GPU-… as programs write it, or all of it as torch does.
    """
    own, unclear = _digits(uuid), ""
    for entry in listed:
        if name == entry or fnmatchcase(name, entry):
            return ""
        begin = _digits(entry) if entry.lower().startswith("gpu-") or _digits(entry) == own else ""
        if begin and own.startswith(begin):
            if not any(_digits(other).startswith(begin) for other in others):
                return ""
            unclear = f" ({entry} is how several here begin)"
    if not listed:
        return ""
    return (
        f"cluster.trusted_devices does not have {name}, {f'UUID {uuid}' if uuid else 'which has no UUID'}{unclear}; add "
        f'"{uuid or name}" to the list to compute on it, or leave its node out'
    )


def _digits(uuid: str) -> str:
    return uuid.lower().removeprefix("gpu-")

"""A program: the ranks of a world, started by fork, load the newest checkpoint of a store.

    python load_ranks.py FOLDER WORLD [FAULT RANK]     FAULT: `mount` (nothing can be read there), `die` (in the middle of a file)

Prints JSON, of each rank: `step` loaded, `said` by it, `error`, `verified` (how often it read each file of which checkpoint) and
`bytes` that it read from files in all; null for a rank that was killed.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from launcher.errors import CheckpointError
from launcher.rundir.claim import Claim
from launcher.rundir.rundir import RunDir
from launcher.train.checkpoint.checkpoint import CheckpointStore
from launcher.train.checkpoint.manifest import Checkpoint
from launcher.train.checkpoint.stored import examine
from launcher.train.world.ranks import Ranks
from launcher.trust import reading


def main(place: Path, world: int, fault: str = "", faulty: int = -1) -> None:
    children = [_start(place, rank, world, fault if rank == faulty else "") for rank in range(world)]
    for child in children:
        os.waitpid(child, 0)
    told = [place / f"loaded.{rank}" for rank in range(world)]
    print(json.dumps([json.loads(path.read_text()) if path.exists() else None for path in told]))


def _start(place: Path, rank: int, world: int, fault: str) -> int:
    child = os.fork()
    if child:
        return child
    try:
        (place / f"loaded.{rank}").write_text(json.dumps(_rank(place, rank, world, fault)))
    finally:
        os._exit(0)


def _rank(place: Path, rank: int, world: int, fault: str) -> dict[str, Any]:
    meeting = dist.FileStore(str(place / "meet"), world)
    dist.init_process_group("gloo", store=meeting, rank=rank, world_size=world, timeout=timedelta(seconds=20))
    said: list[str] = []
    verified: dict[str, int] = {}
    _count(verified)
    if fault:
        _break(fault)
    store = CheckpointStore(place / "checkpoints", Ranks(rank, world), Claim(RunDir(place), 0), 0, 3, examine=examine)
    before, result = _read(), {"step": None, "error": ""}
    try:
        found = store.load(said.append)
        result["step"] = found and found.step
    except (CheckpointError, RuntimeError) as error:
        result["error"] = f"{type(error).__name__}: {error}"
    return {**result, "said": said, "verified": verified, "bytes": _read() - before}


def _read() -> int:
    """Bytes of all files and pipes so far, sockets not among them."""
    return int(Path("/proc/self/io").read_text().split()[1])


def _count(verified: dict[str, int]) -> None:
    verify = Checkpoint._verify

    def counted(self: Checkpoint, name: str, keep: Any) -> None:
        verified[f"{self.path.name}/{name}"] = verified.get(f"{self.path.name}/{name}", 0) + 1
        verify(self, name, keep)

    Checkpoint._verify = counted


def _break(fault: str) -> None:
    opened = reading.opened

    def broken(path: Path) -> Any:
        if path.suffix == ".safetensors" and fault == "mount":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        if path.suffix == ".safetensors":
            os.kill(os.getpid(), signal.SIGKILL)
        return opened(path)

    reading.opened = broken


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:4], *map(int, sys.argv[4:]))

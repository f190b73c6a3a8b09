"""Two real processes with one checkpoint store, started by fork: a trial takes a fifth of a second, so hundreds of kills are affordable.

Run as a program, it reads trials from stdin, one JSON object a line, and answers each with what came of it.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from processes import environment
from sharded_ranks import Sharded, preload

WORLD, SAVES = 2, 4
"""Processes, and how often a trial saves where nothing ends it."""


@contextmanager
def ranks(home: Path) -> Iterator[subprocess.Popen[str]]:
    """The program below. `ask` it."""
    words = [sys.executable, __file__]
    process = subprocess.Popen(words, env=environment(home), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(20)
        assert process.stdout is not None
        process.stdout.close()


def ask(process: subprocess.Popen[str], **trial: Any) -> dict[str, Any]:
    """`folder`, `attempt`, `crash` (as LAUNCHER_CRASH_AT) and `naive` of one trial; `overlap`: when a rank is stopped at the point, the
    next attempt runs to its end before it goes on. `sharded`: what is saved is a model under fsdp (tests/sharded_ranks.py); `saves`: how
    often; `passes`: over so many checkpoints when it loads.

    Returns {"loaded": [step …], "saved": [step …], "died": [rank …], "errors": [str …]}: what each rank loaded at first, what each knew to
    be saved at last (-1: nothing), the ranks that were killed at the point, and what went wrong that is not the loss of the other rank.
    `overlap`: of the next attempt, and "old": {…} of this one.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(trial) + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def content(step: int, rank: int, attempt: int) -> dict[str, list[bytes]]:
    """What each rank of an attempt saves at a step; several files, several pieces."""
    data = random.Random(step * WORLD + rank).randbytes(3000) + b"%06d" % attempt
    files = {f"rank_{rank}.bin": [data[:1000], data[1000:2000], data[2000:]]}
    return {**files, "shared.bin": [data, data[:7]]} if rank == 0 else files


def writer(path: Path) -> int:
    """The attempt that wrote a checkpoint."""
    if (path / "state.json").exists():
        return int(json.loads((path / "state.json").read_text())["state"]["seconds"])
    return int((path / "rank_1.bin").read_bytes()[-6:])


class Bytes:
    """What a rank has that saves no model."""

    def __init__(self, rank: int, attempt: int) -> None:
        self._rank, self._attempt = rank, attempt

    def load(self, checkpoint: Any) -> None:
        for name, pieces in content(checkpoint.step, self._rank, writer(checkpoint.path)).items():
            assert checkpoint.read(name) == b"".join(pieces), f"{name} of step {checkpoint.step} is not what was saved"

    def content(self, step: int) -> dict[str, list[bytes]]:
        return content(step, self._rank, self._attempt)


def main() -> None:
    import torch  # once, before all forks
    import torch.distributed

    import launcher.train.checkpoint.checkpoint  # noqa: F401  # each fork has it then

    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(_trial(**json.loads(line))), flush=True)


def _trial(folder: str, attempt: int, crash: str = "", overlap: bool = False, **more: Any) -> dict[str, Any]:
    place = Path(folder)
    if more.get("sharded"):
        preload()
    (place / f"meet.{attempt}").unlink(missing_ok=True)
    children = [_start(place, rank, attempt, crash, more) for rank in range(WORLD)]
    if overlap:
        stopped = children[int(crash.split(":")[1])]
        while Path(f"/proc/{stopped}/stat").read_text().rpartition(") ")[2][0] != "T":
            time.sleep(0.002)
        newer = _trial(folder, attempt + 1, **more)
        os.kill(stopped, signal.SIGCONT)
    died = _reap(children)
    told = [_said(place, attempt, rank) for rank in range(WORLD)]
    errors = [path.read_text() for path in sorted(place.glob(f"said.{attempt}.*.error"))]
    result = {"loaded": [each[0] for each in told], "saved": [each[-1] for each in told], "died": died, "errors": errors}
    return {**newer, "old": result} if overlap else result


def _start(place: Path, rank: int, attempt: int, crash: str, more: dict[str, Any]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        _rank(place, rank, attempt, crash, **more)
    except RuntimeError:
        os._exit(1)  # the other rank was killed
    except BaseException as error:
        (place / f"said.{attempt}.{rank}.error").write_text(repr(error))
        os._exit(1)
    os._exit(0)


def _reap(children: list[int]) -> list[int]:
    """Wait for all; when one was killed, kill the others: the whole tree goes. Returns the ranks killed at their point."""
    died: list[int] = []
    waiting = dict(enumerate(children))
    while waiting:
        for rank, child in list(waiting.items()):
            pid, status = os.waitpid(child, os.WNOHANG)
            if not pid:
                continue
            del waiting[rank]
            if os.WIFSIGNALED(status) and not died:
                died.append(rank)
                for other in waiting.values():
                    os.kill(other, signal.SIGKILL)
        time.sleep(0.002)
    return died


def _said(place: Path, attempt: int, rank: int) -> list[int]:
    path = place / f"said.{attempt}.{rank}"
    return [int(line) for line in path.read_text().split()] if path.exists() else [-1]


def _rank(
    place: Path, rank: int, attempt: int, point: str, naive: bool = False, sharded: bool = False, saves: int = SAVES, passes: int = 0
) -> None:
    import torch.distributed as dist

    os.environ.update(RANK=str(rank), LAUNCHER_CRASH_AT=point, GLOO_SOCKET_IFNAME="lo")
    from launcher.rundir.claim import Claim
    from launcher.rundir.rundir import RunDir
    from launcher.train.checkpoint import crash
    from launcher.train.checkpoint.checkpoint import CheckpointStore
    from launcher.train.world.ranks import Ranks

    importlib.reload(crash)  # it reads the environment when it is imported
    meeting = dist.FileStore(str(place / f"meet.{attempt}"), WORLD)
    dist.init_process_group("gloo", store=meeting, rank=rank, world_size=WORLD, timeout=timedelta(seconds=20))
    claim = Claim(RunDir(place), attempt)
    if rank == 0:
        claim.take()
    group = Ranks(rank, WORLD)
    group.wait()
    store = (naive_store() if naive else CheckpointStore)(place / "checkpoints", group, claim, attempt, 2)
    held = Sharded(rank, attempt) if sharded else Bytes(rank, attempt)
    passed_over: list[str] = []
    loaded = store.load(passed_over.append)
    assert len(passed_over) == (passes if rank == 0 else 0), passed_over
    first = -1 if loaded is None else loaded.step
    if loaded is not None:
        held.load(loaded)
    with (place / f"said.{attempt}.{rank}").open("a") as said:
        said.write(f"{first}\n")
        said.flush()
        for step in range(max(first, 0) + 1, max(first, 0) + 1 + saves):
            store.save(step, held.content(step))
            said.write(f"{step}\n")
            said.flush()


def naive_store() -> type[Any]:
    """The guards taken out: files go straight to where they are looked for, and what is there is believed."""
    from launcher.train.checkpoint.checkpoint import CheckpointStore
    from launcher.train.checkpoint.manifest import Checkpoint, by_step

    class Naive(CheckpointStore):
        def save(self, step: int, files: Any, judged: float = 0, best: int | None = None) -> None:
            self._temporary = self.path / f"step_{step:09d}"
            super().save(step, files, judged, best)

        def _has(self, step: int) -> bool:
            return False

        def _commit(self, step: int, manifest: Any, judged: float, best: int | None) -> None:
            for _, path in by_step(self.path)[self.keep :]:
                self._prune(path)

        def load(self, say: Any, newest: float = 0) -> Any:
            told = self._first(self._believed)
            return None if told is None else Checkpoint(Path(told[0]), *told[1:], WORLD)

        def _believed(self) -> Any:
            for step, path in by_step(self.path):
                held = {each.name: each.read_bytes() for each in path.iterdir()}
                files = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in held.items()}
                return str(path), step, files
            return None

    return Naive


if __name__ == "__main__":
    main()

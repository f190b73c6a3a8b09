"""For a script of your own that `python -m launcher script=…` starts: when to stop, how far it is, its state saved and found again.

    from launcher.script import run

    state, first = run.load() or (fresh(), 0)
    for step in range(first, steps):
        ...
        run.progress(step + 1, steps, loss=loss)
        if run.should_stop():
            run.save(state, step + 1)
            break

Under plain torchrun the same file runs, and each of these does nothing. Every process calls each of them, in the same order; a world of
several has its process group by then. docs/script.md says the rest.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

from launcher.errors import CheckpointError, RunError
from launcher.rundir import progress
from launcher.rundir.claim import Claim
from launcher.rundir.rundir import RunDir
from launcher.verdict import headway

if TYPE_CHECKING:
    from launcher.train.checkpoint.checkpoint import CheckpointStore
    from launcher.train.record.board import Board
    from launcher.train.record.metrics import MetricsFile
    from launcher.train.world.ranks import Ranks

_WRITTEN_SECONDS = 1.0
"""Between two lines of metrics.jsonl."""
_SHOWN_SECONDS = 5.0
"""Between two lines for whoever watches."""


class Run:
    def __init__(self, environment: Mapping[str, str]) -> None:
        place = environment.get("LAUNCHER_RUN_DIR")
        self._here = RunDir(place) if place and "LAUNCHER_STOP_SIGNAL" in environment else None
        self._rank, self._world = (int(environment.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
        self._attempt = int(environment.get("LAUNCHER_ATTEMPT", "0"))
        self._stops = self._is_over = False
        self._asking: tuple[Any, Any] | None = None
        self._told: tuple[int, int, dict[str, Any]] | None = None
        self._began = self._written = self._shown = time.monotonic()
        self._first_step: int | None = None
        self._ranks: Ranks | None = None
        self._store: CheckpointStore | None = None
        self._lines: tuple[MetricsFile, Board] | None = None
        if self._here is not None:
            self._listen(signal.Signals[f"SIG{environment['LAUNCHER_STOP_SIGNAL']}"])
            atexit.register(self.close)

    def __bool__(self) -> bool:
        """Whether the launcher has started this process."""
        return self._here is not None

    def should_stop(self) -> bool:
        """Whether to save and leave now: the same on all ranks, of what each had heard at its call before. One small message a call, which
        travels while the script computes."""
        if self._here is None or self._is_over:
            return self._is_over
        if self._world == 1:
            self._is_over = self._stops
            return self._is_over
        import torch

        if self._asking is not None:
            flag, message = self._asking
            message.wait()
            self._is_over = bool(flag.item())
        if not self._is_over:
            flag = torch.tensor([float(self._stops)])
            self._asking = flag, self._all().begin_max(flag)
        return self._is_over

    def progress(self, step: int, total: int, **numbers: Any) -> None:
        """`step` of `total` are done; `numbers` may be tensors of one element, which are read once a second. Rank 0's go into metrics.jsonl
        and TensorBoard, and `status` has the time that is left."""
        if self._here is None or self._rank:
            return
        self._told = step, total, numbers
        if self._first_step is None:
            self._first_step, self._began = step - 1, time.monotonic()
        if time.monotonic() - self._written > _WRITTEN_SECONDS or step == total:
            self._write()

    def save(self, state: Any, step: int) -> None:
        """A checkpoint of that step, whole and verified or not at all: `state` is a tree of dicts, lists and tuples of tensors, numbers and
        texts. What is equal on all ranks is written once. Raises RunError on all ranks where one of them cannot write."""
        if self._here is None:
            return
        import hashlib

        import safetensors.torch as safetensors
        import torch

        from launcher.train.checkpoint.nested import unfold

        tensors: dict[str, torch.Tensor] = {}
        told = json.dumps(unfold("state", state, tensors)).encode()
        data = safetensors.save({name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()})
        digests = self._all().gather(hashlib.sha256(told + b"\0" + data).hexdigest())
        name = _name(self._rank)
        is_other = self._rank == 0 or digests[self._rank] != digests[0]
        self._write()
        self._checkpoints().save(step, {f"{name}.json": (told,), f"{name}.safetensors": (data,)} if is_other else {})
        if self._rank == 0:
            headway.note(self._here, self._attempt, trained=f"{time.monotonic() - self._began:.1f} 0")

    def load(self) -> tuple[Any, int] | None:
        """(state, step) of the newest good checkpoint, on the CPU; None where there is none. A rank that there was not then has rank 0's.
        Raises CheckpointError where there are checkpoints and none is good."""
        if self._here is None:
            return None
        import safetensors.torch as safetensors

        from launcher.train.checkpoint.nested import fold

        found = self._checkpoints().load(lambda line: print(line, flush=True))
        if found is None:
            return None
        name = _name(self._rank) if f"{_name(self._rank)}.json" in found.files else _name(0)
        tensors = safetensors.load(found.read(f"{name}.safetensors"))
        try:
            state = fold(json.loads(found.read(f"{name}.json")), tensors.__getitem__)
        except (ValueError, KeyError) as error:
            raise CheckpointError(f"{found.path} is none of a script's state ({error}); start a new run") from error
        if self._rank == 0:
            print(f"resumed from {found.path.name}", flush=True)
            self._files()[0].rewind(found.step)
        return state, found.step

    def close(self) -> None:
        """At the end of the process by itself: what was told last is written."""
        self._write()
        if self._lines is not None:
            self._lines[1].close()
            self._lines = None

    def _listen(self, number: signal.Signals) -> None:
        """A handler that was there is called as well."""
        if threading.current_thread() is not threading.main_thread():
            return
        before = signal.getsignal(number)

        def heard(received: int, frame: FrameType | None) -> None:
            self._stops = True
            if callable(before):
                before(received, frame)

        signal.signal(number, heard)

    def _all(self) -> Ranks:
        if self._ranks is None:
            import torch.distributed as dist

            from launcher.train.world.ranks import Ranks

            if self._world > 1 and not dist.is_initialized():
                raise RunError("launcher.script: the processes have not met yet; call torch.distributed.init_process_group() before")
            self._ranks = Ranks(self._rank, self._world)
        return self._ranks

    def _checkpoints(self) -> CheckpointStore:
        assert self._here is not None, "who asks has looked"
        if self._store is None:
            from launcher.train.checkpoint.checkpoint import CheckpointStore

            self._store = CheckpointStore(self._here.checkpoints, self._all(), Claim(self._here, self._attempt), self._attempt, keep=2)
        return self._store

    def _files(self) -> tuple[MetricsFile, Board]:
        assert self._here is not None, "who asks has looked"
        if self._lines is None:
            from launcher.train.record.board import Board
            from launcher.train.record.metrics import MetricsFile

            self._lines = MetricsFile(self._here.metrics), Board(self._here.tensorboard, self._first_step or 0)
        return self._lines

    def _write(self) -> None:
        """What was told last, once."""
        if self._told is None or self._rank:
            return
        (step, total, given), self._told = self._told, None
        self._written = time.monotonic()
        numbers = {name: float(value) for name, value in given.items()}
        metrics, board = self._files()
        try:
            metrics.write(step, "train", **numbers)
        except RunError as error:
            print(f"WARNING: {error}", file=sys.stderr, flush=True)
        board.scalars(step, "train", numbers)
        if self._written - self._shown > _SHOWN_SECONDS or step == total:
            self._shown = self._written
            done = step - (self._first_step or 0)
            left = (self._written - self._began) / done * (total - step) if done > 0 else 0.0
            print(progress.told_line(step, total, numbers, left), flush=True)


def _name(rank: int) -> str:
    return f"rank_{rank:05d}"


run = Run(os.environ)
"""This process's."""

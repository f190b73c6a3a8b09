"""Finds a process that no longer trains: `python -m launcher.node.watchdog RUN_DIR ATTEMPT RESTART DESCRIPTOR PROCESSES PARENT DEVICE`, one
a node.

A process of its own, for one that is stopped, or holds the interpreter's lock, cannot watch itself. It reads what the workers write into
shared memory (launcher/node/pulse.py), and when one outlasts its limit: has every worker of the node write its stacks into its log
(faulthandler), says which rank it was and what it did (error.json), and kills that rank, which ends the attempt. It dies with the worker
that started it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.devices import CPU
from launcher.errors import TrainingFailed
from launcher.node import blame, recorder
from launcher.node.deathsig import die_with_parent
from launcher.node.pulse import AHEAD, WAITS, Beat, read, size
from launcher.rundir.rundir import RunDir

POLL_SECONDS = 0.5
STACKS_SECONDS = 1.0
"""For the workers to write their stacks."""
PATIENCE_SECONDS = 3.0
"""More, where all wait for somebody: the node that has the culprit is to speak first."""
PIPES_SECONDS = 60.0
"""For the pipes of torch's flight recorder to be made."""
STACKS = getattr(signal, "SIGRTMIN", signal.SIGTERM) + 5
"""What makes a worker write its stacks; USR1 and USR2 ask it to stop."""


@dataclass(frozen=True)
class Verdict:
    beat: Beat
    """Of the rank that is to be killed."""
    text: str


def main(argv: list[str]) -> int:
    run, attempt, restart, descriptor, processes, parent = RunDir(argv[1]), *map(int, argv[2:7])
    die_with_parent()  # which may be dead by now: so it told us its pid
    shared = mmap.mmap(descriptor, size(processes), prot=mmap.PROT_READ)
    looked = awake = time.monotonic()
    with_pipes, since = [(beat.pid, beat.rank) for beat in read(shared)], looked
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
        now, before, looked = time.monotonic(), looked, time.monotonic()
        with_pipes = recorder.hide(with_pipes) if with_pipes and now - since < PIPES_SECONDS else []
        if now - before > 10 * POLL_SECONDS:
            awake = now  # we did not run either: the whole job was suspended, not a worker
        if any(beat.is_late(now, awake) for beat in read(shared)):
            stacks = write_stacks(run, attempt, read(shared))
            if verdict := judge(read(shared), stacks, time.monotonic(), awake, on_gpu=argv[7] != CPU):
                recorder.ask([(beat.pid, beat.rank) for beat in read(shared)], run.attempt(attempt))
                _end(run, attempt, restart, verdict)
                return 0
    return 0


def write_stacks(run: RunDir, attempt: int, beats: Sequence[Beat]) -> dict[int, str]:
    """Have each worker write the stacks of its threads into its log; one that is stopped writes none yet.

    Returns that of the thread that trains, by rank, innermost frame first.
    """
    logs = {beat.rank: run.rank_log(attempt, beat.rank) for beat in beats}
    sizes = {rank: path.stat().st_size if path.exists() else 0 for rank, path in logs.items()}
    for beat in beats:
        _signal(beat.pid, STACKS)
    time.sleep(STACKS_SECONDS)
    written: dict[int, str] = {}
    for rank, path in logs.items():
        with contextlib.suppress(OSError), path.open("rb") as file:
            file.seek(sizes[rank])
            written[rank] = _training_thread(file.read().decode("utf-8", errors="replace"))
    return written


def _training_thread(text: str) -> str:
    return next((block for block in text.split("\n\n") if "launcher/train/loop.py" in block), "")


def judge(beats: Sequence[Beat], stacks: Mapping[int, str], now: float, awake: float = 0.0, *, on_gpu: bool = False) -> Verdict | None:
    """Who keeps the others waiting. None while nobody is late, or it is not sure and there is still patience.

    On a GPU a host that stands in the middle of a step may only wait for its device, which waits for another rank.
    """
    active = [beat for beat in beats if beat.phase != "end"]
    late = [beat for beat in active if beat.is_late(now, awake)]
    if not late:
        return None
    if stopped := [beat for beat in active if _state(beat.pid) in ("T", "t")]:
        return Verdict(stopped[0], "it is stopped (SIGSTOP, or a debugger)")
    last, first = min(active, key=lambda beat: beat.place), max(active, key=lambda beat: beat.place)
    others = "".join(f", {beat} waits" for beat in active if beat is not last)
    if on_gpu and last in late and last.phase in AHEAD and not _in_own_code(last, stacks):
        return Verdict(last, f"its host waits for its GPU, which may wait for a rank on another node{others}")
    if last in late and not _waits(last, stacks):
        return Verdict(last, f"it does not come to an end{others}")
    if last not in late and not _waits(last, stacks):
        return None  # each rank has learned a limit of its own: the one that all wait for has seen slower steps, and is within its own
    if last.place != first.place:
        return Verdict(first, f"it has left out a message that {last} waits for")
    busy = [beat for beat in late if _busy(beat.pid)]
    if len(busy) == 1 or len(active) == 1:
        return Verdict((busy or late)[0], f"it does not come to an end{others}")
    if now - max(beat.since + beat.limit for beat in late) < PATIENCE_SECONDS:
        return None
    return Verdict(late[0], "it waits for a rank that does not come: on another node, or lost to all")


def _waits(beat: Beat, stacks: Mapping[int, str]) -> bool:
    """For others: by its phase, or because torch.distributed is at the top of its stack."""
    top = stacks.get(beat.rank, "").splitlines()[:6]
    return beat.phase in WAITS or any("torch/distributed/" in line for line in top)


def _in_own_code(beat: Beat, stacks: Mapping[int, str]) -> bool:
    """Python is at work, not a call of torch or CUDA: the innermost frame lies outside of torch, and its thread burns a processor."""
    top = next((line for line in stacks.get(beat.rank, "").splitlines() if "File " in line), "")
    return "/torch/" not in top and _state(beat.pid) == "R"


def _end(run: RunDir, attempt: int, restart: int, verdict: Verdict) -> None:
    """Report, and kill the culprit: torchrun ends the attempt. Where another failure is reported already, it is ending anyway."""
    beat, host, log = verdict.beat, socket.gethostname(), run.rank_log(attempt, verdict.beat.rank)
    blame.leave(
        run,
        attempt,
        restart,
        "hung",
        rank=beat.rank,
        host=host,
        step=beat.step,
        exception="Hang",
        message=(
            f"rank {beat.rank} on {host} hangs in {beat.phase} of step {beat.step + 1} for {time.monotonic() - beat.since:.0f} s "
            f"(limit {beat.limit:.0f} s): {verdict.text}; the stacks of all ranks are in their logs ({log})"
        ),
        exit_code=TrainingFailed.exit_code,
        traceback=None,
    )
    if _state(beat.pid) in ("T", "t"):
        _signal(beat.pid, signal.SIGCONT)  # it writes its stacks now, for the signal is waiting
        time.sleep(STACKS_SECONDS)
    _signal(beat.pid, signal.SIGKILL)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _state(pid: int) -> str:
    """As in `ps`: R, S, D, T, Z; empty where the process is gone or nobody tells."""
    return _stat(pid)[:1]


def _stat(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/task/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(") ")[2]
    except OSError:
        return ""


def _busy(pid: int) -> bool:
    """Whether the main thread spends most of a fifth of a second on a processor."""
    before = _ticks(pid)
    time.sleep(0.2)
    return _ticks(pid) - before >= 0.1 * os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> int:
    fields = _stat(pid).split()
    return int(fields[11]) + int(fields[12]) if len(fields) > 12 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))

"""A process that does nothing but fork: worker processes come from it, and not from the trainer. Linux only.

What is forked from a trainer has copies of locks that other threads hold at that moment (NCCL's watchdog, the saver), a CUDA that must not
be touched, the trainer's handlers of signals, and the descriptor of the run's lock, which is then held until the last copy dies. A new
interpreter has none of that, but one for each worker imports torch as often: 1.5 s of a processor each, where a fork of this one, which
has imported it, takes 0.01 s (benchmarks/README.md). Forks also share torch's pages, and a lost worker is replaced within a step.

Signals that ask the trainer to stop go to a whole process group: they are ignored here, for what to do about them is the trainer's to say.
When the trainer dies the kernel kills this process, and with it the workers.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

_FOR_THE_TRAINER = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
_PR_SET_PDEATHSIG = 1
_NUMBER = struct.Struct("=q")
_GONE = 1 << 20
"""In place of an exit status: a process that cannot be killed, for it waits for a disk."""
_MOMENT_SECONDS, _KILL_SECONDS = 0.1, 5.0
START_SECONDS = 120.0
"""For modules to be imported from a file system that is slow."""
_OOM_SCORE = 500
"""Where memory ends the kernel shall take a worker, which is started again, and not the trainer."""


class Nursery:
    """What the trainer has of it. Must be made, and used, by its main thread: when the thread ends that started a process, the kernel takes
    that for the parent's death."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # The path goes in as a text: `-c` would put the working directory first, and a package named data there would be ours.
        code = f"import sys; sys.path[:] = {sys.path!r}; from data.processes.nursery import main; main({theirs.fileno()}, {os.getpid()})"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._socket = ours
        ours.settimeout(START_SECONDS)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_TRAINER)  # until the other side ignores them
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-c", code], stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=environment
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()

    def start(self, *descriptors: int) -> int:
        """A worker, with its socket, its note, and what it makes batches with. Its pid. Raises OSError."""
        socket.send_fds(self._socket, [_NUMBER.pack(0)], descriptors)
        return self._answer()

    def end(self, pid: int, is_ending: bool = False) -> str:
        """Kill that worker if it lives, a moment later where it is ending by itself. In words how it ended. Raises OSError."""
        self._socket.send(_NUMBER.pack(-pid if is_ending else pid))
        status = self._answer()
        if status == _GONE:
            return "cannot be killed (it waits for a disk or a network file system)"
        return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended by itself with status {status}"

    def close(self) -> None:
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def _answer(self) -> int:
        """Raises OSError where nobody answers."""
        try:
            answer = self._socket.recv(_NUMBER.size)
        except TimeoutError as error:
            line = f"data: no loader worker came up within {START_SECONDS:.0f} s; type loader.num_workers=0 to do without them"
            raise TimeoutError(line) from error
        if not answer:
            raise ConnectionResetError("data: the process that forks loader workers is gone, see this log; or type loader.num_workers=0")
        return _NUMBER.unpack(answer)[0]


def main(descriptor: int, trainer: int) -> None:
    _die_with(trainer)
    for number in _FOR_THE_TRAINER:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FOR_THE_TRAINER)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # descriptors on their way count too, those of all of a user's processes
    import data.processes.worker  # torch comes with it: once for all

    control = socket.socket(fileno=descriptor)
    while request := _request(control):
        number, descriptors = request
        if number:
            control.send(_NUMBER.pack(_ended(number)))
            continue
        here = os.getpid()
        pid = os.fork()
        if not pid:
            status = 1
            try:
                control.close()
                _die_with(here)
                _be_taken_first()
                data.processes.worker.work(*descriptors)
                status = 0
            except BaseException:
                traceback.print_exc()
            os._exit(status)  # what this process does at its end is none of the worker's business
        for each in descriptors:
            os.close(each)
        control.send(_NUMBER.pack(pid))


def _request(control: socket.socket) -> tuple[int, Sequence[int]] | None:
    try:
        message, descriptors, _, _ = socket.recv_fds(control, _NUMBER.size, 3, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None
    return (_NUMBER.unpack(message)[0], descriptors) if message else None


def _ended(number: int) -> int:
    """A negative one may end by itself. Nobody else waits for it, so that its number is its own until then."""
    pid, status = abs(number), _waited(abs(number), _MOMENT_SECONDS if number < 0 else 0)
    if status is None:
        os.kill(pid, signal.SIGKILL)
        status = _waited(pid, _KILL_SECONDS)
    return _GONE if status is None else status


def _waited(pid: int, seconds: float) -> int | None:
    deadline = time.monotonic() + seconds
    while (found := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.001)
    return os.waitstatus_to_exitcode(found[1])


def _die_with(parent: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was dead already
        os._exit(1)


def _be_taken_first() -> None:
    with contextlib.suppress(OSError), Path("/proc/self/oom_score_adj").open("r+", encoding="ascii") as file:
        if int(file.read()) < _OOM_SCORE:
            file.write(str(_OOM_SCORE))

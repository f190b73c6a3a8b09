"""Another account on the same machine tries what it can against a live run of mine: nothing succeeds.

The run is of uid 12345, from a mount namespace in which it may read this interpreter; where there is no such namespace, of root. The
neighbour is uid 65534: one process an attempt. Whatever returns has succeeded. Afterwards the owner tries the same: there each succeeds, or
it would be no attempt. Ports are listed and not tried: what torchrun listens on is tests/trust/test_trust_store.py's.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from another_user import as_user
from processes import PROJECT, REPO, wait_for
from test_trust_cache import planted as planted_cache

from data.vision.standin import FINGERPRINT

OWNER, NEIGHBOUR = 12_345, 65_534
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(150),
    pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="needs root and Linux, to be somebody else"),
]

NAMESPACE = """
set -e
mkdir "$1/keep"
mount --bind "$2" "$1/keep"
mount -t tmpfs -o mode=755 none "/$(echo "$2" | cut -d/ -f2)"
mkdir -p "$2"
mount --bind "$1/keep" "$2"
exec setpriv --reuid=12345 --regid=12345 --clear-groups "${@:3}"
"""
"""The interpreter of these tests may lie in a home that nobody else may enter: a directory, the interpreter's prefix, the command."""


class Victim(NamedTuple):
    base: Path
    run: Path
    processes: list[psutil.Process]
    cache: Path
    uid: int

    @property
    def workers(self) -> list[int]:
        return [each.pid for each in self.processes if "launcher.train.worker" in (words := each.cmdline()) and "--module" not in words]


@dataclass(frozen=True)
class Attempt:
    what: str
    do: Callable[[Victim], object]
    by_owner: bool = True
    """Whether the owner's own try shows that it can succeed. Not where the kernel may keep even that back (yama), or there is nothing."""


def _append(path: Path) -> None:
    with path.open("a") as file:
        file.write("echo canary\n")


def _lock(victim: Victim) -> None:
    with suppress(BlockingIOError):  # open is enough: a lock held for reading stops the next start
        fcntl.flock(os.open(victim.run / ".lock", os.O_RDONLY), fcntl.LOCK_SH | fcntl.LOCK_NB)


def _plant_beside(victim: Victim) -> None:
    for name in (".claim.1", "STOP.planted", f".summary.json.{victim.workers[0]}"):
        (victim.run / name).symlink_to("/etc/passwd")


def _another_run(victim: Victim) -> None:
    victim.run.rename(victim.run.with_name("gone"))
    victim.run.with_name("gone").rename(victim.run)


def _another_runs_dir(victim: Victim) -> None:
    runs = victim.run.parent.parent
    runs.rename(runs.with_name("gone"))
    runs.with_name("gone").rename(runs)


def _all_files(victim: Victim) -> list[Path]:
    """Below what is shared: /tmp and the like. A name that only root sees was given to nobody."""
    found: list[Path] = []
    for top in ("/tmp", "/dev/shm", "/var/tmp", "/run/lock"):
        for place, _, files in os.walk(top):
            found += [path for path in (Path(place) / name for name in files) if _belongs(path, victim.uid)]
    return found


def _belongs(path: Path, uid: int) -> bool:
    with suppress(OSError):
        return path.lstat().st_uid == uid and path.is_file()
    return False


def _temporary(victim: Victim) -> list[str]:
    """Any file of theirs in a directory that all share."""
    opened: list[str] = []
    for path in _all_files(victim):
        with suppress(OSError), path.open("rb"):
            opened.append(str(path))
    if not opened:
        raise PermissionError(13, "none can be opened")
    return opened


def _signal(number: int) -> Callable[[Victim], None]:
    def send(victim: Victim) -> None:
        for process in victim.processes:
            os.kill(process.pid, number)

    return send


def _ptrace(victim: Victim) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(0x4206, victim.workers[0], 0, 0) != 0:  # SEIZE, which does not stop it
        raise OSError(ctypes.get_errno(), "ptrace")
    libc.ptrace(17, victim.workers[0], 0, 0)


def _vm_read(victim: Victim) -> None:
    class Piece(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

    libc, box = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(8)
    here, there = Piece(ctypes.addressof(box), 8), Piece(ctypes.addressof(box), 8)
    if libc.process_vm_readv(victim.workers[0], ctypes.byref(here), 1, ctypes.byref(there), 1, 0) < 0:
        raise OSError(ctypes.get_errno(), "process_vm_readv")


def _proc(name: str, flags: int = os.O_RDONLY) -> Callable[[Victim], object]:
    def read(victim: Victim) -> object:
        """Of the launcher, torchrun, the watchdog and each worker: one is enough."""
        error: OSError | None = None
        for process in victim.processes:
            try:
                os.close(os.open(f"/proc/{process.pid}/{name}", flags))
                return process.pid
            except OSError as refused:
                error = refused
        raise error or OSError("no process")

    return read


def _descriptors(victim: Victim) -> object:
    """The pulses (memfd), the ledger, the pipes."""
    for process in victim.processes:
        for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                descriptor.readlink()
    return "read"


def _descriptor(victim: Victim) -> object:
    """Without being told which there are."""
    error: OSError | None = None
    for number in range(3, 60):
        try:
            os.close(os.open(f"/proc/{victim.workers[0]}/fd/{number}", os.O_RDWR))
            return number
        except OSError as refused:
            error = refused if error is None or refused.errno in (1, 13) else error
    raise error or OSError("none")


def _affinity(victim: Victim) -> None:
    os.sched_setaffinity(victim.workers[0], os.sched_getaffinity(victim.workers[0]))


def _limits(victim: Victim) -> None:
    import resource

    resource.prlimit(victim.workers[0], resource.RLIMIT_FSIZE, resource.prlimit(victim.workers[0], resource.RLIMIT_FSIZE))


def _decoded(victim: Victim) -> Path:
    return next(path for path in victim.cache.glob(f"standin-{FINGERPRINT[:16]}-v2-u*") if path.is_dir())


def _cache_write(victim: Victim) -> None:
    _append(_decoded(victim) / "train.labels")


def _cache_replace(victim: Victim) -> None:
    place = _decoded(victim)
    place.rename(place.with_name("gone"))
    place.with_name("gone").rename(place)


def _sockets(victim: Victim) -> object:
    """Sockets with a name in the file system or without one (abstract)."""
    listening = [line.split()[7] for line in Path("/proc/net/unix").read_text().splitlines()[1:] if len(line.split()) > 7]
    for name in listening:
        with suppress(OSError):
            path = "\0" + name[1:] if name.startswith("@") else name
            if not name.startswith("@") and Path(name).lstat().st_uid != victim.uid:
                continue
            for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
                with socket.socket(socket.AF_UNIX, kind) as probe, suppress(OSError):
                    probe.connect(path)
                    if _peer(probe) == victim.uid:
                        return name
    raise PermissionError(13, "none answers")


def _peer(probe: socket.socket) -> int:
    return int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[4:8], sys.byteorder)


ATTEMPTS = [
    Attempt("list the run", lambda victim: list(victim.run.iterdir())),
    Attempt("read its config", lambda victim: (victim.run / "config.yaml").read_text()),
    Attempt("read its log", lambda victim: (victim.run / "attempts" / "000" / "rank_0.log").read_text()),
    Attempt("read a checkpoint", lambda victim: next((victim.run / "checkpoints").glob("step_*/*")).open("rb")),
    Attempt("hold its lock", _lock),
    Attempt("write its claim", lambda victim: (victim.run / ".claim").open("r+")),
    Attempt("write its ledger", lambda victim: (victim.run / "events.jsonl").open("a")),
    Attempt("edit job.sh", lambda victim: _append(victim.run / "job.sh")),
    Attempt("take job.sh away", lambda victim: (victim.run / "job.sh").unlink()),
    Attempt("edit its config", lambda victim: _append(victim.run / "config.yaml")),
    Attempt("plant links beside its files", _plant_beside),
    Attempt("plant a checkpoint", lambda victim: (victim.run / "checkpoints" / "step_999999999").mkdir()),
    Attempt("open its files in /tmp and /dev/shm", _temporary),
    Attempt("read the environment", _proc("environ")),
    Attempt("read the memory", _proc("mem"), by_owner=False),
    Attempt("write the memory", _proc("mem", os.O_RDWR), by_owner=False),
    Attempt("attach (ptrace)", _ptrace, by_owner=False),
    Attempt("read the memory (process_vm_readv)", _vm_read, by_owner=False),
    Attempt("list the open files", _descriptors),
    Attempt("open an open file, the pulse among them", _descriptor),
    Attempt("look where it stands", _proc("cwd/.")),
    Attempt("pin it to a processor", _affinity),
    Attempt("set its limits", _limits, by_owner=False),
    Attempt("write the decoded data", _cache_write),
    Attempt("put other decoded data in their place", _cache_replace),
    Attempt("connect to a socket of its own", _sockets, by_owner=False),
    Attempt("put another runs_dir in the place of its own", _another_runs_dir),
    Attempt("put another run in its place", _another_run),
    Attempt("send a signal (CONT)", _signal(signal.SIGCONT)),
    Attempt("ask it to stop (STOP)", lambda victim: (victim.run / "STOP").touch()),
    Attempt("send a signal (TERM)", _signal(signal.SIGTERM)),
    Attempt("send a signal (KILL)", _signal(signal.SIGKILL)),
]


def tried(attempt: Attempt, victim: Victim, uid: int) -> tuple[bool, str]:
    """Whether it succeeded, and what came of it, in a process of `uid` alone."""
    succeeded, said = as_user(uid, lambda: attempt.do(victim))
    return succeeded, said[:60]


def ports(victim: Victim) -> list[str]:
    """What listens for more than this machine: which attempts to connect are left to tests/trust/test_trust_store.py."""
    found = [
        f"{each.laddr.ip}:{each.laddr.port}"
        for process in victim.processes
        for each in process.net_connections("tcp")
        if each.status == psutil.CONN_LISTEN
    ]
    return sorted({where for where in found if not where.startswith(("127.", "::1:", "::ffff:127."))})


def _words(base: Path, uid: int) -> list[str]:
    launcher = [
        sys.executable, "-m", "launcher", "+exp=cifar", f"runs_dir={base}/scratch/runs", "id=1", "data.source=standin", "model=resnet8",
        "train.batch_size=32", "train.save_every=2", "train.log_every=1", "cluster.processes_per_node=2", "cluster.device=cpu",
    ]  # fmt: skip
    within = ["unshare", "--mount", "--propagation", "private", "bash", "-c", NAMESPACE, "-", str(base), sys.base_prefix]
    return [*within, *launcher] if uid else launcher


def _owner(base: Path) -> int:
    """12345 where it can be made to read this interpreter, else root."""
    argv = _words(base, OWNER)
    done = subprocess.run([*argv[: argv.index("-m")], "-c", "import yaml"], capture_output=True, check=False)
    return OWNER if done.returncode == 0 else 0


@pytest.fixture
def victim() -> Iterator[Victim]:
    base = Path(tempfile.mkdtemp(prefix="neighbour-"))
    base.chmod(0o755)
    uid = _owner(base)
    shutil.rmtree(base / "keep", ignore_errors=True)
    for name, mode in (("scratch", 0o1777), ("home", 0o755), ("cache", 0o1777)):
        (base / name).mkdir()
        (base / name).chmod(mode)
    os.chown(base / "home", uid, uid)
    _plant_cache(base / "cache")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("LAUNCHER_", "HF_"))}
    env |= {"HOME": str(base / "home"), "LAUNCHER_CACHE": str(base / "cache"), "PYTHONPATH": f"{REPO}:{PROJECT}", "HF_HUB_OFFLINE": "1"}
    env |= {"PYTHONDONTWRITEBYTECODE": "1", "XDG_STATE_HOME": str(base / "home" / "state"), "CANARY": "a secret"}
    with (base / "out").open("wb") as out:
        process = subprocess.Popen(_words(base, uid), cwd=base / "home", env=env, stdout=out, stderr=out)
    try:
        run = base / "scratch" / "runs" / "cifar-standin" / "1"
        wait_for(lambda: process.poll() is not None or list(run.glob("checkpoints/step_*")), 90, "a checkpoint")
        assert process.poll() is None, (base / "out").read_text()
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        yield Victim(base, run, tree, base / "cache", uid)
    finally:
        if process.poll() is None:
            for each in (psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    each.kill()
        process.wait()
        shutil.rmtree(base)


def _plant_cache(cache: Path) -> None:
    """The neighbour was there first: a stand-in with checksums that are right, and other labels."""
    place = planted_cache(cache)
    place = place.rename(cache / f"standin-{FINGERPRINT[:16]}-v2")
    for path in (place, *place.iterdir()):
        os.chown(path, NEIGHBOUR, NEIGHBOUR)
        path.chmod(path.stat().st_mode | 0o055)


def test_a_neighbour_cannot_do_anything_to_a_run(victim: Victim) -> None:
    assert len(victim.workers) == 2
    before = {path: path.read_bytes() for path in (victim.run / name for name in ("job.sh", "config.yaml", "plan.json"))}
    results = [(attempt, *tried(attempt, victim, NEIGHBOUR)) for attempt in ATTEMPTS]
    planted = victim.cache / f"standin-{FINGERPRINT[:16]}-v2"
    mapped = [pid for pid in victim.workers if f"{planted}/" in Path(f"/proc/{pid}/maps").read_text()]
    results.append((Attempt("have planted data trained on", lambda _: None), bool(mapped), str(mapped or "a copy of one's own is")))
    table = "\n".join(f"{attempt.what:45} {'SUCCEEDS' if succeeded else 'refused'}: {said}" for attempt, succeeded, said in results)
    listening = ports(victim)
    print(f"\nuid {NEIGHBOUR} against a run of uid {victim.uid}\n{table}\nlistens for other machines: {', '.join(listening) or 'nothing'}")

    assert len(results) >= 20
    assert not [attempt.what for attempt, succeeded, _ in results if succeeded]
    assert all(process.is_running() for process in victim.processes)
    assert before == {path: path.read_bytes() for path in before}
    newest = max(victim.run.glob("checkpoints/step_*"))
    wait_for(lambda: max(victim.run.glob("checkpoints/step_*")) > newest, 30, "a checkpoint after all that")

    void = [attempt.what for attempt in ATTEMPTS if attempt.by_owner and not tried(attempt, victim, victim.uid)[0]]
    assert not void, "the owner cannot either: that shows nothing"

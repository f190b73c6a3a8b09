"""Where processes meet, nobody else does: another account of this machine, or whoever reaches the port between nodes.

The attacker is real: uid 65534 against a live run, a store of torch's own with a pickle in it, a gloo peer that has everything but the key.
"""

from __future__ import annotations

import errno
import os
import pickle
import re
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from processes import REPO, descendants, losses, needs_root, running, toy_words, wait_for

KEY = b"k" * 64
PREFIX = f"launcher-meeting-{os.getuid()}-"
ATTACK = r"""
import glob, os, signal, socket, sys
ports, pids, place, canary = eval(sys.argv[1]), eval(sys.argv[2]), sys.argv[3], sys.argv[4]
won = []
def attempt(what, action):
    try:
        if action():
            won.append(what)
    except (OSError, EOFError):
        pass
attempt("look into the meeting", lambda: os.listdir(place) or True)
for name in ("meeting.key", "restart_0"):
    attempt(f"read {name}", lambda: open(f"{place}/{name}", "rb").read(1) or True)
    attempt(f"write {name}", lambda: open(f"{place}/{name}", "ab").close() or True)
    attempt(f"link at {name}", lambda: os.link(f"{place}/{name}", canary + name) or True)
attempt("plant a file", lambda: open(f"{place}/restart_1", "wb").close() or True)
attempt("rename the meeting", lambda: os.rename(place, place + "x") or True)
attempt("remove the meeting", lambda: os.rmdir(place) or True)
for pid in pids:
    attempt(f"signal {pid}", lambda: os.kill(pid, signal.SIGTERM) or True)
    attempt(f"environment of {pid}", lambda: open(f"/proc/{pid}/environ", "rb").read(1))
    attempt(f"memory of {pid}", lambda: open(f"/proc/{pid}/mem", "rb"))
    attempt(f"descriptors of {pid}", lambda: os.listdir(f"/proc/{pid}/fd"))
for port in ports:
    for first in (b"\xce\xf7\x85\x3c" + b"\0" * 64, b"\0" * 8, (1).to_bytes(8, "little"), b"\xff" * 4096):
        def talk():
            with socket.create_connection(("127.0.0.1", port), 0.5) as line:
                line.settimeout(0.3)
                line.sendall(first)
                return line.recv(1)  # a store would answer, a listener of gloo says nothing
        attempt(f"an answer at port {port}", talk)
print(won)
"""


def listening(pids: set[int]) -> dict[int, list[tuple[str, int]]]:
    """Process -> the addresses it listens at, as `ss -ltnp` has it."""
    rows = {}
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A":
                host, port = local.split(":")
                raw = b"".join(bytes.fromhex(host[at : at + 8])[::-1] for at in range(0, len(host), 8))
                rows[rest[5]] = (socket.inet_ntop(family, raw), int(port, 16))
    found: dict[int, list[tuple[str, int]]] = {pid: [] for pid in pids}
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = str(link.readlink())
            except OSError:
                continue
            if (inode := target.removeprefix("socket:[").removesuffix("]")) in rows:
                found[pid].append(rows[inode])
    return found


@needs_root
@pytest.mark.timeout(150)
def test_another_account_gets_nothing_of_a_run_that_lives(tmp_path: Path) -> None:
    words = toy_words(tmp_path / "runs", "id=a", "train.steps=1000000", "cluster.processes_per_node=2")
    # As a login shell of a cluster has them: on one machine they are not for us.
    with running(tmp_path, words, GLOO_SOCKET_IFNAME="eth0", NCCL_SOCKET_IFNAME="eth0") as process:
        run = tmp_path / "runs" / "toy" / "a"
        wait_for(lambda: max(losses(run), default=0) > 3, what="a few steps")
        tree = [process.pid, *(child.pid for child in descendants(process.pid))]
        found = listening(set(tree))
        every = [address for addresses in found.values() for address in addresses]
        assert every, "two ranks of gloo listen somewhere"
        assert {host for host, _ in every} <= {"127.0.0.1", "::1"}
        torchrun = next(pid for pid in tree if "launcher.train.torchrun" in psutil.Process(pid).cmdline())
        assert found[torchrun] == []
        place = psutil.Process(next(iter(psutil.Process(torchrun).children())).pid).environ()["LAUNCHER_MEETING"]
        assert stat.S_IMODE(Path(place).stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in Path(place).iterdir()} == {0o600}
        stolen = tmp_path / "stolen"
        attack = subprocess.run(
            ["/usr/bin/python3", "-c", ATTACK, repr([port for _, port in every]), repr(tree), place, str(stolen)],
            user=65534,
            group=65534,
            extra_groups=[],
            cwd="/",
            env={},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (attack.returncode, attack.stdout, attack.stderr) == (0, "[]\n", "")
        before = max(losses(run))
        wait_for(lambda: max(losses(run)) > before + 3, what="training on")
        assert process.poll() is None
    assert not Path(place, "restart_1").exists()


# ---------------------------------------------------------------- between nodes


@pytest.fixture
def tcp() -> Any:
    import torch.distributed as dist

    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=5))


def sealed(inner: Any, key: bytes = KEY, label: str = "workers") -> Any:
    from launcher.train.world.sealed import Sealed

    return Sealed(inner, key, label)


def test_a_sealed_store_is_a_store(tcp: Any) -> None:
    import torch.distributed as dist

    mine, theirs = sealed(tcp), sealed(tcp.clone())
    mine.set("a", "text")
    mine.set("b", bytes(range(256)))
    mine.set("empty", "")
    assert [theirs.get("a"), theirs.get("b"), theirs.get("empty")] == [b"text", bytes(range(256)), b""]
    assert theirs.multi_get(["a", "b"]) == [b"text", bytes(range(256))]
    mine.multi_set(["c", "d"], ["1", "2"])
    assert theirs.multi_get(["d", "c"]) == [b"2", b"1"]
    assert mine.compare_set("new", "", "first") == b"first"
    assert theirs.compare_set("new", "", "second") == b"first"
    assert theirs.compare_set("new", "wrong", "second") == b"first"
    assert theirs.compare_set("new", "first", "second") == b"second"
    assert mine.get("new") == b"second"
    assert mine.compare_set("absent", "something", "else") == b"something"
    assert [mine.add("count", 1), theirs.add("count", 2)] == [1, 3]
    assert (mine.check(["a"]), mine.check(["nowhere"])) == (True, False)
    assert mine.delete_key("a")
    mine.wait(["b", "c"])
    through = dist.PrefixStore("x", dist.PrefixStore("y", mine))  # pyright: ignore[reportPrivateImportUsage]
    through.clone().set("deep", "down")
    assert sealed(tcp).get("y/x/deep") == b"down"
    mine.set_timeout(timedelta(milliseconds=200))
    began = time.monotonic()
    with pytest.raises(dist.DistStoreError):
        mine.get("nowhere")
    assert time.monotonic() - began < 3


def test_who_reads_the_store_between_nodes_learns_nothing_and_who_writes_is_not_believed(tcp: Any) -> None:
    from launcher.train.world.sealed import Forged

    mine = sealed(tcp)
    secret = b"ncclUniqueId" * 10
    mine.set("id", secret)
    mine.set("other", secret)
    raw = tcp.get("id")
    assert secret[:12] not in raw
    assert raw != tcp.get("other")
    # torch takes 8 MiB for one message and hangs up on who sends more.
    turned = [raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :] for at in (0, 40, len(raw) - 1)]
    for forged in (b"", secret, raw[:31], raw[:-1], raw + b"\0", raw + bytes(7 << 20), *turned, tcp.get("other")):
        tcp.set("id", forged)
        began = time.monotonic()
        with pytest.raises(Forged, match="'id' in the store of the workers was not written by this run"):
            mine.get("id")
        assert time.monotonic() - began < 2
        with pytest.raises(Forged):
            mine.multi_get(["id"])
        if forged:
            with pytest.raises(Forged):
                mine.compare_set("id", "old", "new")
    tcp.set("id", raw)
    for other in (sealed(tcp, b"q" * 64), sealed(tcp, label="nodes")):
        with pytest.raises(Forged):
            other.get("id")
    assert mine.get("id") == secret


class Canary:
    """What a pickle can be."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("backend", ["sealed", "c10d"])
def test_a_pickle_that_somebody_left_where_nodes_meet_is_not_run(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tcp: Any
) -> None:
    """torch's own runs it, which shows that this could fail."""
    from base64 import b64encode

    from torch.distributed.elastic.rendezvous import RendezvousParameters
    from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

    from launcher.train import torchrun
    from launcher.train.world import meeting

    torchrun.register()
    monkeypatch.setenv(meeting.HERE, str(tmp_path))
    (tmp_path / meeting.KEY).write_bytes(KEY)
    (tmp_path / meeting.KEY).chmod(0o600)
    canary = tmp_path / "canary"
    for name in ("torch.rendezvous.7.000", "torch.rendezvous.sealed.7.000"):
        tcp.set(name, b64encode(pickle.dumps(Canary(canary))).decode())
    where = RendezvousParameters(backend, f"127.0.0.1:{tcp.port}", "7.000", 2, 2, "127.0.0.1", is_host="false")
    with pytest.raises(Exception) as raised:  # noqa: PT011  # of torch's own: whatever comes of a state that is none
        get_rendezvous_handler(where).is_closed()
    assert canary.exists() == (backend == "c10d")
    if backend == "sealed":
        assert "was not written by this run" in str(raised.value.__cause__ or raised.value)


def test_two_nodes_with_one_key_meet_and_one_with_another_does_not(tmp_path: Path, tcp: Any) -> None:
    """Real handlers of torch's over the sealed store, in processes of their own."""
    program = (
        "import sys\n"
        "from torch.distributed.elastic.rendezvous import RendezvousParameters\n"
        "from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler\n"
        "from launcher.train import torchrun\n"
        "where = RendezvousParameters('sealed', sys.argv[1], '7.000', 2, 2, '127.0.0.1', is_host='false', join_timeout='8')\n"
        "torchrun.register()\n"
        "found = get_rendezvous_handler(where).next_rendezvous()\n"
        "print(found.rank, found.world_size, found.bootstrap_store_info.master_addr)\n"
    )

    def node(name: str, key: bytes) -> subprocess.Popen[str]:
        (tmp_path / name).mkdir()
        path = tmp_path / name / "meeting.key"
        path.write_bytes(key)
        path.chmod(0o600)
        env = {**os.environ, "PYTHONPATH": str(REPO), "LAUNCHER_MEETING": str(path.parent)}
        words = [sys.executable, "-c", program, f"127.0.0.1:{tcp.port}"]
        return subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    nodes = [node("first", KEY), node("second", KEY), node("stranger", b"q" * 64)]
    said = [each.communicate(timeout=60) for each in nodes]
    both = sorted(out for out, _ in said[:2])
    # The stranger may have been there first: then the others do not meet either, and nobody is misled.
    assert both == ["0 2 127.0.0.1\n", "1 2 127.0.0.1\n"] or both == ["", ""], said
    assert said[2][0] == ""
    assert "was not written by this run" in "".join(err for _, err in said)


# ---------------------------------------------------------------- the connections between ranks

RANK = """
import os, sys, torch, torch.distributed as dist
from datetime import timedelta
from launcher.train.world import proof
rank, files = int(sys.argv[1]), sys.argv[2]
os.environ["GLOO_SOCKET_IFNAME"] = "lo"
store = dist.FileStore(files, 2)
dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=20))
if sys.argv[3] == "proven":
    proof.prove(None, "world.0")
box = torch.full((2,), float(rank))
dist.all_reduce(box)
print(box.tolist(), flush=True)
os._exit(0)
"""


@pytest.mark.parametrize(
    ("keys", "how", "expected"),
    [
        (("a", "a"), "proven", ["[1.0, 1.0]", "[1.0, 1.0]"]),
        (("a", "b"), "proven", ["", ""]),
        (("a", "b"), "taken on trust", ["[1.0, 1.0]", "[1.0, 1.0]"]),
    ],
    ids=["ours", "a stranger", "a stranger without the guard"],
)
def test_a_rank_that_has_all_but_the_key_is_sent_nothing(keys: tuple[str, str], how: str, expected: list[str], tmp_path: Path) -> None:
    """Whoever takes a connection of gloo speaks for that rank: its word is the first that is looked at."""
    ranks = []
    for rank, key in enumerate(keys):
        place = tmp_path / str(rank)
        place.mkdir()
        (place / "meeting.key").write_text(64 * key)
        (place / "meeting.key").chmod(0o600)
        env = {**os.environ, "PYTHONPATH": str(REPO), "LAUNCHER_MEETING": str(place)}
        words = [sys.executable, "-c", RANK, str(rank), str(tmp_path / "files"), how]
        ranks.append(subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    said = [each.communicate(timeout=60) for each in ranks]
    assert [out.strip() for out, _ in said] == expected, said
    if expected == ["", ""]:
        assert "somebody who is not of this run has connected to rank" in said[0][1] + said[1][1]


def test_no_message_between_ranks_is_a_pickle() -> None:
    """torch's collectives of objects unpickle what they receive."""
    found = [path.name for path in (REPO / "launcher").rglob("*.py") if re.search(r"\w+_object(_list)?\(", path.read_text())]
    assert found == []


# ---------------------------------------------------------------- the directory and the key


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Path]]:
    """Meetings below `tmp_path`, as torchrun makes them; torn down as at its end."""
    import atexit
    import tempfile

    from launcher.train.world import meeting

    ends: list[tuple[Any, ...]] = []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(atexit, "register", lambda *words, **_: ends.append(words))
    monkeypatch.setenv(meeting.HERE, "/nowhere")

    def make() -> Path:
        meeting.make()
        return Path(os.environ[meeting.HERE])

    yield make
    for action, *words in ends:
        action(*words)
    assert list(tmp_path.glob("launcher-meeting-*")) == []


def test_the_meeting_is_shut_to_others_and_its_key_is_new_each_time(made: Callable[[], Path]) -> None:
    from launcher.train.world import meeting

    places = [made(), made()]
    keys = [(place / "meeting.key").read_bytes() for place in places]
    assert {stat.S_IMODE(place.stat().st_mode) for place in places} == {0o700}
    assert {stat.S_IMODE((place / "meeting.key").stat().st_mode) for place in places} == {0o600}
    assert len(set(keys)) == 2
    assert meeting.secret() == keys[1]
    assert len(keys[1]) == 64


@pytest.mark.parametrize("whose", ["dead", "alive", "young", "another's", "a link"])
def test_what_a_killed_torchrun_left_is_swept_and_nothing_else(whose: str, tmp_path: Path, made: Callable[[], Path]) -> None:
    if whose == "another's" and os.getuid() != 0:
        pytest.skip("needs root, to make a directory of somebody else")
    place = tmp_path / f"{PREFIX}x"
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" if whose == "a link" else place
    if whose == "a link":
        place.symlink_to(target)
    elif whose != "alive":
        place.mkdir()
    else:
        place = made()
    (target if whose == "a link" else place).joinpath("restart_0").touch()
    if whose == "another's":
        os.chown(place, 65534, 65534)
    if whose != "young":
        os.utime(place, (1, 1))
    made()
    assert place.exists() == (whose != "dead")
    if whose == "a link":
        assert (target / "restart_0").exists()
        place.unlink()
    elif whose in ("young", "another's"):
        (place / "restart_0").unlink()
        place.rmdir()


@pytest.mark.parametrize(
    ("mode", "text", "words"),
    [
        (0o640, 64 * "a", "can be read by others (mode 640); put runs_dir where a file can be 0600"),
        (0o604, 64 * "a", "can be read by others (mode 604)"),
        (0o600, "", "holds 0 bytes instead of 32 or more; resume the run"),
        (0o600, None, "cannot be read (No such file or directory); start the run by its job.sh or with resume"),
        (0o600, "link", "cannot be read (Too many levels of symbolic links)"),
    ],
)
def test_a_key_that_is_none_is_one_line(mode: int, text: str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from launcher.errors import ConfigError
    from launcher.train.world import meeting

    monkeypatch.setenv(meeting.HERE, str(tmp_path))
    path = tmp_path / meeting.KEY
    if text == "link":
        (tmp_path / "other").write_text(64 * "a")
        path.symlink_to(tmp_path / "other")
    elif text is not None:
        path.write_text(text)
        path.chmod(mode)
    with pytest.raises(ConfigError, match=re.escape(words)):
        meeting.secret()


def test_a_file_system_that_does_not_answer_is_no_mistake_of_a_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from launcher.errors import RunError
    from launcher.train.world import meeting

    def fail(*asked: object) -> int:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setenv(meeting.HERE, str(tmp_path))
    monkeypatch.setattr(meeting.os, "open", fail)
    with pytest.raises(RunError, match="cannot be read"):
        meeting.secret()


def test_a_script_of_an_older_launcher_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from launcher.errors import ConfigError
    from launcher.train.world import meeting

    monkeypatch.delenv(meeting.HERE, raising=False)
    with pytest.raises(ConfigError, match=r"rm job\.sh in the run's directory, and resume again"):
        meeting.secret()


def test_processes_meet_where_python_finds_no_directory_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    from launcher.errors import ConfigError
    from launcher.train.world import meeting

    def nowhere() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    def full(prefix: str, dir: str) -> str:
        raise OSError(28, "No space left on device", dir)

    monkeypatch.setattr(meeting.tempfile, "gettempdir", nowhere)
    monkeypatch.setattr(meeting.tempfile, "mkdtemp", full)
    with pytest.raises(ConfigError, match=r"no directory for the processes to meet in .*; set TMPDIR"):
        meeting.make()

"""Machines that a test makes and takes away: namespaces with an address, a name, a host key, a home and a real sshd each.

    with Hosts(place, 3) as hosts:
        hosts.launcher(home, words)     the launcher, on a machine of its own on the same network
        hosts["gpu2"].die()             all its processes are gone at once, as when the power is
        hosts["gpu2"].boot()            and it is back
        hosts["gpu2"].cut()             nothing goes in or out any more; mend() ends it

They see one file system, but for their homes and what `own` makes each its own. Nothing of it outlives the block: namespaces end with the
processes that are in them, and no address or interface of this machine is touched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

import psutil
from processes import environment

NETWORK = "10.87.0"


def why_not() -> str:
    """Why there can be none here; empty where there can."""
    missing = [name for name in ("sshd", "ssh", "ssh-keygen", "ip", "nsenter", "unshare") if not _program(name)]
    if missing:
        return f"{', '.join(missing)} missing; apt install openssh-server iproute2 util-linux"
    if os.geteuid() != 0:
        return "machines of namespaces take root"
    done = subprocess.run(["unshare", "--net", "--pid", "--fork", "--mount-proc", "--uts", "true"], capture_output=True, text=True)
    return f"no namespaces here ({done.stderr.strip()})" if done.returncode else ""


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, (argv, done.stderr)


def _inside(pid: int, *argv: str) -> None:
    _run("nsenter", f"--target={pid}", "--net", *argv)


class Host:
    def __init__(self, name: str, number: int, place: Path, switch: int, sshd: Sequence[str] = ()) -> None:
        self.name, self.number, self.place, self._switch, self._sshd = name, number, place, switch, list(sshd)
        self.address = f"{NETWORK}.{number + 1}"
        self.home = place / "home"
        for own in (self.home, place / "tmp"):
            own.mkdir(parents=True)
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / "host_key"))
        users = Path("/etc/passwd").read_text().splitlines()
        mine = [line if not line.startswith("root:") else f"root:x:0:0:root:{self.home}:/bin/bash" for line in users]
        (place / "passwd").write_text("\n".join(mine) + "\n")
        self._process: subprocess.Popen[bytes] | None = None
        self.boot()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def boot(self) -> None:
        settings = [
            "Port 22",
            f"HostKey {self.place}/host_key",
            "PidFile none",
            f"AuthorizedKeysFile {self.place.parent}/key.pub",
            "PermitRootLogin yes",
            "PasswordAuthentication yes",
            "UsePAM no",
            "StrictModes no",
            "MaxStartups 100",
            f"SetEnv TMPDIR={self.place}/tmp",
            *self._sshd,
        ]
        (self.place / "sshd_config").write_text("\n".join(settings) + "\n")
        inside = [
            f"hostname {self.name}",
            f"mount --bind '{self.place}/passwd' /etc/passwd",  # another home, where the Python of this machine may lie
            "mount -t tmpfs none /run && mkdir /run/sshd",
            f"mount -t tmpfs -o size=64m none '{self.place}/tmp'",
            "ip link set lo up",
            f"for each in $(seq 100); do [ -e '{self.place}/wired' ] && break; sleep 0.02; done",
            f"exec {_program('sshd')} -D -e -f '{self.place}/sshd_config'",
        ]
        (self.place / "wired").unlink(missing_ok=True)
        words = ["unshare", "--net", "--pid", "--fork", "--mount", "--mount-proc", "--uts", "--kill-child", "sh", "-c", "\n".join(inside)]
        with (self.place / "sshd.log").open("ab") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        _until(lambda: Path(f"/proc/{self.pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink(), "its network")
        wire = f"w{self.number}"
        mac = f"02:00:00:00:00:{self.number + 1:02x}"  # the same at each boot, as a machine's is: others remember it
        _inside(self._switch, "ip", "link", "add", wire, "type", "veth", "peer", "name", "eth0", "address", mac, "netns", str(self.pid))
        _inside(self._switch, "ip", "link", "set", wire, "master", "bridge", "up")
        _inside(self.pid, "ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        _inside(self.pid, "ip", "link", "set", "eth0", "up")
        (self.place / "wired").touch()

    def die(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            everything = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
            psutil.wait_procs(everything, timeout=10)

    def cut(self) -> None:
        _inside(self._switch, "ip", "link", "set", f"w{self.number}", "down")

    def mend(self) -> None:
        _inside(self._switch, "ip", "link", "set", f"w{self.number}", "up")

    def processes(self) -> list[str]:
        """All there but sshd's own first process and what connects to it."""
        found = psutil.Process(self.pid).children(recursive=True) if self._process is not None else []
        words: list[str] = []
        for each in found:
            with contextlib.suppress(psutil.Error):
                line = " ".join(each.cmdline())
                if line and each.status() != psutil.STATUS_ZOMBIE and "sshd" not in line:
                    words.append(line)
        return words


class Hosts:
    def __init__(self, place: Path, count: int, sshd: Sequence[str] = ()) -> None:
        self._place, self._count, self._sshd = place, count, sshd
        self._hosts: dict[str, Host] = {}
        self._others: list[subprocess.Popen[bytes]] = []

    def __getitem__(self, name: str) -> Host:
        return self._hosts[name]

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts.values())

    def __enter__(self) -> Hosts:
        try:
            self._build()
        except BaseException:
            self._end()
            raise
        return self

    def _build(self) -> None:
        self._place.mkdir(parents=True, exist_ok=True)
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._place / "key"))
        switch, self.seat = self._namespace(), self._namespace()
        _inside(switch, "ip", "link", "add", "bridge", "type", "bridge")
        _inside(switch, "ip", "link", "set", "bridge", "up")
        _inside(switch, "ip", "link", "add", "seat", "type", "veth", "peer", "name", "eth0", "netns", str(self.seat))
        _inside(switch, "ip", "link", "set", "seat", "master", "bridge", "up")
        for words in (("addr", "add", f"{NETWORK}.200/24", "dev", "eth0"), ("link", "set", "eth0", "up"), ("link", "set", "lo", "up")):
            _inside(self.seat, "ip", *words)
        for number in range(self._count):
            name = f"gpu{number + 1}"
            self._hosts[name] = Host(name, number, self._place / name, switch, self._sshd)
        self.config = self._place / "ssh_config"
        self.write_config()
        _until(lambda: all(self.ssh(host.name, "true").returncode == 0 for host in self), "sshd")

    def write_config(self, **more: Sequence[str]) -> None:
        """`more`: lines for one host, before the usual ones."""
        lines: list[str] = []
        known = [f"{host.address} {(host.place / 'host_key.pub').read_text()}" for host in self]
        (self._place / "known_hosts").write_text("".join(known))
        for host in self:
            lines += [f"Host {host.name}", *more.get(host.name, ()), f"HostName {host.address}"]
        lines += ["Host *", "User root", f"IdentityFile {self._place}/key", "IdentitiesOnly yes"]
        lines += [f"UserKnownHostsFile {self._place}/known_hosts", "GlobalKnownHostsFile /dev/null", "StrictHostKeyChecking yes"]
        self.config.write_text("\n".join(lines) + "\n")

    def _namespace(self) -> int:
        process = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self._others.append(process)
        _until(lambda: Path(f"/proc/{process.pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink(), "a network")
        return process.pid

    def seated(self, *argv: str) -> list[str]:
        """The command, on the machine from which the launcher is started."""
        return ["nsenter", f"--target={self.seat}", "--net", *argv]

    def ssh(self, name: str, *argv: str) -> subprocess.CompletedProcess[str]:
        words = self.seated("ssh", "-F", str(self.config), "-o", "BatchMode=yes", "-o", "ConnectTimeout=2", name, *argv)
        return subprocess.run(words, capture_output=True, text=True, timeout=60)

    def start(self, home: Path, words: Sequence[str], **extra: str) -> subprocess.Popen[str]:
        """Whoever starts it waits for it, or ends it."""
        return subprocess.Popen(
            self.seated(sys.executable, "-m", "launcher", *words),
            cwd=home,
            env=environment(home, **extra),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def launcher(self, home: Path, words: Sequence[str], timeout: float = 120, **extra: str) -> subprocess.CompletedProcess[str]:
        process = self.start(home, words, **extra)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            out, err = process.communicate()
            raise AssertionError(f"{words}: not done in {timeout} s: {out[-2000:]} {err[-2000:]}") from None
        return subprocess.CompletedProcess(list(words), process.returncode, out, err)

    def words(self, *names: str) -> list[str]:
        """Of a run on those hosts, all where none is named."""
        listed = ",".join(names or (host.name for host in self))
        return ["cluster=ssh", f"cluster.hosts=[{listed}]", "cluster.device=cpu", f"cluster.ssh_config={self.config}"]

    def left(self, seconds: float = 5) -> list[str]:
        """What is still there on any host after `seconds`."""
        until = time.monotonic() + seconds
        while (found := [f"{host.name}: {line}" for host in self for line in host.processes()]) and time.monotonic() < until:
            time.sleep(0.05)
        return found

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        for host in self:
            host.die()
        for process in self._others:
            process.kill()
            process.wait()


def _until(is_so: Callable[[], bool], what: str, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, f"{what}: not there in {seconds} s"
        time.sleep(0.02)

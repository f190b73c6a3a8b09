"""slurm/devcluster does what its README promises. Each test leaves the cluster as it found it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from devcluster import DevCluster, why_not
from helpers import REPO

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(120)]

_NODES = ("node1", "node2", "node3")


@pytest.fixture(scope="module")
def cluster() -> Iterator[DevCluster]:
    if reason := why_not():
        pytest.skip(reason)
    cluster = DevCluster()
    ours = not cluster.is_up()
    cluster.up()
    yield cluster
    if ours:
        cluster.down()


@pytest.fixture(autouse=True)
def _no_jobs_left(cluster: DevCluster) -> Iterator[None]:
    yield
    cluster.cancel()


def appears(done: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.05)


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def test_a_job_on_two_nodes(cluster: DevCluster, tmp_path: Path) -> None:
    job = cluster.sbatch(
        tmp_path, "-N2", "--gres=gpu:2", "-oout", "--wrap", "echo $CUDA_VISIBLE_DEVICES; srun hostname; srun getent hosts node2"
    )
    cluster.wait_for_state(job, "COMPLETED")
    devices, *names = (line for line in lines(tmp_path / "out") if not line.startswith("srun: "))  # which may have had to wait
    assert devices == "0,1"
    assert len(set(names[:2])) == 2
    assert set(names[:2]) < set(_NODES)
    assert all(name.split() == ["10.213.0.12", "node2"] for name in names[2:])


@pytest.mark.slow
def test_preemption_requeues(cluster: DevCluster, tmp_path: Path) -> None:
    script = "trap 'echo TERM >> seen' TERM; echo start $SLURM_RESTART_COUNT >> seen; while :; do sleep 0.2; done"
    (tmp_path / "waiting").write_text(script)
    job = cluster.sbatch(tmp_path, "-N3", "--exclusive", "--requeue", "-oout", "--wrap", "srun bash waiting")
    appears(lambda: len(lines(tmp_path / "seen")) == 3, 20, "three processes")
    cluster.sbatch(tmp_path, "-N3", "--exclusive", "-purgent", "-o/dev/null", "--wrap", "sleep 1")
    appears(lambda: "TERM" in lines(tmp_path / "seen"), 10, "TERM")
    appears(lambda: "start 1" in lines(tmp_path / "seen"), 60, "the second start")
    assert cluster.detail(job, "Restarts") == "1"


@pytest.mark.slow
def test_the_warning_signal_reaches_the_batch_shell(cluster: DevCluster, tmp_path: Path) -> None:
    script = "trap 'echo USR2 > seen; kill $!; exit 0' USR2; sleep 100 & wait"
    job = cluster.sbatch(tmp_path, "--time=1", "--signal=B:USR2@58", "-o/dev/null", "--wrap", script)
    cluster.wait_for_state(job, "COMPLETED", seconds=60)  # slurmctld looks at time limits every 30 s
    assert lines(tmp_path / "seen") == ["USR2"]


@pytest.mark.slow
def test_a_killed_node_goes_on_computing(cluster: DevCluster, tmp_path: Path) -> None:
    job = cluster.sbatch(tmp_path, "-wnode1", "--requeue", "-o/dev/null", "--wrap", "echo $$ >> pids; sleep 200")
    appears(lambda: len(lines(tmp_path / "pids")) == 1, 10, "the first start")
    cluster.kill("node1")
    cluster.wait_for_state(job, "PENDING", seconds=60)
    assert cluster.node_state("node1").startswith("down")
    first = int(lines(tmp_path / "pids")[0])
    os.kill(first, 0)
    cluster.heal("node1")
    assert cluster.node_state("node1") in ("idle", "mixed")
    appears(lambda: len(lines(tmp_path / "pids")) == 2, 40, "the second start")
    appears(lambda: gone(first), 20, "the end of the first")


def gone(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


@pytest.mark.slow
def test_a_cut_node_is_down_until_it_is_healed(cluster: DevCluster) -> None:
    greeting = ("timeout", "3", "bash", "-c", "echo > /dev/tcp/node3/26818")
    cluster.exec("node2", *greeting)
    cluster.cut("node3")
    assert cluster.exec("node2", *greeting, check=False).returncode
    cluster.wait_for_node("node3", "down*", seconds=60)
    cluster.heal("node3")
    assert cluster.node_state("node3") == "idle"


def test_jobs_outlive_the_controller(cluster: DevCluster, tmp_path: Path) -> None:
    job = cluster.sbatch(tmp_path, "-oout", "--wrap", "sleep 3; echo done")
    cluster.wait_for_state(job, "RUNNING")
    cluster.controller("stop")
    assert not cluster.is_up()
    appears(lambda: lines(tmp_path / "out") == ["done"], 10, "the end of the job")
    cluster.controller("start")
    cluster.wait_for_state(job, "COMPLETED", seconds=60)


def test_a_hidden_command_is_not_found(cluster: DevCluster) -> None:
    cluster.hide("node1", "scontrol")
    cluster.hide("node1", "sacct")
    found = cluster.exec("node1", "sh", "-c", "command -v scontrol sacct; scontrol ping", check=False)
    assert (found.returncode, found.stdout) == (127, "")
    assert cluster.exec("node1", "sh", "-c", "command -v sinfo").stdout
    assert cluster.exec("node2", "sh", "-c", "command -v scontrol").stdout
    cluster.show("all", "scontrol")
    cluster.show("all", "sacct")
    assert cluster.exec("node1", "sh", "-c", "command -v scontrol && command -v sacct").stdout


@pytest.mark.parametrize(("kind", "address"), [("none", ""), ("loopback", "127.0.1.1"), ("full", "10.213.0.12")])
def test_hosts(cluster: DevCluster, kind: str, address: str) -> None:
    cluster.hosts(kind)
    try:
        begun = time.monotonic()
        answer = cluster.exec("node1", "getent", "ahostsv4", "node2", check=False).stdout
        assert answer.split()[:1] == ([address] if address else [])
        assert time.monotonic() - begun < 2
    finally:
        cluster.hosts("full")


def test_an_unknown_address_is_refused_at_once(cluster: DevCluster) -> None:
    begun = time.monotonic()
    assert cluster.exec("node1", "getent", "hosts", "192.0.2.1", check=False).returncode
    assert time.monotonic() - begun < 2


def test_settings_come_and_go(cluster: DevCluster) -> None:
    cluster.set("gracetime=30", "SlurmctldParameters=preempt_send_user_signal")
    try:
        assert "GraceTime=30" in cluster.slurm("scontrol", "show", "partition", "batch")
        assert "preempt_send_user_signal" in cluster.slurm("scontrol", "show", "config")
        cluster.set("GraceTime")
        assert "GraceTime=6" in cluster.slurm("scontrol", "show", "partition", "batch")
        assert "preempt_send_user_signal" in cluster.slurm("scontrol", "show", "config")
        with pytest.raises(AssertionError, match="unrecognized key"):
            cluster.set("NoSuchKey=1")
    finally:
        cluster.set()
    assert "preempt_send_user_signal" not in cluster.slurm("scontrol", "show", "config")
    assert cluster.is_up()


def test_an_array_of_two_hundred(cluster: DevCluster, tmp_path: Path) -> None:
    job = cluster.sbatch(tmp_path, "--array=0-199", "-o/dev/null", "--wrap", "true")
    cluster.wait_for_state(job, "COMPLETED", seconds=60)


def test_the_host_sees_nothing(cluster: DevCluster) -> None:
    assert "node2" not in Path("/etc/hosts").read_text().split()
    assert cluster.exec("node1", "hostname").stdout == "node1\n"
    assert os.uname().nodename not in _NODES


def test_a_mount_below_mnt_appears_on_the_nodes(cluster: DevCluster) -> None:
    place = cluster.conf.parent / "mnt" / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    try:
        (place / "file").touch()
        assert cluster.exec("node2", "ls", str(place)).stdout == "file\n"
    finally:
        subprocess.run(["umount", place], check=True)
        place.rmdir()


def test_up_and_down_twice(cluster: DevCluster, tmp_path: Path) -> None:
    cluster.up()  # of a test before this one a node may not be back yet
    assert "is up already" in cluster.up()
    job = cluster.sbatch(tmp_path, "-N3", "-o/dev/null", "--wrap", "srun bash -c 'setsid sleep 987 & wait'")
    cluster.wait_for_state(job, "RUNNING")
    state = str(cluster.conf.parent)
    cluster.down()
    try:
        assert not cluster.is_up()
        assert not cluster.conf.parent.exists()
        assert state not in Path("/proc/self/mountinfo").read_text()
        assert not [name for _, name in socket.if_nameindex() if name.startswith("ldc")]
        assert not [words for words in commands() if state in words or words == "sleep 987"]
        cluster.down()
    finally:
        cluster.up()
    assert cluster.is_up()


@pytest.mark.slow
def test_accounting(cluster: DevCluster, tmp_path: Path) -> None:
    if reason := why_not(accounting=True):
        pytest.skip(reason)
    cluster.down()
    try:
        cluster.up("--accounting")
        job = cluster.sbatch(tmp_path, "-o/dev/null", "--wrap", "exit 3")
        cluster.wait_for_state(job, "FAILED")
        answer = ("sacct", "-nPX", f"-j{job}", "-oState,ExitCode,Account")
        appears(lambda: cluster.slurm(*answer) == "FAILED|3:0|research\n", 10, "the end of the job in sacct")
        with pytest.raises(AssertionError, match="Invalid account"):
            cluster.sbatch(tmp_path, "--account=nobody", "--wrap", "true")
    finally:
        cluster.down()
        cluster.up()
    with pytest.raises(AssertionError, match="accounting storage is disabled"):
        cluster.slurm("sacct")


def test_up_repairs(cluster: DevCluster) -> None:
    cluster.kill("node2")
    cluster.cut("node3")
    cluster.controller("stop")
    assert "idle" in cluster.up()
    assert cluster.is_up()


def commands() -> Iterator[str]:
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and not gone(int(entry.name)):
                yield (entry / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")


@pytest.mark.parametrize(
    "words", ["bogus", "kill", "kill node99", "up --nodes many", "hosts some", "exec node1 ls", "controller", "set x.y=1"]
)
def test_bad_use_is_one_line(cluster: DevCluster, words: str) -> None:
    script = REPO / "slurm" / "devcluster" / "cluster"
    done = subprocess.run([script, *words.split()], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)

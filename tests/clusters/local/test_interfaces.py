"""What of the environment is the user's, and stays so: interfaces, threads."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from helpers import Command

from launcher.clusters import machine
from launcher.clusters.local import Local
from launcher.clusters.script import LOOPBACK
from launcher.errors import ConfigError
from launcher.node import __main__ as node
from launcher.plan import World


@pytest.mark.parametrize(
    ("before", "interface", "gloo", "nccl"),
    [
        ({}, "eth1", "eth1", None),
        ({"LAUNCHER_INTERFACE": "eth1"}, "eth1", "eth1", "=eth1"),
        ({"NCCL_SOCKET_IFNAME": "hsn", "LAUNCHER_INTERFACE": "eth1"}, "eth1", "eth1", None),
        ({"GLOO_SOCKET_IFNAME": "ib0"}, "eth1", None, None),
        ({"LAUNCHER_INTERFACE": "ib0"}, None, None, "=ib0"),
        ({}, None, None, None),
    ],
)
def test_nccl_is_told_an_interface_only_where_the_user_named_one(
    before: dict[str, str], interface: str | None, gloo: str | None, nccl: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NCCL takes a bare name for a prefix: eth1 is eth10 too. Without a name it finds InfiniBand by itself."""
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "LAUNCHER_INTERFACE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    found = node.settings(1, "10.0.0.2", interface)
    assert (found.get("GLOO_SOCKET_IFNAME"), found.get("NCCL_SOCKET_IFNAME")) == (gloo, nccl)


@pytest.mark.parametrize(("system", "own", "expected"), [("Linux", "", "lo"), ("Darwin", "", "lo0"), ("Linux", "eth7", "lo")])
def test_on_one_machine_it_is_the_loopback_whatever_the_shell_was_told_for_a_cluster(
    system: str, own: str, expected: str, tmp_path: Path
) -> None:
    """`uname` stands in for macOS."""
    (tmp_path / "uname").write_text(f"#!/bin/sh\necho {system}\n")
    (tmp_path / "uname").chmod(0o755)
    script = "\n".join(["set -euo pipefail", *LOOPBACK, "printenv GLOO_SOCKET_IFNAME NCCL_SOCKET_IFNAME"])
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **({"GLOO_SOCKET_IFNAME": own} if own else {})}
    assert subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=True).stdout.split() == [
        expected,
        f"={expected}",
    ]


@pytest.mark.parametrize(
    ("exported", "chosen", "told"),
    [
        ({"GLOO_SOCKET_IFNAME": "ib0"}, None, "GLOO_SOCKET_IFNAME=ib0 does not count: the processes of one machine talk by loopback"),
        ({"NCCL_SOCKET_IFNAME": "=ib0"}, None, "for another: cluster.interface=ib0\n"),
        ({"NCCL_SOCKET_IFNAME": "eth1"}, "lo", "NCCL_SOCKET_IFNAME=eth1 does not count: cluster.interface=lo says"),
        ({"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "=lo"}, None, ""),
        ({"GLOO_SOCKET_IFNAME": "lo"}, "lo", ""),
        ({}, None, ""),
    ],
)
def test_an_interface_that_the_shell_exports_and_that_does_not_count_is_told_once(
    exported: dict[str, str], chosen: str | None, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine._warn.cache_clear()
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in exported.items():
        monkeypatch.setenv(name, value)
    for _ in range(2):
        Local(device="cpu", interface=chosen).world()
    err = capsys.readouterr().err
    assert (err.count("\n"), told in err) == (bool(told), True), err


@pytest.mark.parametrize("name", ["nosuch0", "eth0; id", "", "=lo", "l"])
def test_an_interface_that_is_not_there_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(ConfigError, match=r"cluster.interface=.*: this machine has .*lo.*; type one of those, or null for loopback"):
        Local(device="cpu", interface=name).world()


def test_the_interface_that_a_config_names_is_the_one(
    command: Command, toy_words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the shell exports: this is said of this run."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib0")
    script = command("render", *toy_words, "cluster.interface=lo").out
    lines = [line for line in script.splitlines() if "SOCKET_IFNAME" in line]
    done = subprocess.run(
        ["bash", "-c", "\n".join([*lines, "printenv GLOO_SOCKET_IFNAME NCCL_SOCKET_IFNAME"])],
        env={"PATH": os.environ["PATH"], "GLOO_SOCKET_IFNAME": "ib0"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["lo", "=lo"]
    assert "uname" not in script


@pytest.mark.parametrize(
    ("text", "asked"), [("3", 3), ("4,2", 4), (" 2 ", 2), ("0", 0), ("", 0), ("many", 0), ("-1", 0), ("1e3", 0), ("99999999", 0)]
)
def test_a_users_threads_are_taken(text: str, asked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    world = World(1, 2, "cpu")
    assert machine.threads_asked() == asked
    assert Local().threads(world) == (asked or max(1, machine.cpu_count() // 2))


@pytest.mark.parametrize(
    ("omp", "mkl", "asked", "told"),
    [
        ("abc", "", 0, "OMP_NUM_THREADS=abc is no number of threads and does not count"),
        ("0", "", 0, "OMP_NUM_THREADS=0 is no number"),
        ("4,2", "", 4, "of OMP_NUM_THREADS=4,2 the first counts: 4 threads"),
        ("", "3", 3, ""),
        ("abc", "3", 3, "OMP_NUM_THREADS=abc is no number"),
        ("3", "3", 3, ""),
        ("2", "3", 2, "MKL_NUM_THREADS=3 does not count beside OMP_NUM_THREADS=2"),
        ("2", "many", 2, "MKL_NUM_THREADS=many is no number"),
        ("2", "", 2, ""),
    ],
)
def test_what_does_not_count_of_a_users_threads_is_told_once(
    omp: str, mkl: str, asked: int, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine._warn.cache_clear()
    monkeypatch.setenv("OMP_NUM_THREADS", omp)
    monkeypatch.setenv("MKL_NUM_THREADS", mkl)
    assert (machine.threads_asked(), machine.threads_asked()) == (asked, asked)
    err = capsys.readouterr().err
    assert (err.count("\n"), told in err) == (bool(told), True), err

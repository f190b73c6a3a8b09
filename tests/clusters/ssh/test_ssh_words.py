"""Words of strangers on their way to other machines: refused, or passed as they are; and what ssh says, told."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from launcher.clusters.ssh import Ssh, link
from launcher.clusters.ssh.hosts import Host, read
from launcher.clusters.ssh.words import refusal
from launcher.errors import ConfigError
from launcher.plan import World

HOSTILE = ["-oProxyCommand=touch x", "-F/tmp/x", "a b", "a;b", "$(id)", "`id`", "a'b", 'a"b', "a\\b", "a|b", "é", "user name@gpu1"]
HOSTILE += ["-l@gpu1", "@gpu1", "a\nb", "", "a@b@c"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_host_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"^cluster\.hosts"):
        read(["gpu1", name], None)
    with pytest.raises(ConfigError, match=r"^cluster\.hosts"):
        read([{name: 8}], None)
    (tmp_path / "hosts").write_text(f"{name!r} slots=8\n" if name in ("", "a\nb") else f"{name} slots=8\n")
    with pytest.raises(ConfigError, match=r"^cluster\.hostfile"):
        read([], str(tmp_path / "hosts"))


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["gpu1", "gpu2"], [("gpu1", None), ("gpu2", None)]),
        ("gpu1,gpu2", [("gpu1", None), ("gpu2", None)]),
        ({"gpu1": 8, "gpu2": 4}, [("gpu1", 8), ("gpu2", 4)]),
        (
            ["me@gpu-1.lab.example", {"10.0.0.2": 2}, "fe80::1%eth0"],
            [("me@gpu-1.lab.example", None), ("10.0.0.2", 2), ("fe80::1%eth0", None)],
        ),
        (["gpu1 slots=3"], [("gpu1", 3)]),
    ],
)
def test_hosts_by_words(given: object, found: list[tuple[str, int | None]]) -> None:
    assert read(given, None) == [Host(*each) for each in found]


def test_a_file_of_hosts_as_others_have_it(tmp_path: Path) -> None:
    file = tmp_path / "hosts.txt"
    file.write_bytes(
        b"\xef\xbb\xbf# DeepSpeed's\r\ngpu1 slots=8\r\n\r\n  gpu2   slots = 4  # half\r\ngpu3 slots=2 max_slots=4\r\n gpu4\r\n"
    )
    assert read([], str(file)) == [Host("gpu1", 8), Host("gpu2", 4), Host("gpu3", 2), Host("gpu4")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no host"),
        ("gpu1 slots=8\ngpu1 slots=2\n", "gpu1 stands there twice"),
        ("gpu1 slots=0\n", "line 1: gpu1 has slots 0"),
        ("gpu1\ngpu2 gpus=8\n", r"line 2: 'gpu2 gpus=8' is no line of a host"),
    ],
)
def test_a_file_that_is_none_names_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "hosts").write_text(text)
    with pytest.raises(ConfigError, match=rf"^cluster\.hostfile={tmp_path}/hosts.*{said}"):
        read([], str(tmp_path / "hosts"))
    with pytest.raises(ConfigError, match="cannot be read"):
        read([], str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="are both there"):
        read(["a"], str(tmp_path / "hosts"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"min_hosts": 3}, r"cluster\.min_hosts=3: there are 2 hosts"),
        ({"device": "tpu"}, r"cluster\.device=tpu"),
        ({"busy": "queue"}, r"cluster\.busy=queue cannot be; type refuse, wait or share"),
        ({"port": 22}, r"cluster\.port=22"),
        ({"watch": 1}, r"cluster\.watch=1"),
        ({"python": {"gpu9": "/x"}}, r"cluster\.python: gpu9 is none of the hosts"),
        ({"python": "python3"}, r"cluster\.python='python3': type an absolute path"),
        ({"python": "/a'b"}, "without quotes"),
        ({"interface": "-x"}, r"cluster\.interface"),
        ({"ssh_config": "/nowhere"}, r"cluster\.ssh_config=/nowhere: there is no such file"),
        ({"processes_per_node": 0}, r"cluster\.processes_per_node=0"),
        ({"env": {"LAUNCHER_HEAD": "x"}}, r"cluster\.env\.LAUNCHER_HEAD"),
        ({"env": {"LD_PRELOAD": "x"}}, r"cluster\.env_force"),
    ],
)
def test_an_option_that_cannot_be_names_itself(options: dict[str, object], said: str) -> None:
    made: Any = {"hosts": ["gpu1", "gpu2"], "device": "cpu", **options}
    with pytest.raises(ConfigError, match=said):
        Ssh(**made).world()


def test_worlds() -> None:
    assert Ssh(hosts=["a", "b"], device="cpu").world() == World(2, 1, "cpu")
    assert Ssh(hosts=["a", "b"], device="cuda", processes_per_node=8).world() == World(2, 8, "cuda")
    uneven = Ssh(hosts={"a": 8, "b": 4}).world()
    assert (uneven.size, uneven.uneven, str(uneven)) == (12, (8, 4), "2 nodes with 8, 4 processes on cuda")


def test_what_a_shell_reads_is_the_same_for_all_and_a_host_is_no_option() -> None:
    words = link.argv("gpu1", "/opt/my python/bin/python", 5, None)
    assert words[-3:-1] == ["--", "gpu1"]
    assert shlex.split(words[-1])[:4] == ["exec", "/opt/my python/bin/python", "-u", "-c"]
    assert link.argv("gpu2", "/opt/my python/bin/python", 5, None)[-1] == words[-1]
    assert not set("!\\`$") & set(words[-1])


@pytest.mark.parametrize(
    ("status", "err", "said"),
    [
        (255, ["me@gpu1: Permission denied (publickey,password)."], "ssh-copy-id gpu1"),
        (255, ["@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @", "Host key verification failed."], "its host key is not the one"),
        (255, ["ssh: Could not resolve hostname gpu1: Name or service not known"], "its name cannot be resolved"),
        (255, ["ssh: connect to host 10.0.0.1 port 22: Connection refused"], "no ssh listens there"),
        (255, ["ssh: connect to host 10.0.0.1 port 22: Connection timed out"], "it cannot be reached"),
        (255, ["Bad owner or permissions on /home/me/.ssh/config"], "ssh does not take its own configuration"),
        (127, ["bash: line 1: exec: /py: not found"], r"type cluster.python={gpu1:"),
        (1, ["ModuleNotFoundError: No module named 'launcher'"], "it does not see this project's directory"),
        (None, [], "it has not answered"),
        (3, [], "it ended with status 3 (no word)"),
    ],
)
def test_what_ssh_says_is_told(status: int | None, err: list[str], said: str) -> None:
    assert said in refusal("gpu1", status, err, "/py")

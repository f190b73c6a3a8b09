"""A copy of somebody else's run is mine, and what it says of trust is not: it is built of what I trust, wherever I have said so.

The canary is a file that a module of theirs makes when it is imported, or a program that a class of Python's own would start.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm
from helpers import Command, Launch, refused, refused_process, run_dir
from omegaconf import OmegaConf
from test_rundir import frozen

from launcher.compose import trusted
from launcher.errors import ConfigError, RunError
from launcher.rundir.rundir import RunDir

LOCAL = "{_target_: launcher.clusters.local.Local, processes_per_node: 1, device: cpu}"


def copy_of(tmp_path: Path, config: str) -> RunDir:
    here = frozen(tmp_path / "theirs" / "toy" / "1")
    here.config.write_text(config)
    here.log_event("submitted")
    shutil.copytree(here.path, tmp_path / "copy")
    return RunDir(tmp_path / "copy")


@pytest.mark.parametrize("name", ["evil", "evil.deep", "evil, toyproject", "no_such_package", "evil]\n#"])
@pytest.mark.parametrize("group", ["cluster", "model"])
def test_a_copy_is_not_run_with_code_that_it_trusts(group: str, name: str, launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\nclass C: ...\n")
    nodes = {"cluster": LOCAL, "model": "{}"} | {group: "{_target_: evil.C}"}
    copy = copy_of(tmp_path, f"cluster: {nodes['cluster']}\nmodel: {nodes['model']}\ntrust: [{name}]\n")
    said = "targets here come from launcher.clusters;" if group == "cluster" else f"{copy}: its config trusts"
    refused_process(launch("resume", str(copy)), 2 if group == "cluster" else 3, said, "conf/local/machine.yaml")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", ["subprocess", "subprocess.Popen", "os", "yaml", "launcher"])
def test_nor_with_code_that_nobody_may_trust(name: str, launch: Launch, tmp_path: Path) -> None:
    copy = copy_of(tmp_path, f"cluster: {{_target_: subprocess.Popen, args: [touch, {tmp_path}/canary]}}\ntrust: [{name}]\n")
    refused_process(launch("resume", str(copy)), 2, f"trust: {name} is not a package of your own")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("trust", ["7", "{a: 1}", "subprocess", "[[subprocess]]", "[1]"])
def test_nor_with_a_trust_that_is_none(trust: str, launch: Launch, tmp_path: Path) -> None:
    copy = copy_of(tmp_path, f"cluster: {{_target_: subprocess.Popen, args: [touch, {tmp_path}/canary]}}\ntrust: {trust}\n")
    done = launch("resume", str(copy))
    refused_process(done, done.returncode, "subprocess")
    assert (done.returncode in (2, 3), (tmp_path / "canary").exists()) == (True, False)


def test_a_process_of_a_run_builds_nothing_of_that(tmp_path: Path) -> None:
    from launcher.node.entry import read_config

    run = copy_of(tmp_path, "model: {_target_: subprocess.Popen, args: [touch, canary]}\ncluster: {}\ntrust: [subprocess]\n")
    with pytest.raises(ConfigError, match="trust: subprocess is not a package of your own"):
        read_config(run)


def test_what_i_have_trusted_once_i_need_not_say_again(
    command: Command, fake: FakeSlurm, on_slurm: tuple[str, ...], tmp_path: Path
) -> None:
    """The command named the --config-dir that trusts the toy project; `resume` names none. From any directory, and of a copy of my own."""
    done = command("run", *on_slurm, "id=one")
    assert done.code == 0, done.err
    assert OmegaConf.load(run_dir(done) / "config.yaml").trust == ["toyproject"]
    (fake.home / "queue").write_text("")
    shutil.copytree(run_dir(done), tmp_path / "copy")
    assert command("resume", str(tmp_path / "copy")).code == 0
    (tmp_path / "state" / "launcher" / "trusted").unlink()
    shutil.copytree(run_dir(done), tmp_path / "other")
    refused(command("resume", str(tmp_path / "other")), 3, "its config trusts toyproject, which you do not")


def test_what_conf_local_trusts_is_mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trusted, "CONF", tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "machine.yaml").write_text("# @package _global_\ntrust: [mine]\n")
    for odd, text in enumerate(("trust: 7", "[", "- trust", "{}", "trust: null")):
        (tmp_path / "local" / f"odd{odd}.yaml").write_text(text)
    assert trusted.mine(["mine", "mine.deep", "mineral", "other"]) == ["mine", "mine.deep"]
    with pytest.raises(RunError, match="trusts mineral"):
        trusted.refuse_more("run", ["mine", "mineral"])

"""What somebody else has put into a directory of runs, or could have, is read and never run, and stands in nobody's way.

The other user is uid 65534; the tests are root, who may give files to anybody. A canary is a file that only code of theirs would make.
"""

from __future__ import annotations

import dataclasses
import grp
import json
import os
import pwd
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm
from helpers import Answer, Launch, refused, refused_process
from test_render import PLAN
from test_rundir import frozen

from launcher import PROJECT
from launcher.compose.freeze import stored_cluster
from launcher.errors import ConfigError, RunError
from launcher.plan import World
from launcher.rundir import lookup
from launcher.rundir.rundir import RunDir, create
from launcher.start import rendered
from launcher.trust import owner

SOMEBODY = 65_534
Command = Callable[..., Answer]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files to somebody else")

CLUSTER = """\
cluster: {_target_: launcher.clusters.local.Local, processes_per_node: 1, device: cpu}
trust: []
name: toy
train: {deterministic: false}
"""


def run_in(runs_dir: Path, name: str = "toy", run_id: str = "1") -> RunDir:
    """A run whose script leaves a canary."""
    here = frozen(runs_dir / name / run_id)
    here.config.write_text(CLUSTER)
    here.script.write_text(f"#!/bin/sh\ntouch {runs_dir.parent}/canary\n")
    here.log_event("submitted")
    return here


def rendered_in(runs_dir: Path, **changes: object) -> RunDir:
    """A run with the script that its plan renders."""
    here = create(runs_dir / "toy" / "1")
    here.config.write_text(CLUSTER)
    cluster = stored_cluster(here)
    plan = dataclasses.replace(PLAN, **{"name": "toy", "id": "1", "run_dir": str(here), "directory": str(runs_dir.parent), **changes})
    plan = dataclasses.replace(plan, project=changes.get("project", str(PROJECT)), python=changes.get("python", sys.executable))
    plan = dataclasses.replace(plan, world=World(1, 1, "cpu"))
    script = cluster.render(plan)
    here.freeze(plan, CLUSTER, script)
    here.log_event("submitted", script=rendered.mark(script))
    return here


def give(place: Path, user: int = SOMEBODY) -> None:
    """With all that is in it."""
    for path in (place, *place.rglob("*")):
        os.chown(path, user, user, follow_symlinks=False)


def acl(user: int) -> bytes:
    """rwx for `user` beside the owner, as setfacl writes it."""
    entries = ((0x01, 7, -1), (0x02, 7, user), (0x04, 0, -1), (0x10, 7, -1), (0x20, 0, -1))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)


def _theirs(run: RunDir) -> str:
    give(run.path)
    return "belongs to"


def _everybody_may_write(run: RunDir) -> str:
    run.path.chmod(0o777)
    return f"everybody may write {run}"


def _a_sticky_one(run: RunDir) -> str:
    run.path.chmod(0o1777)
    return f"everybody may write {run}"


def _a_group_may_write(run: RunDir) -> str:
    os.chown(run.path, 0, SOMEBODY)
    run.path.chmod(0o770)
    return f"may write {run}"


def _the_script_is_theirs(run: RunDir) -> str:
    os.chown(run.script, SOMEBODY, SOMEBODY)
    return f"{run.script} belongs to"


def _the_plan_is_theirs(run: RunDir) -> str:
    os.chown(run.plan, SOMEBODY, SOMEBODY)
    return f"{run.plan} belongs to"


def _the_script_is_a_link_of_theirs(run: RunDir) -> str:
    real = run.path.parent / "job.sh"
    run.script.rename(real)
    run.script.symlink_to(real)
    os.chown(run.script, SOMEBODY, SOMEBODY, follow_symlinks=False)
    return f"{run.script} belongs to"


def _deep_in_it(run: RunDir) -> str:
    run.path.chmod(0o755)
    (run.code / "launcher").mkdir(parents=True)
    (run.code / "launcher").chmod(0o777)
    return f"everybody may write {run.code / 'launcher'}"


def _a_file_deep_in_it_is_theirs(run: RunDir) -> str:
    (run.code / "launcher").mkdir(parents=True)
    (run.code / "launcher" / "worker.py").touch()
    os.chown(run.code / "launcher" / "worker.py", SOMEBODY, SOMEBODY)
    return "worker.py belongs to"


def _the_directory_above(run: RunDir) -> str:
    run.path.parent.chmod(0o777)
    return f"everybody may write {run.path.parent}"


def _the_runs_dir(run: RunDir) -> str:
    run.path.parent.parent.chmod(0o733)
    return f"everybody may write {run.path.parent.parent}"


def _the_runs_dir_is_theirs(run: RunDir) -> str:
    os.chown(run.path.parent.parent, SOMEBODY, SOMEBODY)
    return f"{run.path.parent.parent} belongs to"


def _a_list_lets_them_write(run: RunDir) -> str:
    try:
        os.setxattr(run.path.parent, "system.posix_acl_access", acl(SOMEBODY))
    except OSError as error:
        pytest.skip(f"no access lists here: {error}")
    return f"may write {run.path.parent}"


DOORS = [
    _theirs, _everybody_may_write, _a_sticky_one, _a_group_may_write, _the_script_is_theirs, _the_plan_is_theirs,
    _the_script_is_a_link_of_theirs, _deep_in_it, _a_file_deep_in_it_is_theirs, _the_directory_above, _the_runs_dir,
    _the_runs_dir_is_theirs, _a_list_lets_them_write,
]  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
def test_a_run_that_may_be_theirs_is_not_run_by_its_path(door: Callable[[RunDir], str], command: Command, tmp_path: Path) -> None:
    run = run_in(tmp_path / "runs")
    why = door(run)
    before = sorted(run.path.rglob("*"))
    refused(command("resume", str(run)), 3, "is read and not run", why, owner.WAY_OUT)
    refused(command("cancel", str(run)), 3, "is read and not run", why)
    assert not (tmp_path / "canary").exists()
    assert sorted(run.path.rglob("*")) == before


@pytest.mark.parametrize("door", [_theirs, _everybody_may_write, _the_script_is_theirs, _the_directory_above, _the_runs_dir_is_theirs])
def test_a_script_of_theirs_does_not_run(door: Callable[[RunDir], str], launch: Launch, tmp_path: Path) -> None:
    """As a process; their ledger vouches for it."""
    run = rendered_in(tmp_path / "runs")
    script = f"#!/usr/bin/env bash\ntouch {tmp_path}/canary\n"
    run.script.write_text(script)
    run.log_event("submitted", script=rendered.mark(script))
    why = door(run)
    refused_process(launch("resume", str(run)), 3, "is read and not run", why)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("door", [_theirs, _everybody_may_write, _the_runs_dir])
def test_it_is_read(door: Callable[[RunDir], str], command: Command, tmp_path: Path) -> None:
    run = run_in(tmp_path / "runs")
    door(run)
    for verb in ("status", "why"):
        answer = command(verb, str(run))
        assert (answer.code, answer.err) == (0, ""), answer


def test_the_line_says_how_to_go_on(command: Command, tmp_path: Path) -> None:
    run = run_in(tmp_path / "runs")
    give(run.path)
    answer = command("resume", str(run))
    refused(answer, 3, f"cp -a --no-preserve=ownership {run} COPY", "LAUNCHER_TRUST_DIRS=")
    run = run_in(tmp_path / "runs", run_id="2")
    run.path.chmod(0o777)
    refused(command("resume", str(run)), 3, "chmod -R go-w")


def test_whoever_knows_better_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_in(tmp_path / "runs")
    give(tmp_path / "runs")
    with pytest.raises(RunError):
        owner.refuse(run.path)
    for elsewhere in (str(tmp_path / "run"), "runs", str(run.path / "x"), ""):
        monkeypatch.setenv(owner.WAY_OUT, elsewhere)
        assert owner.run_fault(run.path), elsewhere
    monkeypatch.setenv(owner.WAY_OUT, f"/nowhere:{tmp_path / 'runs'}")
    assert not owner.run_fault(run.path)


# ---------------------------------------------------------------- by name


@pytest.fixture
def project(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A run of mine, `toy`, in the project at hand; a runs_dir that is remembered, where all may write, is beside it."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs").chmod(0o1777)
    lookup.remember(tmp_path / "theirs")
    return run_in(tmp_path / "runs")


def plant(project: RunDir, name: str, run_id: str) -> RunDir:
    """A run of theirs that says it was typed here."""
    runs_dir = project.path.parent.parent.parent / "theirs"
    os.environ[owner.WAY_OUT] = str(runs_dir)
    theirs = frozen(runs_dir / name / run_id, directory=str(Path.cwd()))
    del os.environ[owner.WAY_OUT]
    theirs.config.write_text(CLUSTER)
    theirs.log_event("submitted")
    give(runs_dir / name)
    return theirs


@pytest.mark.parametrize(("name", "run_id"), [("other", "toy"), ("toy", "2"), ("toy", "toy"), ("1", "x"), ("toy", "1")])
@pytest.mark.parametrize("acts", [False, True])
def test_a_name_is_mine_before_it_is_theirs(name: str, run_id: str, acts: bool, project: RunDir) -> None:
    plant(project, name, run_id)
    for word in ("toy", "1"):
        assert lookup.find(word, acts=acts).path == project.path, word
        assert lookup.find(word, acts=acts, everywhere=True).path == project.path, word


def test_what_only_they_have_is_found_and_not_run(project: RunDir, command: Command) -> None:
    theirs = plant(project, "evil", "cifar")
    assert lookup.find("cifar").path == theirs.path
    refused(command("resume", "cifar"), 3, "is read and not run", "belongs to")


def sweep_of(member: object, runs_dir: Path, name: str) -> Path:
    sweep = runs_dir / ".sweeps" / name
    sweep.mkdir(parents=True)
    members = [{"number": 0, "overrides": [], "run": str(member)}]
    (sweep / "sweep.json").write_text(json.dumps({"objective": "val_accuracy", "members": members}))
    return sweep


def test_a_sweep_of_theirs_stands_in_no_way(project: RunDir, command: Command) -> None:
    theirs = plant(project, "evil", "x")
    sweep = sweep_of(theirs, theirs.path.parent.parent, "toy")
    give(sweep.parent)
    refused(command("cancel", "toy"), 3, "is not running")  # mine, which is not
    refused(command("cancel", str(sweep)), 3, "is read and not run")
    refused(command("resume", str(sweep)), 3, "is read and not run")


def test_a_sweep_of_mine_runs_no_member_of_theirs(project: RunDir, command: Command) -> None:
    theirs = plant(project, "evil", "x")
    sweep = sweep_of(theirs, project.path.parent.parent, "s")
    for verb in ("resume", "cancel"):
        refused(command(verb, str(sweep)), 3, str(theirs), "is read and not run")


def test_their_ledger_names_no_job_of_mine(project: RunDir, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = FakeSlurm(tmp_path / "fake").instead(monkeypatch)
    (fake.bin / "scancel").write_text(f'#!/bin/bash\necho "$@" >>{fake.home}/cancelled\n')
    (fake.bin / "scancel").chmod(0o755)
    theirs = plant(project, "evil", "x")
    theirs.log_event("queued", job="12")
    refused(command("cancel", str(theirs)), 3, "is read and not run")
    assert not (fake.home / "cancelled").exists()


def test_trust_in_their_config_builds_nothing(project: RunDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    theirs = plant(project, "evil", "x")
    (tmp_path / "evil_module.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\nclass C: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    theirs.config.write_text("cluster: {_target_: evil_module.C}\ntrust: [evil_module]\n")
    with pytest.raises(ConfigError, match="evil_module"):
        stored_cluster(theirs)
    assert not (tmp_path / "canary").exists()


# ---------------------------------------------------------------- what is run is what was rendered


def _edited(run: RunDir) -> None:
    run.script.write_text(run.script.read_text() + "touch canary\n")


def _another_runs(run: RunDir) -> None:
    run.script.write_text(run.script.read_text().replace("toy/1", "toy/2"))


def _in_its_first_line(run: RunDir) -> None:
    run.script.write_text(run.script.read_text().replace("#!/usr/bin/env bash", "#!/usr/bin/env -S bash -x"))


def _empty(run: RunDir) -> None:
    run.script.write_text("")


def _a_link(run: RunDir) -> None:
    other = run.path.parent / "other.sh"
    other.write_text("touch canary\n")
    run.script.unlink()
    run.script.symlink_to(other)


def _of_an_older_launcher(run: RunDir) -> None:
    run.events.write_text('{"time": 1.0, "event": "submitted"}\n')
    _edited(run)


@pytest.mark.parametrize("edit", [_edited, _another_runs, _in_its_first_line, _empty, _a_link, _of_an_older_launcher])
def test_a_script_that_was_not_rendered_is_not_run(edit: Callable[[RunDir], None], command: Command, tmp_path: Path) -> None:
    run = rendered_in(tmp_path / "runs")
    edit(run)
    refused(command("resume", str(run)), 3, f"{run.script} is not what was rendered", f"rm {run.script}")
    assert not run.attempts.joinpath("000").exists()
    assert not list(tmp_path.rglob("canary"))


def test_the_one_that_was_rendered_is(tmp_path: Path) -> None:
    run = rendered_in(tmp_path / "runs")
    plan, cluster = run.read_plan(), stored_cluster(run)
    text = run.script.read_text()
    for ledger in (run.events.read_text(), '{"time": 1.0, "event": "submitted"}\n'):
        run.events.write_text(ledger)
        rendered.refuse_another(run, plan, lambda: cluster)
    run.script.unlink()
    rendered.refuse_another(run, plan, lambda: cluster)
    assert run.script.read_text() == text, "one that is gone is written anew"


def test_one_of_before_its_modules_were_moved_is_written_anew(command: Command, tmp_path: Path) -> None:
    run = rendered_in(tmp_path / "runs")
    plan, cluster = run.read_plan(), stored_cluster(run)
    text = run.script.read_text()
    before = text.replace("launcher.train.worker", "launcher.worker")
    assert before != text
    run.script.write_text(before)
    refused(command("resume", str(run)), 3, f"{run.script} is not what was rendered")
    run.log_event("rendered", script=rendered.mark(before))
    rendered.refuse_another(run, dataclasses.replace(plan, project=str(tmp_path)), lambda: cluster)
    assert run.script.read_text() == before, "a copy of the code is as old as its script"
    rendered.refuse_another(run, plan, lambda: cluster)
    assert run.script.read_text() == text
    assert run.read_events()[-1]["script"] == rendered.mark(text)


@pytest.mark.parametrize("what", ["python", "project"])
def test_nor_is_what_the_plan_names_where_it_is_theirs(what: str, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    place.mkdir()
    run = rendered_in(tmp_path / "runs", **{what: str(place)})
    rendered.refuse_another(run, run.read_plan(), lambda: stored_cluster(run))
    place.chmod(0o777)
    with pytest.raises(RunError, match=f"would run {place}, which may be another's: everybody may write"):
        rendered.refuse_another(run, run.read_plan(), lambda: stored_cluster(run))


@pytest.mark.parametrize("change", [
    {"name": "../x"}, {"id": "a/b"}, {"name": "a\ntouch canary"}, {"version": "1\ntouch canary"}, {"threads": "1; touch canary"},
    {"max_restarts": "$(touch canary)"}, {"python": ["a"]}, {"directory": None}, {"umask": "077; touch canary"}, {"umask": "000"},
])  # fmt: skip
def test_a_plan_that_is_no_plan_is_not_rendered(change: dict[str, object], tmp_path: Path) -> None:
    run = rendered_in(tmp_path / "runs")
    run.plan.write_text(json.dumps({**json.loads(run.plan.read_text()), **change}))
    with pytest.raises(RunError, match="is not a plan this launcher can read"):
        run.read_plan()


# ---------------------------------------------------------------- what is written beside a sweep


def test_collect_writes_beside_a_sweep_of_mine_only(project: RunDir, command: Command) -> None:
    sweep = sweep_of(project, project.path.parent.parent, "s")
    assert f"written to {sweep}/collected.csv" in command("collect", str(sweep)).out
    victim = project.path.parent / "victim"
    victim.write_text("mine\n")
    for name in ("collected.csv", "collected.json"):
        (sweep / name).unlink()
        (sweep / f".{name}.{os.getpid()}").symlink_to(victim)
    give(sweep)
    answer = command("collect", str(sweep))
    assert (answer.code, answer.err) == (0, "")
    assert f"not written: {sweep} belongs to" in answer.out
    assert victim.read_text() == "mine\n"
    assert not (sweep / "collected.csv").exists()


# ---------------------------------------------------------------- where a new run goes


@pytest.mark.parametrize(("mode", "user", "fine"), [
    (0o700, 0, True), (0o755, 0, True), (0o1777, 0, True), (0o777, 0, False), (0o773, 0, False), (0o703, 0, False), (0o775, 0, False),
    (0o755, SOMEBODY, False),
])  # fmt: skip
def test_a_new_run_lies_where_nobody_can_take_it_away(mode: int, user: int, fine: bool, tmp_path: Path) -> None:
    place = tmp_path / "runs"
    place.mkdir()
    os.chown(place, user, SOMEBODY)
    place.chmod(mode)
    if fine:
        assert create(place / "toy" / "a").path.is_dir()
        return
    with pytest.raises(RunError, match=r"runs_dir=.*choose another runs_dir=…"):
        create(place / "toy" / "a")


def test_nor_behind_a_link_of_theirs(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("mine")
    create(tmp_path / "link" / "toy" / "a")
    os.chown(tmp_path / "link", SOMEBODY, SOMEBODY, follow_symlinks=False)
    with pytest.raises(RunError, match="link belongs to"):
        create(tmp_path / "link" / "toy" / "b")


def test_a_group_of_one_is_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """umask 002, where each user has a group called as they are: directories of theirs are 0775, and nobody else may write them."""
    me = pwd.struct_passwd(("ada", "x", 1000, 1000, "", "/", "/bin/sh"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: me)
    owner._owners.cache_clear()  # pyright: ignore[reportPrivateUsage]
    groups = {1000: grp.struct_group(("ada", "x", 1000, [])), 2000: grp.struct_group(("lab", "x", 2000, ["ada", "bob"]))}
    monkeypatch.setattr(grp, "getgrgid", groups.__getitem__)
    place = tmp_path / "project"
    (place / "runs").mkdir(parents=True)
    os.chown(place / "runs", 1000, 1000)
    place.chmod(0o775)
    for gid, whole in ((1000, True), (2000, False)):
        os.chown(place, 1000, gid)
        assert (owner.fault(place / "runs") == "") is whole
    groups[1000].gr_mem.append("bob")
    os.chown(place, 1000, 1000)
    assert "group ada may write" in owner.fault(place / "runs")
    owner._owners.cache_clear()  # pyright: ignore[reportPrivateUsage]

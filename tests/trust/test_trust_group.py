"""`runs_mode=group`: a group reads each other's runs, and nobody runs or changes what is another's.

The owner is uid 12345, or root where it is to be run, the group 54321, the colleague uid 65534 of that group.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import TOY, Answer, Launch, run_dir
from test_foreign import SOMEBODY, as_somebody, import_all
from test_rundir import frozen

from launcher.errors import RunError
from launcher.rundir import lock, rundir
from launcher.rundir.rundir import RunDir, create
from launcher.trust import owner

OWNER, GROUP = 12_345, 54_321
CLUSTER = "cluster: {_target_: launcher.clusters.local.Local, processes_per_node: 1, device: cpu}\ntrust: []\n"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")


@pytest.fixture
def shared() -> Iterator[Path]:
    """With a directory of runs as a group has it: 3770, of root."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    (place / "runs").mkdir()
    os.chown(place / "runs", 0, GROUP)
    (place / "runs").chmod(0o3770)
    import_all()
    yield place
    shutil.rmtree(place)


def of_a_colleague(shared: Path) -> RunDir:
    run = of_the_group(shared)
    for path in (run.path.parent, run.path, *run.path.rglob("*")):
        os.chown(path, OWNER, GROUP)
    return run


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def of_the_group(shared: Path, run_id: str = "1") -> RunDir:
    here = create(shared / "runs" / "toy" / run_id, "027")
    for path in frozen(shared / "x" / "toy" / run_id).path.iterdir():
        if path.is_file():
            with os.fdopen(os.open(here.path / path.name, os.O_WRONLY | os.O_CREAT, 0o640), "w") as file:
                file.write(path.read_text().replace(f"{shared}/x", f"{shared}/runs"))
    here.config.write_text(CLUSTER)
    here.attempts.mkdir()
    here.log_event("submitted")
    return here


def test_the_group_reads_it_and_writes_nothing(shared: Path) -> None:
    run = of_the_group(shared)
    assert [mode(path) for path in (run.path, run.path.parent)] == [0o2750, 0o2750]
    assert {path.stat().st_gid for path in (run.path, run.plan, run.events)} == {GROUP}
    assert (mode(run.events), rundir.umask_of(run)) == (0o640, 0o027)
    os.close(lock.hold(run.lock, "x", 0))
    assert mode(run.lock) == 0o600, "who may read it may hold it"


def test_a_private_one_stays_so_in_the_same_place(shared: Path) -> None:
    run = create(shared / "runs" / "toy" / "1")
    run.log_event("x")
    assert (mode(run.path), mode(run.events), rundir.umask_of(run)) == (0o700 | stat.S_ISGID, 0o600, 0o077)


@pytest.mark.parametrize(("word", "umask"), [("private", "077"), ("group", "027")])
@pytest.mark.parametrize("cluster", ["local", "slurm"])
def test_the_script_says_it(cluster: str, word: str, umask: str, command: Callable[..., Answer]) -> None:
    answer = command("render", *TOY, f"cluster={cluster}", "cluster.device=cpu", f"runs_mode={word}")
    assert f"\numask {umask}\n" in answer.out


@pytest.mark.parametrize("verb", ["status", "why", "logs"])
def test_a_colleague_looks_at_it(verb: str, shared: Path) -> None:
    run = of_a_colleague(shared)
    (run.attempts / "000").mkdir(mode=0o750)
    run.rank_log(0, 0).touch(0o640)
    for path in (run.attempts, run.attempts / "000", run.rank_log(0, 0)):
        path.chmod(0o640 if path.is_file() else 0o750)
    code, _, err = as_somebody(shared, verb, str(run), group=GROUP)
    assert (code, err) == (0, "")
    code, out, _ = as_somebody(shared, "status", group=GROUP)
    assert "toy/1" in out
    assert "may not be read" not in out


@pytest.mark.parametrize("verb", ["resume", "cancel"])
def test_and_neither_runs_nor_ends_it(verb: str, shared: Path) -> None:
    run = of_a_colleague(shared)
    code, out, err = as_somebody(shared, verb, str(run), group=GROUP)
    assert (code, out) == (3, "")
    assert err.startswith(f"launcher: {run} is read and not run: {run.path.parent} belongs to uid {OWNER}; ")
    assert f"cp -a {run} COPY" in err


def test_a_colleague_sees_that_it_trains(shared: Path) -> None:
    run = of_the_group(shared)
    descriptor = lock.hold(run.lock, "x", 0)
    assert " running " in as_somebody(shared, "status", str(run), group=GROUP)[1]
    os.close(descriptor)
    assert " running " not in as_somebody(shared, "status", str(run), group=GROUP)[1]


def _not_sticky(shared: Path) -> str:
    (shared / "runs").chmod(0o2770)
    return "may write"


def _a_colleague_owns_the_directory_of_runs(shared: Path) -> str:
    os.chown(shared / "runs", SOMEBODY, GROUP)
    return f"{shared}/runs belongs to"


def _a_colleague_has_the_name(shared: Path) -> str:
    (shared / "runs" / "toy").mkdir()
    os.chown(shared / "runs" / "toy", SOMEBODY, GROUP)
    return f"{shared}/runs/toy belongs to"


def _the_name_is_the_groups(shared: Path) -> str:
    (shared / "runs" / "toy").mkdir()
    (shared / "runs" / "toy").chmod(0o3770)
    return f"may write {shared}/runs/toy"


def _above_it_the_group_may_write(shared: Path) -> str:
    os.chown(shared, 0, GROUP)
    shared.chmod(0o775)
    return f"may write {shared}"


@pytest.mark.parametrize("door", [
    _not_sticky, _a_colleague_owns_the_directory_of_runs, _a_colleague_has_the_name, _the_name_is_the_groups, _above_it_the_group_may_write,
])  # fmt: skip
def test_no_run_is_made_where_a_colleague_could_put_another(door: Callable[[Path], str], shared: Path) -> None:
    why = door(shared)
    with pytest.raises(RunError) as error:
        create(shared / "runs" / "toy" / "1", "027")
    assert why in str(error.value)
    assert ("another name=" in str(error.value)) is (door is _a_colleague_has_the_name)
    assert ("chmod +t" in str(error.value)) is (door is _not_sticky)


def _a_file(run: RunDir) -> None:
    (run.attempts / "x").touch()
    (run.attempts / "x").chmod(0o660)


def _a_directory(run: RunDir) -> None:
    run.path.chmod(0o2770)


def _a_script(run: RunDir) -> None:
    run.script.chmod(0o660)


def _a_list(run: RunDir) -> None:
    from test_trust_dirs import acl

    try:
        os.setxattr(run.path, "system.posix_acl_access", acl(SOMEBODY))
    except OSError as error:
        pytest.skip(f"no access lists here: {error}")


def _a_colleagues_file(run: RunDir) -> None:
    (run.attempts / "x").touch()
    os.chown(run.attempts / "x", SOMEBODY, GROUP)


@pytest.mark.parametrize("door", [_a_file, _a_directory, _a_script, _a_list, _a_colleagues_file])
def test_what_the_group_could_change_is_not_run(door: Callable[[RunDir], None], shared: Path) -> None:
    run = of_the_group(shared)
    owner.refuse(run.path)
    door(run)
    with pytest.raises(RunError, match="is read and not run"):
        owner.refuse(run.path)


@pytest.mark.slow
def test_all_that_a_run_writes_is_the_groups_to_read(shared: Path, launch: Launch) -> None:
    words = [*TOY, f"runs_dir={shared}/runs", "runs_mode=group", "train.steps=6", "train.save_every=3", "cluster.processes_per_node=2"]
    done = launch(*words, "id=a", timeout=100)
    assert done.returncode == 0, done.stderr
    run = run_dir(done)
    open_to = {path: mode(path) for path in (run, *run.rglob("*")) if not path.is_symlink()}
    closed = {path.name for path, bits in open_to.items() if not bits & stat.S_IRGRP}
    assert closed == {".lock", ".launcher"}
    assert not {path for path, bits in open_to.items() if bits & (stat.S_IWGRP | stat.S_IRWXO)}
    assert {path.stat().st_gid for path in open_to} == {GROUP}
    code, out, err = as_somebody(shared, "why", str(run), group=GROUP)
    assert (code, err) == (0, "")
    shutil.copytree(run, shared / "copy")
    for path in (shared / "copy", *(shared / "copy").rglob("*")):
        os.chown(path, SOMEBODY, GROUP, follow_symlinks=False)
    code, out, err = as_somebody(shared, "resume", str(shared / "copy"), group=GROUP)
    assert (code, out.splitlines()[0]) == (0, "this run is done already"), err

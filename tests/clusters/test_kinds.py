"""Which cluster a run was sent to is anybody's word: what is not allowed is not imported for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from launcher.clusters import kinds, queues
from launcher.errors import RunError
from launcher.rundir.rundir import RunDir
from launcher.trust import noted
from launcher.verdict.standing import standing

FOREIGN = "mylab_of_a_test.queue.Mine"
PACKAGE = """\
from dataclasses import dataclass
from launcher.clusters.batch import Batch


@dataclass(frozen=True)
class Mine(Batch):
    pass
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    package = tmp_path / "packages" / "mylab_of_a_test"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "queue.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.delitem(sys.modules, "mylab_of_a_test.queue", raising=False)
    here = RunDir(tmp_path / "runs" / "toy" / "a")
    here.path.mkdir(parents=True)
    return here


def write(run: RunDir, target: str, trust: str = "trust: []") -> RunDir:
    run.config.write_text(
        f"name: toy\ncluster:\n  nodes: 1\n  env:\n    _target_: x.y\n  _target_: {target}\n{trust}\ntrain:\n  steps: 1\n"
    )
    return run


def test_a_cluster_of_ours_is_the_class_that_stands_there(run: RunDir) -> None:
    assert kinds.of(write(run, "launcher.clusters.slurm.Slurm")).__name__ == "Slurm"
    assert kinds.of(write(run, "launcher.clusters.local.Local")).attached


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("launcher.clusters.submit.Reply", "is no cluster"),
        ("launcher.clusters.submit.os", "is no cluster"),
        ("launcher.clusters.slurm.Slurmy", "is no cluster"),
        ("launcher.clusters.pbs.Pbs", "cannot be imported"),
        ("launcher.train.worker.main", "you do not trust"),
        ("os.system", "you do not trust"),
        ("os", "does not say"),
        ("launcher.clusters..slurm", "does not say"),
        (FOREIGN, "you do not trust"),
    ],
)
def test_what_is_no_cluster_or_not_allowed_is_named_and_not_imported(run: RunDir, target: str, why: str) -> None:
    run = write(run, target, "trust:\n- mylab_of_a_test\n- os")
    with pytest.raises(RunError, match=why):
        kinds.of(run)
    assert "mylab_of_a_test.queue" not in sys.modules
    run.log_event("queued", job="12")
    queue = queues.ask([run])
    assert why in queue.excuse
    assert standing(run, queue).word == "submitted"


def test_a_users_own_is_asked_where_the_run_and_the_user_trust_it(run: RunDir) -> None:
    noted.note(noted.TRUSTED, "mylab_of_a_test")
    with pytest.raises(RunError, match="you do not trust"):
        kinds.of(write(run, FOREIGN))
    assert "mylab_of_a_test.queue" not in sys.modules
    assert kinds.of(write(run, FOREIGN, "trust:\n- mylab_of_a_test")).__name__ == "Mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_run_that_another_may_have_written_gets_no_code_of_the_users_asked(run: RunDir) -> None:
    noted.note(noted.TRUSTED, "mylab_of_a_test")
    write(run, FOREIGN, "trust:\n- mylab_of_a_test")
    os.chown(run.config, 54321, 54321)
    with pytest.raises(RunError, match="is not asked, for "):
        kinds.of(run)
    assert "mylab_of_a_test.queue" not in sys.modules


def test_without_a_config_nobody_is_asked(run: RunDir) -> None:
    with pytest.raises(RunError, match="cannot be read"):
        kinds.of(run)

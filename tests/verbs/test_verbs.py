"""`logs -f`, `status` while a run goes on, and a working directory that looks like ours."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import environment, events, finish, losses, running, start, toy_words, wait_for


def test_logs_follow_a_run_to_its_end_and_status_sees_it_running(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "toy" / "a"
    with running(tmp_path, toy_words(tmp_path / "runs", "id=a", "train.steps=1000000")) as training:
        wait_for(lambda: max(losses(run), default=0) > 3, what="a few steps")
        follower = start(tmp_path, ["logs", "toy", "-f"])
        assert "running" in finish(tmp_path, ["status", "a"]).stdout
        refused = finish(tmp_path, ["resume", "a"])
        assert refused.returncode == 3
        assert "is being trained by attempt 0" in refused.stderr
        training.send_signal(signal.SIGTERM)
        assert training.wait(timeout=60) == 75
        out, err = follower.communicate(timeout=30)
    assert follower.returncode == 0, err
    shown = [line for line in out.splitlines() if line.startswith("step ")]
    assert len(shown) == max(losses(run))
    status = finish(tmp_path, ["status", str(run)]).stdout
    assert "stopped" in status
    assert f"{max(losses(run))}/1000000" in status


def test_a_directory_called_models_where_the_command_is_typed_does_not_shadow_ours(tmp_path: Path) -> None:
    for name in ("models", "data"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong package')\n")
    planned = finish(tmp_path, ["plan", "+exp=cifar"])
    assert planned.returncode == 0, planned.stderr
    trained = finish(tmp_path, toy_words(tmp_path / "runs", "train.steps=1", "model=resnet8", "model.num_classes=4"))
    assert trained.returncode == 0, trained.stderr


def test_an_optimizer_that_torch_does_not_have_is_one_line(tmp_path: Path) -> None:
    words = toy_words(tmp_path / "runs", "id=a", "optim._target_=torch.optim.SGDD", "train.steps=1")
    failed = finish(tmp_path, words)
    assert failed.returncode == 2
    assert failed.stderr.count("\n") == 1
    assert "torch.optim.SGDD" in failed.stderr


@pytest.mark.slow
def test_torchs_own_optimizers_are_taken_by_name(tmp_path: Path) -> None:
    words = toy_words(tmp_path / "runs", "id=a", "optim=adamw", "optim._target_=torch.optim.NAdam", "train.steps=12", "train.save_every=5")
    assert finish(tmp_path, words).returncode == 0
    run = tmp_path / "runs" / "toy" / "a"
    (run / "summary.json").unlink()
    again = finish(tmp_path, ["resume", str(run)])
    assert again.returncode == 0, again.stderr
    assert events(run, "started")[1]["step"] == 12


def test_completion_works_behind_a_verb(tmp_path: Path) -> None:
    query = ["launcher", "-sc", "query=bash"]
    line = "launcher render model=resn"
    script = tmp_path / "launcher"
    script.write_text("#!/usr/bin/env python3\nimport sys\nfrom launcher.cli import main\nsys.exit(main())\n")
    env = {**environment(tmp_path), "COMP_LINE": line, "COMP_POINT": str(len(line))}
    shown = subprocess.run(
        [sys.executable, script, *query[1:]], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
    )
    assert "model=resnet8" in shown.stdout.split(), shown.stderr

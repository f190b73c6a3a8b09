"""The `tensorboard` verb shows a run's series to a real HTTP client on localhost."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from processes import finish, free_port, running, toy_words, wait_for


@pytest.mark.slow
def test_tensorboard_serves_the_series_of_a_run_after_a_resume_each_step_once(tmp_path: Path) -> None:
    words = toy_words(tmp_path / "runs", "id=a", "train.steps=60", "train.save_every=25")
    assert finish(tmp_path, words).returncode == 0
    run = tmp_path / "runs" / "toy" / "a"
    (run / "summary.json").unlink()
    for later in (run / "checkpoints").glob("step_000000060"):
        later.rename(run / "checkpoints" / "gone")
    assert finish(tmp_path, ["resume", str(run)]).returncode == 0

    port = free_port()

    def get(path: str) -> object:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/data/plugin/{path}", timeout=5) as answer:
                return json.load(answer)
        except (urllib.error.URLError, OSError):
            return None

    with running(tmp_path, ["tensorboard", str(run), "--port", str(port)]):
        wait_for(lambda: get("scalars/tags"), what="TensorBoard's answer")
        points = get("scalars/scalars?run=.&tag=train%2Floss")
        assert isinstance(points, list)
        assert [step for _, step, _ in points] == list(range(1, 61))
        assert get("hparams/experiment") is not None or get("images/tags") is not None

"""Ten secrets through whole trainings: a sweep with a member that fails, an attempt that dies and the one that goes on, resume,
TensorBoard. Nothing that was written or said holds one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import Launch, records, run_dir
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from test_trust_secrets import CANARIES, LEAKY, found_below, found_in, write_conf

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

NAMED = ("+data.more=[{}]".format(",".join(f"'${{oc.env:CANARY_{number}}}'" for number in (6, 7, 8, 9))), "+data.last=${oc.env:CANARY_10}")

ROTATED = f"{CANARIES['CANARY_5']}-rotated"


def test_ten_secrets_through_sweep_failure_requeue_resume_and_tensorboard(launch: Launch, tmp_path: Path) -> None:
    write_conf(tmp_path / "conf")
    env = {**CANARIES, "WHICH_CANARY": "CANARY_6"}
    words = (*LEAKY, *NAMED, f"runs_dir={tmp_path / 'runs'}", "train.steps=3", "train.save_every=1")
    said = []

    def go(*more: str, **changed: str) -> Path:
        done = launch(*more, env={**env, **changed}, timeout=120)
        said.append(done)
        return run_dir(done) if done.stdout else Path()

    go("-m", *words, "id=sweep", "loader.fail_at=1,null")
    dead = go(*words, "id=dead", "loader.kill_at=1")
    failed = tmp_path / "runs" / "toy" / "sweep-0"
    seen = tmp_path.parent / f"{tmp_path.name}.seen"
    for run in (failed, dead):
        go("why", str(run))
        go("logs", str(run))
    config = failed / "config.yaml"
    config.write_text(config.read_text().replace("fail_at: 1", "fail_at: null").replace("seen: null", f"seen: {seen}"))
    go("resume", str(failed), CANARY_1=ROTATED)
    try:
        assert f"'in_yaml': '{ROTATED}'" in seen.read_text()
        assert CANARIES["CANARY_10"] in seen.read_text()
    finally:
        seen.unlink()

    assert found_below(tmp_path) == {}
    assert [found_in((done.stdout + done.stderr).encode()) for done in said] == [[] for _ in said]
    assert "cannot connect with {'in_yaml': '***'" in json.loads((failed / "attempts" / "000" / "error.json").read_text())["message"]
    assert "last words: {'in_yaml': '***'" in (dead / "attempts" / "000" / "rank_0.log").read_text()
    assert [event["attempt"] for event in records(dead / "events.jsonl") if event["event"] == "started"] == [0, 1]
    for run in (failed, dead):
        assert json.loads((run / "summary.json").read_text())["state"] == "done"
    board = EventAccumulator(str(dead / "tb"))
    board.Reload()
    table = HParamsPluginData.FromString(board.summary_metadata["_hparams_/session_start_info"].plugin_data.content)
    shown = table.session_start_info.hparams
    assert {"optim.lr", "train.batch_size", "model._target_", "data.in_yaml"} <= set(shown)
    assert "cluster._target_" not in shown
    assert shown["data.in_yaml"].string_value == "${oc.env:CANARY_1}"

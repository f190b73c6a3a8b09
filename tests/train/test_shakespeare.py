"""A language model through the real launcher: two processes are one, and its text is in TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from processes import finish, lines, losses
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TEXT = "Now is the winter of our discontent made glorious summer by this sun of York.\n" * 60
SMALL = ("model.dim=32", "model.layers=2", "model.kv_heads=2", "task.sample=30", "data.length=32", "train.precision=fp32")


def train(home: Path, name: str, processes: int) -> Path:
    text = home / "york.txt"
    text.write_text(TEXT)
    steps = ("train.steps=30", "train.save_every=5", "train.log_every=1", "train.batch_size=8", "train.round_batch=false")
    words = ("+exp=shakespeare", *SMALL, *steps, f"data.path={text}", f"cluster.processes_per_node={processes}", f"id={name}")
    done = finish(home, [*words, f"runs_dir={home / 'runs'}"], timeout=300)
    assert done.returncode == 0, done.stderr
    return home / "runs" / "shakespeare" / name


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_processes_are_one_and_each_sees_its_text(tmp_path: Path) -> None:
    one, two = train(tmp_path, "one", 1), train(tmp_path, "two", 2)
    first, second = losses(one), losses(two)
    assert max(abs(second[step] - first[step]) / first[step] for step in first) < 1e-5
    assert first[30] < 0.6 * first[1]
    ends = [json.loads((run / "summary.json").read_text()) for run in (one, two)]
    assert ends[0]["val_loss"] == pytest.approx(ends[1]["val_loss"], rel=1e-5)
    for run, end in zip((one, two), ends, strict=True):
        line = next(line for line in lines(run / "metrics.jsonl") if line["split"] == "train")
        assert line["tokens_per_second"] == pytest.approx(32 * line["samples_per_second"])
        assert end["tokens_per_second"] == pytest.approx(32 * end["samples_per_second"])
        assert "mfu" not in line, "nobody knows a CPU's peak"
    charts = EventAccumulator(str(two / "tb"), size_guidance={"tensors": 0})
    charts.Reload()
    assert len(charts.Scalars("speed/tokens_per_second")) == 30
    shown = [event.tensor_proto.string_val[0].decode() for event in charts.Tensors("val/text/text_summary")]
    assert len(shown) >= 2
    assert all(len(text) > 30 for text in shown)

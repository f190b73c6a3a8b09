"""Small language models trained through the real launcher, each split in another way. Half of the vocabulary is not below the letters: of a
table that is cut each process has what the text needs."""

from __future__ import annotations

import subprocess
from pathlib import Path

from processes import finish

TEXT = "Now is the winter of our discontent made glorious summer by this sun of York.\n" * 60
SMALL = ("model.vocab_size=128", "model.dim=32", "model.layers=2", "model.heads=4", "model.kv_heads=2", "task.sample=5", "data.length=32")
STEPS = ("train.log_every=1", "train.batch_size=8", "train.round_batch=false", "train.precision=fp32")
WATCHED = ("train.compare_every=4", "train.layers_every=7", "train.ema_decay=0.9")
SPLITS: dict[str, tuple[str, ...]] = {
    "one": (),
    "ddp(2)": ("strategy=ddp", "cluster.processes_per_node=2"),
    "zero1(2)": ("strategy=zero1", "cluster.processes_per_node=2"),
    "fsdp(2)": ("strategy=fsdp", "cluster.processes_per_node=2"),
    "fsdp(4)": ("strategy=fsdp", "cluster.processes_per_node=4"),
    "hsdp(2x2)": ("strategy=hsdp", "strategy.dp_shard=2", "cluster.processes_per_node=4"),
    "tp(2)": ("strategy=tp", "cluster.processes_per_node=2"),
    "tp x fsdp(2x2)": ("strategy=tp", "strategy.tp=2", "cluster.processes_per_node=4"),
    "cp(2)": ("strategy=cp", "strategy.on_cpu=true", "cluster.processes_per_node=2"),
    "cp x ddp(2x2)": ("strategy=cp", "strategy.cp=2", "strategy.on_cpu=true", "cluster.processes_per_node=4"),
    "pp(2)": ("strategy=pp", "train.accumulate=4", "cluster.processes_per_node=2"),
    "pp x ddp(2x2)": ("strategy=pp", "strategy.pp=2", "train.accumulate=2", "cluster.processes_per_node=4"),
    "pp x fsdp(2x2)": ("strategy=pp", "strategy.pp=2", "strategy.dp_shard=all", "train.accumulate=2", "cluster.processes_per_node=4"),
}
"""By the name that docs/strategies.md gives each."""


def moved_to(split: str) -> tuple[str, ...]:
    """What `resume` is told for it."""
    return ("strategy=ddp", "cluster.processes_per_node=1", "train.accumulate=1", *SPLITS[split])


def language(home: Path, name: str, *more: str) -> list[str]:
    text = home / "york.txt"
    text.write_text(TEXT)
    places = (f"data.path={text}", f"runs_dir={home / 'runs'}", f"id={name}")
    return ["+exp=shakespeare", *SMALL, *STEPS, *WATCHED, *places, *more]


def words(home: Path, name: str, split: str, *more: str) -> list[str]:
    return [*language(home, name, *SPLITS[split]), *more]


def trained(home: Path, name: str, split: str, *more: str) -> Path:
    return finished(finish(home, words(home, name, split, *more), timeout=300), home, name)


def finished(done: subprocess.CompletedProcess[str], home: Path, name: str) -> Path:
    assert done.returncode == 0, done.stderr
    return home / "runs" / "shakespeare" / name

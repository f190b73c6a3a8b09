"""`data`: what would be trained on, without training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from launcher.clusters import submit
from launcher.compose import check, scripted
from launcher.compose.compose import compose
from launcher.compose.freeze import freeze, resolve, runs_dir
from launcher.errors import ConfigError, plain
from launcher.start.launch import pin

MOST_CLASSES = 20
"""That have a line each."""


def data(words: list[str]) -> int:
    """Print splits, classes, repeated samples, the loader's speed, and where a picture of a batch is. It makes no run."""
    if "-m" in words or "--multirun" in words:
        raise ConfigError("data shows one run; leave out --multirun")
    compose(words, _show)
    return 0


def _show(config: DictConfig, overrides: list[str]) -> None:
    scripted.refuse(config, "data")
    freeze(config, overrides)  # every mistake in the config surfaces before any data are touched
    values = resolve(config)
    found = submit.prepare_data(values["data"])
    pin(config, values["data"], found.pinned)
    check.check_held(values, found.holds)
    values = resolve(config)
    seen = submit.look_at_data(values, runs_dir(values) / ".data" / f"{config.name}.png")
    for line in _lines(values, seen):
        print(plain(line))


def _lines(values: Mapping[str, Any], seen: Mapping[str, Any]) -> Iterator[str]:
    train, whole = values["train"], seen["splits"]
    place = values["data"].get("root") or values["data"].get("path")
    made_up = "  THE BUILT-IN STAND-IN, not the real data set" if seen["is_standin"] else ""
    yield f"data      {values['data']['_target_']}{f' in {place}' if place else ''}{made_up}"
    yield f"sample    {', '.join(seen['sample'])}: {seen['bytes']:,} bytes"
    yield f"loader    {values['loader']['_target_']}: {seen['speed']:,.0f} samples a second, by one process"
    yield f"epoch     {seen['steps']:,} steps of {train['batch_size']:,} samples"
    yield ""
    for split in whole:
        some = f"  (the first {split['looked_at']:,} looked at)" if split["looked_at"] < split["samples"] else ""
        yield f"{split['name']:<9} {split['samples']:>10,} samples{some}"
    yield from _classes(whole, seen["names"])
    yield from _doubts(whole, values["data"])
    yield from (line for text in seen["texts"] for line in ("", *text.splitlines()))
    if seen["picture"]:
        yield f"\na batch as it is trained on: {Path(seen['picture'])}"


def _classes(splits: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Iterator[str]:
    """How many of each class there are in each split; of many classes, the rarest and the most frequent."""
    labels = sorted({int(label) for split in splits for label in split["labels"]})
    if not labels:
        return
    counts = {label: [split["labels"].get(str(label), 0) for split in splits] for label in labels}
    shown = labels
    if len(labels) > MOST_CLASSES:
        by_count = sorted(labels, key=lambda label: counts[label][0])
        shown = [*by_count[: MOST_CLASSES // 2], *by_count[-MOST_CLASSES // 2 :]]
        yield f"\n{len(labels)} classes; the rarest {MOST_CLASSES // 2} and the most frequent:"
    titles = {label: _title(names[label]) if 0 <= label < len(names) else str(label) for label in shown}
    width = max(5, *map(len, titles.values()))
    yield "\n" + f"{'class':<{width}}" + "".join(f"{split['name']:>10}" for split in splits)
    for label in shown:
        yield f"{titles[label]:<{width}}" + "".join(f"{count:>10,}" for count in counts[label])


def _title(name: str) -> str:
    """A folder may be called anything."""
    return plain(name.translate({10: "\\n", 9: "\\t"}))


def _doubts(splits: Sequence[Mapping[str, Any]], data: Mapping[str, Any]) -> Iterator[str]:
    """What somebody would want to clean, and what to type for it."""
    for split in splits:
        if split["repeated"]:
            yield f"\n{split['name']}: {split['repeated']:,} samples are there before"
        if split["leaked"]:
            yield f"\n{split['name']}: {split['leaked']:,} samples are in an earlier split too: what is said of them is no test"
        if split["at_odds"]:
            yield f"\n{split['name']}: {split['at_odds']:,} of those have another label there"
    twice = sum(split["repeated"] + split["leaked"] for split in splits)
    if twice and data.get("duplicates") == "keep":
        yield f"\ndata.duplicates=drop leaves out those of the {twice:,} that are the same to the byte; refuse names the first"

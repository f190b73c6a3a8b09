"""A text in what a run has left, as somebody may hand it over: every text in its files, through resume and status."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from fake_slurm import FakeSlurm

from fuzz.fields import SLURM
from fuzz.sandbox import Sandbox
from fuzz.tally import Tally
from launcher.rundir.rundir import RunDir

FILES = ("plan.json", "config.yaml", "events.jsonl", "summary.json", "metrics.jsonl", "attempts/000/error.json")
ACTED_ON = ("plan.json", "config.yaml cluster", "config.yaml trust")
"""What of those `resume` builds something of: each text of them by itself. All others it meets together, in one run."""
ALONE = 8
"""Of so many such places a text is resumed with one, by chance."""
PLAIN = ("job.log", "attempts/000/rank_0.log", "attempts/000/ended", "attempts/000/outcome", "attempts/000/job", "job.sh")
"""Files that are no more than text: they hold it whole."""


class Stored:
    def __init__(self, sandbox: Sandbox, fake: FakeSlurm, text: str, tally: Tally, chance: random.Random) -> None:
        self.sandbox, self.fake, self.tally, self.chance = sandbox, fake, tally, chance
        self.text = sandbox.text(text)
        self.runs = sandbox.home / "runs"

    def all(self) -> None:
        model = self.model()
        spoilt = dict[str, Path]()
        for number, (where, name, content) in enumerate(self._contents(model)):
            here = self.runs / "fuzzed" / f"r{number}"
            shutil.copytree(model, here, symlinks=True)
            for path in (here / "plan.json",):
                path.write_text(path.read_text().replace(str(model), str(here)))
            (here / name).write_bytes(content.replace(str(model).encode(), str(here).encode()))
            spoilt[where] = here
        before = len(self.tally.found)
        self._status("all of them")
        at_once = self.runs / "fuzzed" / "model"
        for where, here in {**spoilt, "all that it shows": at_once}.items():
            if len(self.tally.found) > before:
                self._status(where, str(here))
            if not where.startswith(ACTED_ON) and here != at_once:
                name = where.split(":")[0].split(" ")[0]
                shutil.copyfile(here / name, at_once / name)
                shutil.rmtree(here)
                continue
            if here == at_once or not self.chance.randrange(ALONE):
                (self.fake.home / "queue").write_text("")
                self.tally.note("resume", self.text, where, self.sandbox.call("resume", str(here), writes=(here,)))
            shutil.rmtree(here)
        self.sandbox.clean()

    def _status(self, where: str, *words: str) -> None:
        self.tally.note("status", self.text, where, self.sandbox.call("status", *words, "--all"))

    def model(self) -> Path:
        """A run that was submitted, began and failed."""
        words = (*SLURM, "cluster.shared_filesystem=true", "+cluster.env.A=b", "cluster.partition=p", "name=fuzzed", "id=model")
        answer = self.sandbox.call("run", *words, writes=(self.runs,))
        assert answer.code == 0, answer
        run = RunDir(self.runs / "fuzzed" / "model")
        run.attempt(0).mkdir()
        run.log_event("attempt", attempt=0, job="123", reason="nodes node1")
        run.log_event("started", attempt=0, restart=0, steps=100, world="1 node", device="cpu", host="node1")
        run.log_event("failed", attempt=0, reason="ValueError: x")
        run.summary.write_text(json.dumps({"state": "failed", "reason": "ValueError: x", "test_accuracy": 0.5, "model": "x"}))
        run.metrics.write_text(json.dumps({"split": "train", "step": 5, "loss": 0.5, "note": "x"}) + "\n")
        report = {"time": 1.0, "rank": 0, "host": "node1", "step": 4, "exception": "E", "message": "m", "exit_code": 1, "traceback": "t"}
        run.error(0).write_text(json.dumps(report))
        for name in PLAIN[:-1]:
            (run.path / name).write_text("x\n")
        return run.path

    def _contents(self, model: Path) -> Iterator[tuple[str, str, bytes]]:
        """Where the text stands, in which file, and what is in that then."""
        for name in FILES:
            written = (model / name).read_text()
            if name.endswith(".yaml"):
                values: Any = yaml.safe_load(written)
                read = {key: values.pop(key) for key in ("cluster", "trust")}
                for where, changed in [("the rest", {**read, **_all(values, self.text)}), *_each({**read}, self.text)]:
                    yield f"{name} {where.lstrip('.')}", name, yaml.safe_dump({**values, **changed}, sort_keys=False).encode()
                continue
            lines = [json.loads(line) for line in written.splitlines()] if name.endswith("l") else [json.loads(written)]
            for number, line in enumerate(lines):
                for where, changed in _each(line, self.text):
                    kept = [*lines[:number], changed, *lines[number + 1 :]]
                    yield f"{name}:{number} {where}", name, "".join(json.dumps(each) + "\n" for each in kept).encode()
        for name in PLAIN:
            yield name, name, f"{self.text}\n".encode("utf-8", "surrogatepass")


def _all(value: Any, text: str) -> Any:
    """`value` with `text` in the place of every text."""
    if isinstance(value, dict):
        return {key: _all(child, text) for key, child in value.items()}
    return text if isinstance(value, str) else value


def _each(value: Any, text: str, where: str = "") -> Iterator[tuple[str, Any]]:
    """`value` with `text` in the place of one text in it, and of one key, of each in turn."""
    if isinstance(value, str):
        yield where, text
    for key, child in list(value.items()) if isinstance(value, dict) else []:
        for place, changed in _each(child, text, f"{where}.{key}"):
            yield place, {**value, key: changed}
    for index, child in enumerate(value) if isinstance(value, list) else ():
        for place, changed in _each(child, text, f"{where}[{index}]"):
            yield place, [*value[:index], changed, *value[index + 1 :]]

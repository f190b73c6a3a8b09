"""What the README tells a newcomer to type when a run is done, typed: its lines, read from there, on CIFAR as `make run` trains it."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from processes import environment, finish
from served import Server
from small_runs import SmallRuns
from worked_examples import README, typed

from data.cifar10 import FILES

SECTIONS = ("What it has learnt", "Handing a model on", "On a cluster")
VERBS = ("evaluate", "export", "predict", "serve", "compare", "plot")
"""Of this file; the others of "On a cluster" have tests of their own."""
PICTURES = 1_000


def lines() -> list[str]:
    """Each once, in the README's order, but for those that want a cluster (tests/evaluation/test_evaluate.py has them)."""
    found = [line for section in SECTIONS for line in typed(section, README) if line.split()[3] in VERBS]
    return [*dict.fromkeys(line for line in found if "cluster=slurm" not in line)]


def test_the_readme_has_a_line_for_each_verb() -> None:
    assert {line.split()[3] for line in lines()} == {*VERBS}


class Newcomer:
    """A folder with a run called cifar in it, another beside it, and pictures."""

    def __init__(self, runs: SmallRuns, data: Path) -> None:
        self.run, self.home, self.data = runs.cifar(data), runs.home, data
        self.env = environment(self.home, **runs.env)
        # `python` is this one, as in an environment that is active
        self.env["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), self.env["PATH"]))
        for words in (["+exp=cifar", "name=resnet18", "id=b", "train.steps=40"], ["evaluate", "resnet18"]):
            made = finish(self.home, words, timeout=600, **runs.env)
            assert made.returncode == 0, made.stderr
        (self.home / "pictures").mkdir(exist_ok=True)
        self.labels: list[int] = []
        for number, row in enumerate(pq.read_table(data / FILES["test"]).slice(0, PICTURES).to_pylist()):
            Image.open(io.BytesIO(row["img"]["bytes"])).save(self.home / "pictures" / f"{number:04d}.png")
            self.labels.append(row["label"])

    def words(self, line: str) -> str:
        """Only what the README cannot know is put in its place: where the run is, and where other data are."""
        for told, here in (("RUN", str(self.run)), ("/path/to/others", str(self.data))):
            line = re.sub(rf"(?<![\w-]){re.escape(told)}(?![\w-])", here, line)
        return line

    def types(self, line: str) -> str:
        done = subprocess.run(
            ["bash", "-c", self.words(line)], cwd=self.home, env=self.env, capture_output=True, text=True, timeout=1200, check=False
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"
        assert "Traceback" not in done.stderr, line
        return done.stdout

    def serves(self, line: str) -> Iterator[Server]:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {self.words(line)} port=0"], cwd=self.home, env=self.env, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        try:
            yield Server(int(process.stdout.readline().split("/")[2].split(":")[1]), process)
        finally:
            process.terminate()
            process.wait(30)
            process.stdout.close()


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.timeout(5400)
def test_a_newcomer_types_what_the_readme_says(small_runs: SmallRuns, shared_data: Path) -> None:
    here = Newcomer(small_runs, shared_data)
    evaluation = here.run / "evaluation"
    answers: list[dict[str, Any]] = []
    for line in lines():
        verb, words = line.split()[3], line.split()[4:]
        print(line, flush=True)
        if verb == "serve":
            for server in here.serves(line):
                assert server.ask(None, "/")[0] == 200
                status, answer = server.ask((here.home / "pictures" / "0000.png").read_bytes())
                assert (status, answer["class"]) == (200, answers[0]["class"])
            continue
        said = here.types(line)
        if verb == "evaluate":
            split = "val" if "split=val" in words else "test"
            assert said.splitlines()[-1] == str(evaluation / split / "report.html")
            assert (evaluation / split / "report.html").is_file()
            assert ("robustness" in json.loads((evaluation / split / "evaluation.json").read_text())) == ("robustness=true" in words)
        elif verb == "export":
            assert said.splitlines()[-1] == str(here.run / "export")
        elif verb == "predict" and "to=answers.csv" in words:
            assert len((here.home / "answers.csv").read_text().splitlines()) == PICTURES + 1
        elif verb == "predict":
            answers = [json.loads(each) for each in said.splitlines()]
            names = json.loads((here.run / "export" / "labels.json").read_text())
            assert [Path(each["input"]).name for each in answers] == [f"{number:04d}.png" for number in range(PICTURES)]
            of_evaluation = pq.read_table(evaluation / "test" / "predictions.parquet")["predicted"].to_numpy()[:PICTURES]
            predicted = np.array([names.index(each["class"]) for each in answers])
            print(f"{np.mean(predicted == here.labels):.1%} of {PICTURES:,} right, {np.mean(predicted == of_evaluation):.2%} as evaluated")
            assert np.mean(predicted == of_evaluation) > 0.99, "an evaluation is in the run's precision, a program in float32"
        elif verb == "compare":
            assert "McNemar" in said, said
        else:
            assert said.splitlines()[-1].endswith(".png"), said
            assert Path(here.home, said.splitlines()[-1]).stat().st_size > 10_000

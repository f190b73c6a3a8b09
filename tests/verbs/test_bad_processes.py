"""Two hundred mistakes as the user makes them, each to a process of its own: one line, the exit code, no traceback, soon.

The rows of the other tests of bad input, as they are typed; and files that somebody has damaged.
"""

from __future__ import annotations

import random
import re
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest
from fake_slurm import FakeSlurm
from helpers import ON_SLURM, Answer, Launch, refused
from test_bad_command import ENVIRONMENT, VERBS
from test_bad_input import PAIRS, ROWS
from test_slurm_submit import REFUSALS

SEED = 20261121
SECONDS = 3.0
"""What an answer may take (with --full, which wants a machine of its own)."""


class Mistake(NamedTuple):
    kind: str
    words: tuple[str, ...]
    code: int
    parts: tuple[str, ...]
    env: Mapping[str, str] = MappingProxyType({})


RUBBISH = {
    "empty": b"",
    "cut off": b'{"name": "to',
    "of another kind": b"[1, 2]",
    "null": b"null",
    "no text": b"\xff\xfe\x00\x80",
    "a number": b"7",
}


def typed(toy: tuple[str, ...]) -> list[Mistake]:
    """Overrides, verbs, the environment."""
    rows = [((*toy, row[0]), row[1:]) for row in ROWS if "\0" not in row[0]] + [((*toy, *row[0]), row[1:]) for row in PAIRS]
    found = [Mistake("config", words, 2, tuple(parts)) for words, parts in rows]
    found += [Mistake("command", row[0], 2, row[1:]) for row in VERBS if row[0] != ("tensorboard",)]  # here is a run
    return found + [Mistake("environment", toy, 2, (f"type: unset {name}",), {name: value}) for name, value in ENVIRONMENT]


def sbatch_replies(home: Path, toy: tuple[str, ...]) -> list[Mistake]:
    """From a machine whose SLURM refuses, at the question whether it would take the job, or when it is given the job."""
    found: list[Mistake] = []
    for place in ("test_only", "sbatch"):
        for number, texts in enumerate(REFUSALS):
            fake = FakeSlurm(home / f"{place}-{number}")
            fake.answers(place, f"fail {' '.join(map(shlex.quote, texts))}")
            own = [re.sub(r"^sbatch: (error: )?", "", text) for text in texts]
            words = (*toy, *ON_SLURM, "cluster.shared_filesystem=true")
            found.append(Mistake("sbatch", words, 4, (f"sbatch refused: {'; '.join(own)}",), {"PATH": str(fake.bin)}))
    return found


def damaged_files(home: Path, toy: tuple[str, ...], run: Path) -> list[Mistake]:
    """Of a run, of the config, of the data."""
    found: list[Mistake] = []
    for name, what in (("plan.json", "plan.json"), ("config.yaml", "config.yaml")):
        for how, data in RUBBISH.items():
            copy = home / f"{name}-{how}"
            copy.mkdir(parents=True)
            for path in run.iterdir():
                if path.is_file():
                    (copy / path.name).write_bytes(data if path.name == name else path.read_bytes())
            found.append(Mistake("files", ("resume", str(copy)), 3, (what,)))
    conf = home / "conf"
    (conf / "exp").mkdir(parents=True)
    for how, data in {**RUBBISH, "a tab": b"a:\n\tb: 1", "twice": b"a: 1\na: 2", "not closed": b"a: ["}.items():
        if how not in ("empty", "null"):  # these say nothing, and may
            name = how.replace(" ", "_")
            (conf / "exp" / f"{name}.yaml").write_bytes(data)
            found.append(Mistake("files", ("--config-dir", str(conf), f"+exp={name}"), 2, ("exp",)))
    for how, data in {"nothing": None, "empty": b"", "no parquet": b"PAR1 but no more"}.items():
        root = home / f"data-{how}"
        (root / "plain_text").mkdir(parents=True)
        if data is not None:
            for part in ("train", "test"):
                (root / "plain_text" / f"{part}-00000-of-00001.parquet").write_bytes(data)
        found.append(Mistake("files", ("+exp=cifar", f"data.root={root}", f"runs_dir={home / 'runs'}"), 2, (f"{root}",)))
    return found


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_two_hundred_mistakes(
    launch: Launch, toy: Callable[..., object], toy_words: tuple[str, ...], tmp_path: Path, full: bool, many: Callable[[int, int, int], int]
) -> None:
    assert toy("train.steps=1", "id=whole") is not None
    rest = [
        *sbatch_replies(tmp_path / "slurm", toy_words),
        *damaged_files(tmp_path / "files", toy_words, tmp_path / "runs" / "toy" / "whole"),
    ]
    every = [*typed(toy_words), *rest]
    random.Random(SEED).shuffle(every)
    mistakes = every[: many(12, 120, 200)]
    wrong: list[str] = []
    slowest, kinds = 0.0, dict.fromkeys((mistake.kind for mistake in mistakes), 0)
    for mistake in mistakes:
        began = time.monotonic()
        done = launch(*mistake.words, env=mistake.env)
        seconds = time.monotonic() - began
        try:
            refused(Answer(done.returncode, done.stdout, done.stderr), mistake.code, *mistake.parts)
            assert not full or seconds <= SECONDS, f"{seconds:.1f} s"
        except AssertionError as error:
            wrong.append(f"{mistake}\n{error}")
        slowest, kinds[mistake.kind] = max(slowest, seconds), kinds[mistake.kind] + 1
    print(f"seed {SEED}: {len(mistakes)} of {len(every)} mistakes ({kinds}), the slowest answer after {slowest:.2f} s")
    assert not wrong, "\n\n".join(wrong)
    assert [path.name for path in (tmp_path / "runs" / "toy").iterdir()] == ["whole"]

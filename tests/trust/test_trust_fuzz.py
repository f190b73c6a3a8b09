"""Hostile texts in every text field, through run, render, plan, resume and status: nothing runs, leaks, hangs or ends in a traceback.

    make fuzz                       300 texts, by a seed that is printed
    pytest -m fuzz --seed 7         a part of them, by another seed

What is tried and how is said in tests/fuzz/__init__.py; figures are in docs/security.md.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fake_slurm import FakeSlurm
from fuzz import config, fields, pool, stored, texts, warm
from fuzz.fields import SLURM, Field
from fuzz.sandbox import Answer, Sandbox, judged
from fuzz.tally import Tally
from helpers import Command, refused
from made_runs import Made

from launcher import errors, shell
from launcher.clusters.slurm import Slurm
from launcher.compose import check
from launcher.config.config import Text

TEXTS, FIELDS = 3, 6
"""Of the part that every test run has: so many texts, each in so many fields of its own."""


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    asked: int | None = request.config.getoption("--seed")
    return asked if asked is not None else random.SystemRandom().randrange(10**6) if request.config.getoption("--full") else 0


@pytest.fixture
def inside() -> Iterator[tuple[Sandbox, FakeSlurm]]:
    with pool.place() as both:
        yield both


def _told(total: Tally, seed: int) -> str:
    return "\n".join([f"seed {seed}; try it again with: pytest -m fuzz --seed {seed}", *total.found[:60], str(total)])


@pytest.mark.fuzz
@pytest.mark.timeout(3600)
def test_no_text_in_any_field_does_more_than_be_a_text(full: bool, seed: int) -> None:
    print(f"\nseed {seed}")
    if full:
        processes = len(os.sched_getaffinity(0)) + 1  # they wait, too
        total = pool.fuzz(texts.texts(seed, 300), fields.all_fields(), seed, processes, said=True)
    else:
        chance, total = random.Random(seed), Tally()
        for text in chance.sample(texts.texts(seed, 300), TEXTS):
            total.add(pool.of_texts([text], chance.sample(fields.all_fields(), FIELDS), seed))
    print(total)
    assert total.found == [], _told(total, seed)


# ---------------------------------------------------------------- that it would be seen


def test_a_new_field_of_the_schema_comes_in_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclasses.dataclass
    class Wider(fields.Config):
        motto: Text = "x"

    before = {str(field) for field in fields.all_fields()}
    monkeypatch.setattr(fields, "Config", Wider)
    assert {str(field) for field in fields.all_fields()} - before == {"motto"}
    known = fields.targets.signature("launcher.clusters.slurm.Slurm")
    assert known is not None
    wider = {**known.annotations, "site": "str | None", "words": "list[str]", "notes": "dict[str, str]", "count": "int"}
    real = fields.targets.signature
    given = known._replace(annotations=wider)
    monkeypatch.setattr(fields.targets, "signature", lambda target: given if target.endswith(".Slurm") else real(target))
    new = {str(field) for field in fields.all_fields()} - before - {"motto"}
    assert new == {"+cluster.site", "+cluster.words[0]", "++cluster.notes.FUZZED", "+cluster.notes.<key>"}


def test_the_texts_are_of_every_kind_and_the_same_for_a_seed() -> None:
    found = texts.texts(3, 300)
    assert (len(found), len({*found})) == (300, 300)
    assert found == texts.texts(3, 300) != texts.texts(4, 300)
    assert all({*kind} & {*found} for kind in texts.KINDS.values())
    assert len({*found} - {*texts.written()}) >= 50


HOLES = {
    "no quotes": (shell.shlex, "quote", lambda text: text, "+cluster.env.FUZZED", "$(touch @TOUCH@)", "canary"),
    "quotes of another shell": (shell.shlex, "quote", lambda text: f'"{text}"', "+cluster.env.FUZZED", "`touch @TOUCH@`", "canary"),
    "a guard that raises": (check, "check_keys", lambda values: {}[0], "cluster.account", "a", "traceback"),
    "escapes": (errors, "_number", lambda found: found[0], "train.precision", "\x1b[2J", "terminal"),
    "no check of names": (Slurm, "world", lambda self: Path("left").touch(), "cluster.account", "a", "outside"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOLES)
def test_a_hole_is_seen(kind: str, inside: tuple[Sandbox, FakeSlurm], monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, without, key, text, fault = HOLES[kind]
    field = next(field for field in fields.all_fields() if str(field) == key)
    for holed in (False, True):
        tally = Tally()
        with monkeypatch.context() as patch:
            if holed:
                patch.setattr(owner, name, without)
            each = config.Config(*inside, text, tally, random.Random(0))
            if each.alone(field):
                each.whole(key, config.words(field, text=each.text))
        inside[0].clean()
        assert any(fault in found for found in tally.found) == holed, tally.found


def test_a_run_with_a_text_in_each_of_its_files_is_tried(inside: tuple[Sandbox, FakeSlurm], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "ALONE", 1)
    tally = Tally()
    stored.Stored(*inside, "\x1b[2J", tally, random.Random(0)).all()
    assert tally.cases["resume"] > 20
    assert tally.found == []


def test_what_is_wrong_with_an_answer() -> None:
    fine = Answer(("plan",), 2, "", "launcher: x\n")
    assert judged(fine) == []
    for changed in (
        {"raised": "ValueError"}, {"err": "launcher: Traceback (most recent call last)\n"}, {"err": "launcher: a\nlauncher: b\n"},
        {"code": 9}, {"err": "x\n"}, {"err": ""}, {"err": "launcher: " + "x" * 2_000 + "\n"}, {"err": "launcher: \x1b[2J\n"},
        {"seconds": 2.1}, {"memory": 201 << 20}, {"out": "s3cr3t-canary-" + "value-91"},
    ):  # fmt: skip
        assert judged(dataclasses.replace(fine, **{"faults": [], **changed})), changed


def test_a_composition_that_was_kept_gives_what_hydra_gives(inside: tuple[Sandbox, FakeSlurm]) -> None:
    chance = random.Random(5)
    for field in chance.sample(fields.all_fields(), 12):
        typed = config.words(field, text=chance.choice(texts.written()))
        cold = inside[0].call("plan", *typed, "id=a")
        with warm.hydra():
            kept = inside[0].call("plan", *typed, "id=a")
        assert (kept.code, kept.out.splitlines(), kept.err) == (cold.code, cold.out.splitlines(), cold.err), typed


# ---------------------------------------------------------------- what it has found


def _planned(here: Path, **fields: object) -> None:
    """A plan as somebody else may have written it."""
    path = here / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_a_plan_with_a_name_that_is_too_long_stops_nothing(command: Command, tmp_path: Path) -> None:
    for name in ("good", "bad"):
        made = Made(tmp_path / name).path
        (tmp_path / "runs" / name).mkdir(parents=True)
        made.rename(tmp_path / "runs" / name / "a")
    _planned(tmp_path / "runs" / "bad" / "a", run_dir="a/" * 100 + "x" * 5_000)
    answer = command("status")
    assert (answer.code, "good/a" in answer.out, "bad/a" in answer.out) == (0, True, True), answer
    assert command("status", "bad").code == 0


def test_an_error_of_the_machine_s_is_one_line_too(command: Command) -> None:
    refused(command("status", "x" * 3_000), 3, "File name too long")
    refused(command("status", "x\n" * 1_500), 3, "File name too long")


def test_where_a_run_was_before_is_told_in_a_line_of_a_thousand_characters(inside: tuple[Sandbox, FakeSlurm]) -> None:
    here = stored.Stored(*inside, "x", Tally(), random.Random(0)).model()
    (inside[1].home / "queue").write_text("")
    _planned(here, run_dir="/".join(["x" * 200] * 15))
    answer = inside[0].call("resume", str(here), writes=(here,))
    assert (answer.code, answer.faults) == (0, []), answer
    assert "is a run that was at xxx" in answer.err


@pytest.mark.parametrize("text", ["${oc.select:x,$(touch x)}", "${", "${a${", "${.B}${.B}"])
def test_a_reference_in_a_stored_config_that_is_none_is_one_line(text: str, inside: tuple[Sandbox, FakeSlurm]) -> None:
    sandbox, fake = inside
    here = stored.Stored(sandbox, fake, text, Tally(), random.Random(0)).model()
    (fake.home / "queue").write_text("")
    written = yaml.safe_load((here / "config.yaml").read_text())
    bomb = {"B0": "abcdefghij", **{f"B{number}": text.replace(".B", f".B{number - 1}") for number in range(1, 30)}}
    (here / "config.yaml").write_text(yaml.safe_dump({**written, "cluster": {**written["cluster"], "env": bomb}}))
    answer = sandbox.call("resume", str(here), writes=(here,))
    assert (answer.code, answer.faults) == (2, []), answer
    assert "the stored config cannot be read" in answer.err


def test_an_error_in_a_stored_config_names_the_whole_key(inside: tuple[Sandbox, FakeSlurm]) -> None:
    """`warning: …` alone looked like one."""
    here = stored.Stored(*inside, "x", Tally(), random.Random(0)).model()
    written = yaml.safe_load((here / "config.yaml").read_text())
    (here / "config.yaml").write_text(yaml.safe_dump({**written, "cluster": {**written["cluster"], "warning": "${..nothing}"}}))
    answer = inside[0].call("resume", str(here), writes=(here,))
    assert (answer.code, answer.faults) == (2, []), answer
    assert answer.err.startswith("launcher: cluster.warning: ")


def test_the_words_arrive(inside: tuple[Sandbox, FakeSlurm], tmp_path: Path) -> None:
    tally = Tally()
    each = config.Config(*inside, "$(touch x); 'a' \"b\" \\", tally, random.Random(0))
    each.whole("+cluster.env.FUZZED", config.words(Field("+cluster.env.FUZZED", SLURM), text=each.text))
    assert (tally.found, tally.cases["bash"], tally.cases["resume"]) == ([], 1, 2)

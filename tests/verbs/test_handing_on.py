"""What the verbs after training say before they begin: of what is there already, of what was encrypted and will not be, of a run that is
not done, and of a name that is nearly one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import Answer, refused
from made_runs import Made

from launcher.errors import RunError
from launcher.exported.draft import drafted
from launcher.exported.folder import PREPROCESSING
from launcher.plan import SCRIPTED
from launcher.rundir.rundir import RunDir
from launcher.start import unlocked
from launcher.start.report import closing
from launcher.trust import vault
from launcher.verbs import evaluate, export
from launcher.verdict import standing
from launcher.verdict.standing import Standing

Command = Callable[..., Answer]
KEY = bytes(range(32))
TENSORS = [{"name": "input", "dtype": "float32", "shape": ["batch", 2]}]


@pytest.fixture
def done(tmp_path: Path) -> RunDir:
    made = Made(tmp_path, batch=False)
    summary = {"state": "done", "attempt": 0, "steps": 40, "attempts": 1, "test_loss": 2.028840411376953, "test_accuracy": 0.5}
    made.run.summary.write_text(json.dumps(summary))
    (made.run.checkpoints / "step_000000040").mkdir(parents=True)
    return made.run


def _export(place: Path, key: bytes | None = None, **of: Any) -> Path:
    told = {"predicts": "numbers", "predicting": {}, "inputs": TENSORS, "outputs": TENSORS, "differences": {}, "missing": {}}
    with drafted(place, key) as draft:
        draft.write(PREPROCESSING, b'{"kind": "tensors"}')
        draft.finish({**told, "run": {"name": "toy", "id": "made", "step": 30, **of}})
    return place


def _encrypt(run: RunDir) -> str:
    """Its checkpoint. Returns the mark of the key."""
    (run.checkpoints / "step_000000040" / "model.safetensors").write_bytes(b"".join(vault.sealed([b"weights"], 7, "model", KEY)))
    return vault.mark(KEY)


# ---------------------------------------------------------------- what is there already


def test_an_export_of_the_same_run_is_replaced_and_that_is_said(tmp_path: Path, done: RunDir) -> None:
    target = tmp_path / "out"
    assert export._replaced(done, target, may_be_another=False) == []
    assert export._replaced(done, _export(target), may_be_another=False) == ["in the place of the export of toy/made, update 30"]


def test_one_of_another_run_is_replaced_where_that_was_said_alone(tmp_path: Path, done: RunDir, command: Command) -> None:
    target = _export(tmp_path / "out", id="other")
    before = {path: path.read_bytes() for path in target.iterdir()}
    answer = command("export", str(done), f"to={target}")
    refused(answer, 3, f"to={target}: the export of toy/other, update 30 is there, and not one of toy/made", "type another", "replace=true")
    assert {path: path.read_bytes() for path in target.iterdir()} == before
    assert export._replaced(done, target, may_be_another=True) == ["in the place of the export of toy/other, update 30"]


def test_one_that_nobody_can_read_may_be_anybody_s(tmp_path: Path, done: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cryptography")
    monkeypatch.delenv("LAUNCHER_KEY", raising=False)
    target = _export(tmp_path / "out", KEY)
    with pytest.raises(RunError, match=r"an export that cannot be read \(.*needs a key.*\) is there, and not one of toy/made"):
        export._replaced(done, target, may_be_another=False)
    monkeypatch.setenv("LAUNCHER_KEY", KEY.hex())
    assert export._replaced(done, target, may_be_another=False) == ["in the place of the export of toy/made, update 30"]


# ---------------------------------------------------------------- what was encrypted


def test_what_was_encrypted_and_will_not_be_is_one_line_that_says_what_to_type(
    done: RunDir, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cryptography")
    assert export._encrypted(done, is_asked=False) == []
    evaluate._warn_of_plain(done)
    assert capsys.readouterr().err == "", "nothing of it was encrypted"
    mark = _encrypt(done)
    assert unlocked.mark_of(done) == mark
    assert export._encrypted(done, is_asked=False) == []
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("launcher: warning: the checkpoints of ")
    assert "type encrypt=true" in line
    evaluate._warn_of_plain(done)
    (line,) = capsys.readouterr().err.splitlines()
    assert "predictions.parquet" in line
    assert f"type: rm -r {done.path / 'evaluation'} {done.tensorboard / 'evaluation'}" in line
    monkeypatch.setenv("LAUNCHER_KEY", KEY.hex())
    assert export._encrypted(done, is_asked=True) == [f"encrypted with the key {mark[:8]}"]
    assert capsys.readouterr().err == ""


# ---------------------------------------------------------------- a run that is not done


@pytest.mark.parametrize("word", ["running", "starting", "queued", "stopped", "dead", "failed"])
def test_of_a_run_that_is_not_done_every_verb_says_the_same(word: str, done: RunDir) -> None:
    """To go on with it where it ended, to wait where it has not."""
    now = Standing(word)
    with pytest.raises(RunError) as error:
        standing.check_saved(done, now, "unfinished=true", is_asked=False)
    goes_on = word in ("running", "starting", "queued")
    assert f"{done} is not done ({word}); " in str(error.value)
    assert (f"wait for it: python -m launcher status {done}" in str(error.value)) == goes_on
    assert (f"go on with: python -m launcher resume {done}" in str(error.value)) != goes_on
    assert str(error.value).endswith("; or type unfinished=true to take what it has saved so far")
    standing.check_saved(done, now, "unfinished=true", is_asked=True)
    (done.checkpoints / "step_000000040").rmdir()
    with pytest.raises(RunError, match=rf"\({word}\) has no checkpoint; {'wait for it' if goes_on else 'go on with'}: "):
        standing.check_saved(done, now, "unfinished=true", is_asked=True)


@pytest.mark.parametrize(("verb", "how"), [("export", "unfinished=true"), ("evaluate", "checkpoint=newest")])
def test_and_both_say_it(verb: str, how: str, done: RunDir, command: Command) -> None:
    done.summary.write_text(json.dumps({"state": "stopped", "attempt": 0}))
    done.attempt(0).mkdir()
    refused(command(verb, str(done)), 3, "is not done (stopped); go on with: python -m launcher resume ", f"or type {how} to take what")


# ---------------------------------------------------------------- what to type next, and a name that is nearly one


def test_what_to_type_next_of_a_run_that_is_done_is_said_wherever_it_is_looked_at(done: RunDir, command: Command) -> None:
    after = f"python -m launcher evaluate {done}; python -m launcher export {done}"
    why = command("why", str(done)).out.splitlines()
    assert f"next       {after}" in why
    assert "because    summary.json: test_loss 2.02884, test_accuracy 0.5" in why
    assert f"next       {after}" in command("status", str(done)).out.splitlines()
    rows = dict(line.split(maxsplit=1) for line in closing(done, done.read_summary() or {}).splitlines())
    assert rows["next"] == after


def test_of_a_script_of_the_user_s_own_nobody_is_sent_to_what_cannot_be(done: RunDir, command: Command) -> None:
    done.plan.write_text(dataclasses.replace(done.read_plan(), program=SCRIPTED).to_json())
    assert "next       nothing" in command("why", str(done)).out.splitlines()
    assert "next" not in command("status", str(done)).out + closing(done, done.read_summary() or {})
    for verb in ("evaluate", "export"):
        refused(command(verb, str(done)), 3, "ran a script of your own", "name a run of the trainer")


@pytest.mark.parametrize("verb", ["status", "why", "logs", "resume", "cancel", "evaluate", "export", "plot"])
def test_a_name_that_is_nearly_a_run_s_is_named_by_every_verb(verb: str, tmp_path: Path, command: Command) -> None:
    for name, number in (("cifar-standin", "a"), ("digits", "b")):
        place = tmp_path / "runs" / name / number
        plan = dataclasses.replace(Made(tmp_path / name, batch=False).run.read_plan(), run_dir=str(place))
        place.mkdir(parents=True)
        (place / "plan.json").write_text(plan.to_json())
    refused(command(verb, "cifar"), 2, "cifar: no such run; did you mean cifar-standin?")
    refused(command(verb, "digits2"), 2, "digits2: no such run; did you mean digits?")
    answer = command(verb, "nothing-like-it")
    refused(answer, 2, "nothing-like-it: no such run; `python -m launcher status` lists them")

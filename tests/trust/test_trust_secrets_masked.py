"""What leaves a process holds no secret: of texts, of streams, of what others than Python write, and of TensorBoard's table."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO, cast

import pytest
from helpers import Command, records

from launcher.compose.compose import compose
from launcher.compose.freeze import Frozen, freeze
from launcher.node import blame
from launcher.rundir import rundir
from launcher.rundir.rundir import RunDir
from launcher.rundir.sweep import Entry, Sweep
from launcher.train.record.told import told
from launcher.trust import secret
from launcher.trust.secret import Cut, Mask, looks_public, looks_secret
from launcher.trust.sieve import Masked

SECRETS = (
    "correct-horse",
    'it\'s "a" \\ b/c%d {x} $y `z` <&> é😀',
    "dsn://u:p@h:5432/db?a=b&c=d",
    "0123456789",
    "line one of a key\nline two of the key\n",
    " padded with blanks ",
)
SPELLED: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "repr": repr,
    "ascii": ascii,
    "repr of repr": lambda text: repr(repr({"a": text})),
    "json": json.dumps,
    "json of json": lambda text: json.dumps(json.dumps({"a": text}, ensure_ascii=False)),
    "bytes": lambda text: repr(text.encode()),
    "url": lambda text: urllib.parse.quote(text, safe=""),
    "path of a url": urllib.parse.quote,
    "form": urllib.parse.quote_plus,
    "small letters": lambda text: re.sub("%..", lambda code: code[0].lower(), urllib.parse.quote(text)),
    "url of repr": lambda text: urllib.parse.quote(repr([text])),
    "html": html.escape,
    "shell": shlex.quote,
    "hex": lambda text: text.encode().hex(),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 of user:secret": lambda text: base64.b64encode(f"user:{text}".encode()).decode(),
    "base64 of x:secret": lambda text: base64.b64encode(f"x:{text}@".encode()).decode(),
    "base64 for urls": lambda text: base64.urlsafe_b64encode(f"us:{text}".encode()).decode(),
}


@pytest.mark.parametrize("text", SECRETS)
@pytest.mark.parametrize("spell", SPELLED.values(), ids=SPELLED)
def test_a_secret_is_cut_out_in_every_spelling(spell: Callable[[str], str], text: str) -> None:
    mask = Mask({"MY_TOKEN": text})
    said = mask(f"before {spell(text)} after")
    assert said.startswith("before ")
    assert said.endswith(" after")
    assert "***" in said
    middle = base64.b64encode(text.encode()).decode()[4:12]
    for left in (*(line.strip() for line in text.splitlines()), text.encode().hex()[4:20], middle):
        assert left not in said


@pytest.mark.parametrize("name", ["A_TOKEN", "HF_TOKEN", "WANDB_API_KEY", "SECRET", "db_password", "PGPASSWD", "X_CREDENTIALS", "SLURM_JWT",
                                  "AWS_SECRET_ACCESS_KEY", "TOKEN2", "SENTRY_DSN", "GH_PAT", "CLIENT_SECRET_V2", "PW"])  # fmt: skip
def test_a_name_says_secret(name: str) -> None:
    assert looks_secret(name)
    assert not looks_public(name)
    assert Mask({name: "abcdef"})("x abcdef") == "x ***"


@pytest.mark.parametrize(
    "name", ["HOME", "USER", "PWD", "DATA_DIR", "SCRATCH", "MY_ACCOUNT", "SLURM_JOB_ID", "TOKEN_DIR", "CUDA_VISIBLE_DEVICES"]
)
def test_a_place_and_an_account_are_none(name: str) -> None:
    mask = Mask({name: "abcdef"})
    mask.ask(name)
    assert mask("x abcdef") == "x abcdef"


@pytest.mark.parametrize(("value", "hidden", "where_its_name_says_so"), [
    ("abcde", False, False), ("abcdef", True, True), ("123456", False, True), ("1e-400", False, True), ("false", False, False),
    ("/tmp/not/there", False, True), ("/no-such-place/x", True, True), ("   x   ", False, False),
])  # fmt: skip
def test_what_is_too_short_or_a_number_or_a_path_is_only_hidden_where_its_name_says_so(
    value: str, hidden: bool, where_its_name_says_so: bool
) -> None:
    """Six characters: a shorter text is part of other words."""
    mask = Mask({"VALUE": value, "OTHER": "x"})
    assert mask(value) == value
    mask.ask("VALUE")
    assert (mask(f"<{value}>") != f"<{value}>") is hidden
    assert (Mask({"A_TOKEN": value})(f"<{value}>") != f"<{value}>") is where_its_name_says_so


def test_a_value_that_the_path_of_the_run_holds_is_told() -> None:
    mask = Mask({"A_TOKEN": "somebody"})
    mask.show("/home/somebody/runs/a/b")
    assert mask("see /home/somebody/runs/a/b") == "see /home/somebody/runs/a/b"


def test_what_a_text_asks_for_is_found_in_it() -> None:
    mask = Mask({"WHICH": "OTHER_ONE", "OTHER_ONE": "value-of-it", "A": "first-value", "B": "second-value", "C": "unasked"})
    mask.asked_in("x: ${oc.env:A} y: '${ oc.env : B , none}' z: ${oc.decode:${oc.env:${oc.env:WHICH}}}")
    assert mask.asked == ["A", "B", "OTHER_ONE", "WHICH"]
    assert mask("first-value second-value value-of-it unasked") == "*** *** *** unasked"


def test_a_secret_that_comes_in_pieces_is_cut_out() -> None:
    text = "before correct-horse after, correct-hors, correct"
    for size in range(1, len(text)):
        cut = Cut(Mask({"A_TOKEN": "correct-horse"}))
        pieces = [cut(text[at : at + size]) for at in range(0, len(text), size)]
        assert "".join([*pieces, cut("", last=True)]) == "before *** after, correct-hors, correct"


def test_a_line_is_not_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.trust.sieve.mask", Mask({"A_TOKEN": "correct-horse"}))
    out = io.StringIO()
    stream = Masked(out)
    print("x corr", file=cast("TextIO", stream))
    assert out.getvalue() == "x corr\n"
    print("x corr", end="", file=cast("TextIO", stream))
    assert out.getvalue() == "x corr\nx "
    stream.flush()
    assert out.getvalue() == "x corr\nx corr"


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("A_TOKEN", "correct-horse")
    secret.mask.begin()
    return "correct-horse"


def test_the_ledger_the_report_of_an_error_and_of_a_sweep_hold_none(token: str, tmp_path: Path) -> None:
    run = rundir.create(tmp_path / "toy" / "a")
    run.attempt(0).mkdir(parents=True)
    run.log_event("x", why=f"<{token}>", words=[token, {token: 1}], number=3)
    blame.leave(run, 0, 0, "failed", rank=0, message=f"no {token}", traceback=f"a\n  {token}\n", exit_code=1)
    sweep = Sweep(tmp_path / "sweep")
    sweep.path.mkdir()
    sweep.write([Entry(0, (f"data.x={token}", "seed=1"), run)], "val_loss")
    (event,) = records(run.events)
    assert (event["why"], event["words"], event["number"]) == ("<***>", ["***", {"***": 1}], 3)
    for path in (run.events, run.error(0), sweep.ledger):
        assert token not in path.read_text()
        assert "***" in path.read_text()


def test_the_words_of_a_plan_hold_none(command: Command, token: str) -> None:
    """Where a shell put the value into what was typed."""
    found: list[Frozen] = []
    compose(["+exp=cifar", f"data.root=/x/{token}"], lambda config, overrides: found.append(freeze(config, overrides)))
    assert "data.root=/x/***" in found[0].plan.overrides


def test_tensorboard_is_told_none(token: str, tmp_path: Path) -> None:
    from launcher.train.record.board import Board

    board = Board(tmp_path / "tb", 0)
    board.text("command", f"x={token}")
    board.hparams({"data.x": token, "data.inside": f"<{token}>", "data.list": [token]}, {"val_loss": 1.0}, 1)
    board.close()
    written = b"".join(path.read_bytes() for path in (tmp_path / "tb").iterdir())
    assert (b"data.inside" in written, token.encode() in written) == (True, False)


def test_a_command_says_none(command: Command, token: str) -> None:
    for words in ((token,), ("status", token), ("render", f"data.root={token}"), ("run", f"name=a {token}"), ("why", f"/x/{token}")):
        answer = command(*words)
        assert token not in answer.out + answer.err


def test_an_error_that_is_shown_whole_holds_none(launch: Callable[..., Any], token: str) -> None:
    done = launch("render", "+exp=cifar", "seed=${oc.env:ANY}", env={"ANY": "canary-value", "LAUNCHER_DEBUG": "1"})
    assert "Traceback" in done.stderr
    assert "canary-value" not in done.stdout + done.stderr


def test_data_that_is_prepared_says_none(environment: dict[str, str]) -> None:
    path = [*environment["PYTHONPATH"].split(os.pathsep), *sys.path]
    given = json.dumps(
        {"data": {"_target_": "toyproject.leaky.Leaky", "x": "asked-value"}, "asked": ["ASKED"], "directory": "/", "path": path}
    )
    env = {**environment, "ASKED": "asked-value"}
    done = subprocess.run(
        [sys.executable, "-m", "launcher.train.prepare"], input=given, env=env, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ('{"pinned": {}, "holds": {"num_classes": 4}}\n', "{'x': '***'}\n")


WORKER = """\
import os, sys, subprocess
from launcher.node.place import Place
from launcher.rundir.rundir import RunDir
from launcher.train import worker
worker._redirect(RunDir(sys.argv[1]), Place.from_environment())
print("python", os.environ["NAMED"])
print("python", os.environ["A_TOKEN"], file=sys.stderr)
os.write(2, b"descriptor " + os.environ["NAMED"].encode() + b" \\xff\\n")
subprocess.run(["/bin/sh", "-c", 'echo "child $NAMED"'], check=True)
os.write(1, b"last words " + os.environ["A_TOKEN"].encode())
{end}
"""


@pytest.mark.parametrize(("end", "status"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", -9), ("os.killpg(0, 9)", -9)])
def test_a_log_holds_none_whoever_writes_and_however_it_ends(
    tmp_path: Path, environment: dict[str, str], no_process_left: None, end: str, status: int
) -> None:
    run = RunDir(tmp_path / "run")
    run.attempt(0).mkdir(parents=True)
    run.config.write_text("data: {x: '${oc.env:NAMED}'}\n")
    world = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_WORLD_SIZE": "1",
        "LAUNCHER_ATTEMPT": "000",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    env = {**environment, **world, "NAMED": "value-of-it", "A_TOKEN": "correct-horse"}
    argv = [sys.executable, "-c", WORKER.format(end=end), str(run)]
    done = subprocess.run(argv, env=env, check=False, timeout=60, start_new_session=True, capture_output=True)
    assert done.returncode == status, done.stderr
    log = run.rank_log(0, 0)
    deadline = time.monotonic() + 5
    while b"last words ***" not in log.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.02)
    text = log.read_bytes()
    assert sorted(text.split(b"\n"))[-5:] == [b"child ***", b"descriptor *** \xff", b"last words ***", b"python ***", b"python ***"]


def test_the_table_of_settings_begins_with_what_was_typed_and_names_no_place() -> None:
    slurm = {"_target_": "launcher.clusters.slurm.Slurm", "nodes": 2, "env": {"A": "${oc.env:X}"}}
    groups = {"model": {"_target_": "models.x", "widths": [1, 2]}, "data": {"root": "${oc.env:X}", "cache": None}, "optim": {"lr": 0.1}}
    config = {"name": "a", "seed": 1, **groups, "train": {"batch_size": 8, "log_every": 1}, "trust": ["x"], "cluster": slurm}
    words = ["+exp=a", "train.batch_size=8", "cluster.nodes=2", "model=x", "+cluster.env.A=b", "~data.pad", "train.log_every=1"]
    table = told(config, words)
    first = ["train.batch_size", "cluster.nodes", "model._target_", "model.widths[0]", "model.widths[1]", "train.log_every"]
    assert list(table)[: len(first)] == first
    assert {"optim.lr", "data.root", "seed"} <= table.keys()
    assert table.keys().isdisjoint({"cluster._target_", "cluster.env.A", "name", "trust[0]", "data.cache"})
    assert table["data.root"] == "${oc.env:X}"

"""What others wrote reaches no terminal as a command: events, summaries, logs, SLURM's replies, overrides, names of files, errors."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import TOY, Answer, environment_in
from made_runs import Made

from launcher.clusters.screen import Screen, tell
from launcher.trust import terminal

Command = Callable[..., Answer]

COMMANDS = {
    "a colour": "\x1b[31m",
    "the window's name": "\x1b]0;owned\x07",
    "the clipboard": "\x1b]52;c;cm0gLXJmIH4=\x07",
    "a link": "\x1b]8;;http://x/\x1b\\here\x1b]8;;\x1b\\",
    "a clear screen": "\x1b[2J\x1b[H",
    "a report that is typed for the user": "\x1b[6n\x1b]10;?\x07",
    "the other set of controls": "\x9b31m\x9d0;owned\x9c",
    "back to the begin of the line": "all is well\rFAILED",
    "backspaces": "fine\b\b\b\b",
    "a bell": "\x07",
    "another keyboard": "\x1b[?1049h\x1b=\x0e",
    "a device": "\x1bP+q544e\x1b\\",
    "from right to left": "\u202etxt.exe",
    "isolated": "\u2066hidden\u2069",
    "nothing to see": "a\u200bb\ufeffc\u00add",
    "tags": "\U000e0041\U000e0042",
    "another line": "\x0b\x0c\x1c\x85\u2028\u2029",
    "half a character": "\udcff\ud800",
    "a zero": "\0",
    "deleted": "\x7f",
}


def harmless(text: str) -> bool:
    return not any(terminal.plain(line) != line or not line.isprintable() for line in text.replace("\t", " ").split("\n"))


@pytest.fixture(params=COMMANDS, ids=lambda name: name.replace(" ", "-"))
def evil(request: pytest.FixtureRequest) -> str:
    return COMMANDS[request.param]


@pytest.fixture
def planted(tmp_path: Path, evil: str, monkeypatch: pytest.MonkeyPatch, command: Command) -> Made:
    """A run of which every file says it, and a scheduler that does."""
    made = Made(tmp_path)
    clean = evil.encode("utf-8", "surrogateescape" if "\udcff" in evil and "\ud800" not in evil else "replace")
    place = made.attempt(ended="failed")
    made.event("queued", job="12", cluster=evil)
    made.event(evil, **{evil: evil, "why": [evil]})
    made.event("prelude", reason=evil, attempt=0)
    made.run.summary.write_text(json.dumps({"state": "failed", "error": evil, f"test_{evil}": 1, "stopped_by": evil}))
    made.report(0, f"ValueError: {evil}", host=evil)
    (place / "rank_0.log").write_bytes(b"step 1/2\n" + clean + b"\nlast " + clean + b"\n")
    (place / "rank_1.log").write_bytes(clean + b"\n")
    (place / "job").write_bytes(clean)
    made.run.log.write_bytes(b"2026-11-21T12:09:40 launcher: attempt 000 failed: " + clean + b"\n")
    programs = tmp_path / "bin"
    programs.mkdir()
    (tmp_path / "reply").write_bytes(b"12|12|FAILED|" + clean + b"|node" + clean + b"|N/A|now|0:42|toy.made|" + clean + b"\n")
    for name in ("squeue", "sacct", "scancel", "scontrol"):
        (programs / name).write_text(f"#!/bin/sh\ncat {tmp_path / 'reply'}\ncat {tmp_path / 'reply'} >&2\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return made


def test_no_verb_passes_it_on(planted: Made, command: Command) -> None:
    for verb in ("status", "why", "logs", "resume", "cancel"):
        answer = command(verb, str(planted.path))
        assert "Traceback" not in answer.err
        assert harmless(answer.out), (verb, answer.out)
        assert harmless(answer.err), (verb, answer.err)
    assert harmless(command("status").out)


def test_neither_does_what_refuses_a_word(evil: str, command: Command) -> None:
    if "\0" in evil:
        return  # no word has one
    for words in (["plan", *TOY, f"+{evil}=1"], ["plan", *TOY, f"name={evil}"], [evil], ["status", evil], ["logs", evil, "--rank", evil]):
        answer = command(*words)
        assert answer.code, words
        assert harmless(answer.out + answer.err), (words, answer)


def test_neither_does_an_attached_run(evil: str, capfd: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen.line(f"rank 0 says {evil}")
    screen.close()
    tell(f"launcher: {evil}")
    out, err = capfd.readouterr()
    assert "rank 0 says" in out
    assert harmless(out + err)


def test_the_name_of_a_directory_neither(tmp_path: Path, evil: str, command: Command) -> None:
    if {"\0", "\ud800"} & {*evil} or "/" in evil:
        return  # no name has one
    made = Made(tmp_path)
    made.path.parent.rename(tmp_path / "runs" / f"{evil}\nname")
    answer = command("status")
    assert answer.out.count("\n") == 2  # the head of the table and one row
    assert harmless(answer.out + answer.err)


def through_a_terminal(home: Path, cache: Path, *words: str) -> str:
    """What a terminal is sent."""
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "launcher", *words]
    with subprocess.Popen(argv, cwd=home, env=environment_in(home, cache), stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        sent = b"".join(_read(ours))
        process.wait(60)
    os.close(ours)
    return sent.decode("utf-8", "surrogateescape").replace("\r\n", "\n")


def _read(descriptor: int) -> Iterator[bytes]:
    while True:
        try:
            piece = os.read(descriptor, 65536)
        except OSError:  # the other end is closed
            return
        if not piece:
            return
        yield piece


def test_a_terminal_is_sent_text_alone_and_a_pipe_the_script_as_it_is(tmp_path: Path, cache: Path) -> None:
    made = Made(tmp_path, batch=False)
    (made.attempt() / "rank_0.log").write_text(
        "".join(f"{each}\n" for each in COMMANDS.values() if each.isprintable() or "\ud800" not in each)
    )
    assert harmless(through_a_terminal(tmp_path, cache, "logs", str(made.path)))
    words = ("render", *TOY, "cluster=slurm", "cluster.nodes=1", "cluster.device=cpu", "+cluster.env.WORD='a\u202eb'")
    assert "a\\u202eb" in through_a_terminal(tmp_path, cache, *words)
    argv = [sys.executable, "-m", "launcher", *words]
    piped = subprocess.run(argv, cwd=tmp_path, env=environment_in(tmp_path, cache), capture_output=True, text=True, check=False)
    assert "a\u202eb" in piped.stdout, piped.stderr


def test_a_refusal_of_marks_is_a_line_of_its_length_as_it_is_shown(command: Command) -> None:
    answer = command("plan", "name='" + "\u202e" * 800 + "'")
    assert (answer.code, "type" in answer.err or "for example" in answer.err) == (2, True), answer
    assert max(map(len, answer.err.splitlines())) <= 1_100


@pytest.mark.filterwarnings("default")
def test_what_a_library_warns_of_is_one_line(command: Command) -> None:
    answer = command("plan", "name=${oc.deprecated:seed}")
    warned, refused = answer.err.splitlines()
    assert warned.startswith("launcher: warning: 'name' is deprecated")
    assert refused.startswith("launcher: name=0 ")


def test_text_stays_text() -> None:
    for text in ("Grüße, 世界", "نام\u200cها", "👩\u200d👩\u200d👧", "tab\there", "two\nlines", "℃ ½ ~"):
        assert terminal.plain(text) == text
    assert terminal.plain("\x1b[31m\u202e\udcff") == r"\x1b[31m\u202e\udcff"

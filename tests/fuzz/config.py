"""A text in a field of the config, through plan, render and run; what is rendered is run by bash, what is run is resumed."""

from __future__ import annotations

import os
import random
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml
from fake_slurm import FakeSlurm

from fuzz import warm
from fuzz.fields import LOCAL, SLURM, Field
from fuzz.sandbox import Answer, Sandbox
from fuzz.tally import Tally
from launcher.config import references

RAW = 1
"""Fields for each text, by chance, in which it is typed without quotes, and written into a yaml."""
REFUSED = 6
GROUPS = 6
"""How often the fields that take a text are put together in one command, at most: some do not go together."""
RESERVED = ("runs_dir", "name", "id", "runs_mode")
"""Where a run goes: looked at in commands of their own."""
_STUBS = """
export SLURM_JOB_ID=7 SLURM_JOB_NUM_NODES=1 SLURM_JOB_NODELIST=node1
hostname() { echo 10.0.0.1; }
ip() { echo "2: eth0 inet 10.0.0.1/8"; }
scontrol() { case "$1" in show) echo "JobState=RUNNING" ;; esac; }
srun() { case "$*" in *launcher.node*) env -0 >"$run/seen"; printf 'done\\n' >"$run/attempts/$LAUNCHER_ATTEMPT/outcome" ;; esac; }
"""


def quoted(text: str) -> str:
    """As a value on the command line, so that Hydra and OmegaConf hand it over as it is."""
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + (found[2] and "\\'"), references.escaped(text))
    return f"'{escaped}'"


def word(field: Field, text: str) -> str:
    value = quoted(text)
    if field.is_key:
        return f"+{field.key}{'.' * bool(field.key)}{text}=x"
    return f"{field.key}={f'[{value}]' if field.listed else value}"


def words(*fields: Field, text: str) -> list[str]:
    """A command that has the text in all of them."""
    typed = {field.key for field in fields}
    before = dict.fromkeys(each for field in fields for each in field.before if each.partition("=")[0] not in typed)
    return [*before, *(word(field, text) for field in fields)]


class Config:
    """One text through the verbs that read a config."""

    def __init__(self, sandbox: Sandbox, fake: FakeSlurm, text: str, tally: Tally, chance: random.Random) -> None:
        self.sandbox, self.fake, self.tally, self.chance = sandbox, fake, tally, chance
        self.text = sandbox.text(text)
        self.runs = sandbox.home / "runs"

    def all(self, fields: list[Field]) -> None:
        taken = [field for field in fields if self.alone(field)]
        self.together([field for field in taken if field.key not in RESERVED and field.before[:4] == SLURM])
        self.place()
        self.attached([field for field in taken if field.before[:4] == LOCAL])
        few = self.chance.sample(fields, min(RAW, len(fields)))
        for field in few:
            self.bare(field)
        self.files(few)

    def call(self, verb: str, where: object, *typed: str) -> Answer:
        writes = (self.runs,) if verb in ("run", "resume") else ()
        return self.tally.note(verb, self.text, where, self.sandbox.call(verb, *typed, writes=writes))

    def alone(self, field: Field) -> bool:
        """Whether the field takes it; where it does not, run or render says the same, of one in REFUSED."""
        typed = words(field, text=self.text)
        with warm.hydra():
            planned = self.call("plan", field, *typed)
            self.tally.cases["pairs refused" if planned.code else "pairs taken"] += 1
            if planned.code and self.chance.randrange(REFUSED):
                return False
            other = self.call(self.chance.choice(("run", "render")) if planned.code else "render", field, *typed)
            if (other.code, _timeless(other.err)) != (planned.code, _timeless(planned.err)):
                self.tally.fault(other.words[0], self.text, field, f"not what plan says: {other.code} {other.err[:200]!r}")
        return not planned.code

    def together(self, fields: list[Field], most: int = GROUPS) -> int:
        """Run all that go together, in halves where they do not. Returns how many commands are left to try."""
        if not fields or not most:
            return most
        typed = words(*fields, text=self.text)
        with warm.hydra():
            apart = len(fields) > 1 and self.call("plan", "together", *typed).code
        if apart:
            half = len(fields) // 2
            return self.together(fields[half:], self.together(fields[:half], most))
        before = len(self.tally.found)
        self.whole(" ".join(map(str, fields)), typed)
        if len(self.tally.found) > before and len(fields) > 1:  # which of them it is
            for field in fields:
                self.whole(str(field), words(field, text=self.text))
        return most - 1

    def whole(self, where: str, typed: list[str]) -> None:
        """Submit, run the script, resume, look at it."""
        if self.text and len(self.text) < 200 and not {"/", "\0"} & {*self.text} and self.text.isprintable():
            (self.sandbox.home / self.text).touch()  # for a prelude of this name
        with warm.hydra():
            answer = self.call("run", where, *typed, "cluster.shared_filesystem=true", "name=fuzzed", "id=a")
        here = self.runs / "fuzzed" / "a"
        if not answer.code and here.is_dir():
            self.bash(where, here)
            self.call("resume", where, str(here))
            (self.fake.home / "queue").write_text("")
            self.call("resume", where, "fuzzed")
            self.call("status", where, str(here))
            self.call("status", where)
            for fault in self.sandbox.secrets_in(self.runs, self.sandbox.state):
                self.tally.fault("run", self.text, where, fault)
        self.sandbox.clean()
        (self.fake.home / "queue").write_text("")

    def bash(self, where: str, here: Path) -> None:
        """The job script with a scheduler that does nothing: what bash makes of the words."""
        first, rest = (here / "job.sh").read_text().split("\n", 1)
        before = self.sandbox.listed()
        done = subprocess.run(
            ["bash", "-p", "-c", f"{first}\n{_STUBS}\n{rest}"],
            env={**os.environ, "PATH": os.environ["FUZZ_PATH"]},
            capture_output=True,
            check=False,
            timeout=60,
        )
        self.tally.cases["bash"] += 1
        new = [path for path in self.sandbox.listed() ^ before if not path.startswith(f"{here}/")]
        for path in new:
            self.tally.fault("bash", self.text, where, f"outside: {path!r}")
        seen = here / "seen"
        found = dict(line.partition(b"=")[::2] for line in seen.read_bytes().split(b"\0")) if seen.exists() else {}
        wanted = self.text.encode("utf-8", "surrogateescape" if _encodes(self.text) else "surrogatepass")
        if "cluster.env.FUZZED" in where and found.get(b"FUZZED") != wanted:
            self.tally.fault("bash", self.text, where, f"FUZZED is {found.get(b'FUZZED')!r}: {done.stderr[-300:]!r}")
        if seen.exists():
            seen.unlink()

    def place(self) -> None:
        """The text as part of where runs go, and as the directory where the command is typed."""
        below = f"runs_dir={quoted(f'{self.runs}/{self.text}/x')}"
        if ".." not in self.text:
            way, before = self.chance.choice(((self.whole, SLURM), (self.local, LOCAL)))
            way("runs_dir", [*before, below])
        name = self.text.replace("/", "_")
        if "\0" in name or name in ("", ".", "..") or len(os.fsencode(name) if _encodes(name) else "x" * 999) > 200:
            return
        here = self.sandbox.home / "typed" / name
        here.mkdir(parents=True)
        os.chdir(here)
        with warm.hydra():
            self.call("plan", "working directory", *SLURM)
            self.call("run", "working directory", *SLURM, "cluster.shared_filesystem=true", f"runs_dir={self.runs}", "name=fuzzed", "id=a")
        if (self.runs / "fuzzed" / "a" / "job.sh").exists():
            self.bash("working directory", self.runs / "fuzzed" / "a")
        self.local("working directory", [*LOCAL, f"runs_dir={self.runs}"])
        os.chdir(self.sandbox.home)
        self.sandbox.clean()

    def attached(self, fields: list[Field]) -> None:
        if fields:
            self.local("local", words(*fields, text=self.text))

    def local(self, where: str, typed: list[str]) -> None:
        """A run on this machine, of which torchrun is a program that does nothing: it ends with an error of the launcher's."""
        with warm.hydra():
            self.call("run", f"{where} (local)", *typed, "name=fuzzed", "id=b")
        self.call("status", f"{where} (local)")
        self.sandbox.clean()

    def bare(self, field: Field) -> None:
        """Without quotes, as a word of its own, and as the name of a verb or a run."""
        self.call("plan", f"{field} unquoted", *field.before, f"{field.key}={self.text}")
        self.call("render", "a word", *SLURM, self.text)
        self.call("plan", "--config-dir", *SLURM, f"--config-dir={self.text}")
        for verb in ("status", "resume"):
            self.call(verb, "a word", self.text)
        self.call("resume", "a word behind a run", "fuzzed", self.text)
        self.call("run", "a word", *SLURM, "name=fuzzed", "id=a", self.text)
        self.sandbox.clean()

    def files(self, fields: list[Field]) -> None:
        """An experiment in a yaml: composed anew each time."""
        place = self.sandbox.home / "mine" / "exp"
        place.mkdir(parents=True)
        for field in fields:
            values: Any = "x" if field.is_key else [self.text] if field.listed else self.text
            path = [*filter(None, field.key.lstrip("+").split(".")), *([self.text] if field.is_key else [])]
            for part in reversed(path):
                values = {part: values}
            self._file(f"{field} in a yaml", place, yaml.safe_dump(values), field)
        if self.chance.randrange(2):
            whole = ("a whole yaml", self.text), ("bare in a yaml", f"name: {self.text}\n")
            where, written = self.chance.choice(whole)
            self._file(where, place, written, fields[0])
        self.sandbox.clean()

    def _file(self, where: str, place: Path, text: str, field: Field) -> None:
        (place / "x.yaml").write_bytes(b"# @package _global_\n" + text.encode("utf-8", "surrogatepass"))
        verb = self.chance.choice(("plan", "render", *(["run"] if "runs_dir" not in text else [])))
        self.call(verb, where, "--config-dir", "mine", *field.before, "+exp=x", "cluster.shared_filesystem=true")


def _timeless(line: str) -> str:
    """An id is the time."""
    return re.sub(r"[0-9]{8}-[0-9]{6}-[0-9]{3}", "ID", line)


def _encodes(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True

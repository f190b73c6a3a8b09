"""Quoting in one place: whatever a string holds, bash hands it over as the one word it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from launcher.shell import Raw, block, command, export, word

HOSTILE = (
    "",
    " ",
    "a b",
    "a'b",
    'a"b',
    "a\\b",
    "a\\",
    "$HOME",
    "${HOME}",
    "$(touch x)",
    "`touch x`",
    "a;touch x",
    "a&&touch x",
    "a|cat",
    ">x",
    "<x",
    "*",
    "?",
    "[a-z]",
    "{a,b}",
    "~",
    "~root",
    "!x",
    "#x",
    "-n",
    "--",
    "-rf",
    "=x",
    "a=b",
    "%x",
    "é",
    "日本語",
    "\t",
    "\x01",
    "\x7f",
    "a\u2028b",
    "'; touch x; '",
    '"$(touch x)"',
)
DUMP = "import json, sys; print(json.dumps(sys.argv[1:]))"


def _bash(script: str) -> str:
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, timeout=30)
    return done.stdout


def test_bash_hands_over_every_hostile_word_as_it_was() -> None:
    script = command([sys.executable, "-c", DUMP, *HOSTILE])
    assert json.loads(_bash(script)) == list(HOSTILE)


def test_a_block_is_the_same_command_over_several_lines() -> None:
    script = block([sys.executable, "-c", DUMP, *HOSTILE])
    assert script.count("\n") == len(HOSTILE) + 2
    assert json.loads(_bash(script)) == list(HOSTILE)


def test_an_exported_value_arrives_as_it_was() -> None:
    names = [f"V{number}" for number in range(len(HOSTILE))]
    dump = f"import json, os; print(json.dumps([os.environ[name] for name in {names}]))"
    script = "\n".join([*map(export, names, HOSTILE), command([sys.executable, "-c", dump])])
    assert json.loads(_bash(script)) == list(HOSTILE)


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\0b", "\n", "#SBATCH\n#SBATCH --uid=0"])
def test_a_line_break_or_a_nul_is_no_word(text: str) -> None:
    with pytest.raises(ValueError, match="line break or a NUL"):
        word(text)
    with pytest.raises(ValueError, match="line break or a NUL"):
        export("NAME", text)


def test_a_path_that_is_no_utf8_is_no_word() -> None:
    with pytest.raises(ValueError, match="no text in UTF-8"):
        word(os.fsdecode(b"/data/\xff"))


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "A=B", "A;touch x", "A\n", "é", "$A"])
def test_a_variable_has_a_plain_name(name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        export(name, "x")


def test_only_a_raw_word_is_expanded_and_what_is_made_of_it_is_none() -> None:
    assert word(Raw('"$run"')) == '"$run"'
    assert word(Raw("$run") + "x") == "'$runx'"  # concatenation makes a plain string, and that is quoted again
    assert command(["echo", Raw("$((1 + 1))"), "$((1 + 1))", 3, None]) == "echo $((1 + 1)) '$((1 + 1))' 3 None"

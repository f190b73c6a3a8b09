"""How verbs read what was typed, and how they refuse it. Which verb takes what is tested with the verb."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from launcher.errors import ConfigError
from launcher.verbs.words import CHECKPOINT, Words, number, one_of, several, text, whole, yes_no

WORDS = Words(
    "ask",
    "MODEL INPUT…",
    {
        "to": text("FILE"),
        "many": whole(3, 0, 9),
        "share": number(0.5, 0, 1, ("classes", "boxes")),
        "loud": yes_no(False),
        "names": several("a,b"),
        "part": one_of("one", "two", default="one"),
        "checkpoint": CHECKPOINT,
    },
    takes="a model and inputs",
    flags={"--strict": ("numbers",), "--all": ()},
    least=2,
    most=3,
)
NO_DIGIT = ("10", "-1", "1.0", "²", "1_0", " 1", "9" * 30)
NO_SHARE = ("1.1", "-0.1", "nan", "inf", ".", "1_0", "x")


def test_what_was_not_typed_has_its_default_and_words_keep_their_order() -> None:
    found = WORDS.read(["m", "loud=true", "a b", "share=1e-1", "--all", "names=x,y", "checkpoint=120"])
    assert found.names == ["m", "a b"]
    assert found.values == {
        "to": "", "many": 3, "share": 0.1, "loud": True, "names": ("x", "y"), "part": "one", "checkpoint": "120",
    }  # fmt: skip
    assert [*found.typed] == ["loud", "share", "names", "checkpoint", "--all"]


@pytest.mark.parametrize("word", ["-", "-- Hamlet", "-5 degrees", "f(a=1)", "./to=x", "a/b=c"])
def test_what_is_no_option_is_a_name(word: str) -> None:
    assert WORDS.read(["m", word]).names == ["m", word]


def test_a_file_may_be_called_as_an_option_or_a_flag_would_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("size=3.png", "--loud"):
        Path(name).touch()
        assert WORDS.read(["m", name]).names == ["m", name]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["m"], f"ask takes a model and inputs: {WORDS.usage}"),
        (["m", "a", "b", "c"], f"ask takes a model and inputs: {WORDS.usage}"),
        (["m", "a", "mayn=3"], "ask mayn=: there is no such option; did you mean many=?"),
        (["m", "a", "xyzzy=3"], "ask xyzzy=: there is no such option; it takes checkpoint=, loud=, many=, names=, part=, share=, to="),
        (["m", "a", "--strcit"], f"ask --strcit: there is no such flag; did you mean --strict?; type {WORDS.usage}"),
        (["m", "a", "--all=1"], f"ask --all=1: there is no such flag; did you mean --all?; type {WORDS.usage}"),
        (["m", "a", "many=1", "many=1"], "many=1: many=1 is there already; type many= once"),
        (["m", "a", "to="], "to=: there is nothing after it; type to=FILE, or leave it out"),
        *[(["m", "a", f"many={each}"], f"many={each}: type a whole number from 0 to 9") for each in NO_DIGIT],
        *[(["m", "a", f"share={each}"], f"share={each}: type a number from 0 to 1") for each in NO_SHARE],
        (["m", "a", "loud=yes"], "loud=yes: type true or false"),
        (["m", "a", "names=a,,b"], "names=a,,b: type names with a comma between them, as in a,b"),
        (["m", "a", "part=three"], "part=three: type one of one, two"),
        (["m", "a", "checkpoint=last"], "checkpoint=last: type newest, best, or the number of a step"),
    ],
)  # fmt: skip
def test_a_slip_is_one_line_that_says_what_to_type(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        WORDS.read(words)
    assert str(error.value) == said


def test_a_verb_whose_other_words_are_a_configs_gets_them_as_they_were() -> None:
    found, others = WORDS.picked(["+exp=a", "many=2", "--config-dir", "x", "share=0", "optim.lr=1"])
    assert others == ["+exp=a", "--config-dir", "x", "optim.lr=1"]
    assert (found.values["many"], found.values["share"]) == (2, 0.0)


@pytest.mark.parametrize(
    ("words", "predicts", "said"),
    [
        (
            ["share=0.5"],
            "tokens",
            "share=0.5: that is for models that predict classes or boxes, and this one predicts tokens",
        ),
        (["--strict"], "classes", "--strict: that is for models that predict numbers, and this one predicts classes"),
        (["share=0.5"], "boxes", ""),
        (["many=3", "--all"], "tokens", ""),
        ([], "tokens", ""),
    ],
)
def test_what_says_nothing_to_a_model_is_refused_where_it_was_typed(words: list[str], predicts: str, said: str) -> None:
    typed: Any = WORDS.read(["m", "a", *words])
    if not said:
        typed.check_model(predicts)
        return
    with pytest.raises(ConfigError) as error:
        typed.check_model(predicts)
    assert str(error.value) == f"{said}; leave it out"


def test_the_usage_has_every_option_there_is() -> None:
    assert WORDS.usage.split(" [") == [
        "ask MODEL INPUT…", "to=FILE]", "many=3]", "share=0.5]", "loud=true]", "names=a,b]", "part=one|two]",
        "checkpoint=newest|best|STEP]", "--strict]", "--all]",
    ]  # fmt: skip

"""A variable that ends torch is one line before anything is started, with torch's own words."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import Answer, refused

from launcher.errors import ConfigError
from launcher.start import torch_words

slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("TORCH_DISTRIBUTED_DEBUG", "foo", "must be OFF, INFO, or DETAIL"),
        pytest.param("TORCH_LOGS", "bogus", "bogus", marks=slow),
        pytest.param("TORCH_LOGS_FORMAT", "%bad", "Invalid format", marks=slow),
        pytest.param("TORCH_DIST_INIT_BARRIER", "abc", "invalid literal", marks=slow),
        pytest.param("TORCH_COMPILE_DEBUG", "x", "invalid literal", marks=slow),
    ],
)
def test_a_word_that_ends_torch_is_refused_in_its_words(name: str, value: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        torch_words.check({**os.environ, name: value, "TORCH_WARN_ONCE": "1"})
    said = str(caught.value)
    assert said.startswith(f"{name}={value}: torch does not start with it (")
    assert told in said
    assert "\n" not in said


@slow
@pytest.mark.full
def test_a_word_that_has_torch_wait_for_ever_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    torch_words._problem.cache_clear()
    with pytest.raises(ConfigError, match=r"^TORCH_FR_BUFFER_SIZE=abc: torch does not start with it \("):
        torch_words.check({**os.environ, "TORCH_FR_BUFFER_SIZE": "abc"})


@slow
def test_words_that_torch_knows_and_what_job_sh_drops_are_none_of_ours() -> None:
    torch_words.check({**os.environ, "TORCH_DISTRIBUTED_DEBUG": "info", "LOGLEVEL": "debug", "RANK": "3", "TORCH_CPP_LOG_LEVEL": "foo"})


def test_nothing_is_tried_where_none_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_words, "_problem", lambda *_: "tried")
    torch_words.check({"PATH": "/bin", "TORCH_HOME": "/x", "TORCHELASTIC_RUN_ID": "1", "PYTHONWARNINGS": "bogus"})
    with pytest.raises(ConfigError, match="tried"):
        torch_words.check({"TORCHDYNAMO_VERBOSE": "x"})


def test_a_run_is_refused_and_leaves_nothing(
    command: Callable[..., Answer], toy_words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_words, "_problem", lambda *_: "TORCH_LOGS=bogus: torch does not start with it")
    monkeypatch.setenv("TORCH_LOGS", "bogus")
    refused(command(*toy_words), 2, "TORCH_LOGS=bogus")
    assert not list(tmp_path.glob("runs/*/*"))

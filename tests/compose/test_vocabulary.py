"""A token that the model has no row for is found when the data are prepared, and not by an embedding."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import finish

from launcher.compose.check import check_vocabulary
from launcher.errors import ConfigError

SMALL = (
    "+exp=shakespeare",
    "model.vocab_size=128",
    "model.dim=8",
    "model.layers=1",
    "data.length=16",
    "train.steps=1",
    "train.batch_size=1",
)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            {"kinds": 400, "tokenizer": "/a/tokenizer.json"},
            r"model\.vocab_size=128 is less than the 400 kinds of token that the data have \(those of data\.tokenizer=/a/tokenizer\.json "
            r"go up to 399\); type model\.vocab_size=400",
        ),
        (
            {"kinds": 196, "tokenizer": None},
            r"bytes are 0 to 255, and those of this text go up to 195\); type model\.vocab_size=256",
        ),
        ({"kinds": 257}, r"go up to 256\); type model\.vocab_size=257"),
        ({"kinds": 129}, r"type model\.vocab_size=256"),
    ],
)
def test_fewer_rows_than_tokens_is_one_line(data: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        check_vocabulary({"data": data, "model": {"vocab_size": 128}})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("data", "model"),
    [({"kinds": 128}, {"vocab_size": 128}), ({"kinds": None}, {"vocab_size": 128}), ({}, {"vocab_size": 1}), ({"kinds": 500}, {})],
)
def test_enough_rows_and_what_nobody_knows_pass(data: dict[str, object], model: dict[str, object]) -> None:
    check_vocabulary({"data": data, "model": model})


def test_a_text_with_one_byte_too_many_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"plain text, " * 40 + "und ein Ä".encode())
    done = finish(tmp_path, [*SMALL, f"data.path={tmp_path / 'a.txt'}", f"runs_dir={tmp_path / 'runs'}"])
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("those of this text go up to 195); type model.vocab_size=256")
    assert not (tmp_path / "runs" / "shakespeare").exists()

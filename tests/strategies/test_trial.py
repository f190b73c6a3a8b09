"""The trial before a run whose sequences are cut: what a model or a loss is in parts of sequences, seen before the first update."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from processes import said_by

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What tests/strategies/tried.py says, of each of two ranks."""
    home, program = tmp_path_factory.mktemp("tried"), Path(__file__).with_name("tried.py")
    return said_by(home, [[str(program), str(rank), str(home / "meeting")] for rank in range(2)])


@pytest.mark.parametrize("case", ["plain", "half", "torch's", "mean_of_samples", "sum_of_some", "drawn"])
def test_what_is_the_same_in_parts_goes_on_as_if_nothing_had_been_tried(ranks: list[dict[str, Any]], case: str) -> None:
    """Pairs of tables are cut as one is, and torch's own layers evaluate as they train."""
    for found in ranks:
        assert found[case]["refused"] == ""
        assert found[case]["is kept"]
        assert found[case]["far"] < (0.02 if case == "half" else 1e-5)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("convolution", "of a few tokens the model's outputs are in parts others than of the whole"),
        ("mean", "of a few tokens the model's outputs are in parts others than of the whole"),
        ("by hand", "of a few tokens the model's outputs are in parts others than of the whole"),
        ("sum of those before", "of a few tokens the model's outputs are in parts others than of the whole"),
        ("sum_over_samples", "over a weight of 3, and of their 2 parts"),
        ("of_the_next", "for it is not one of each token by itself; type strategy=fsdp"),
        ("mean_of_some", "for it is not one of each token by itself; type strategy=fsdp"),
        ("unnamed", "the model cannot compute on a part of a sequence"),
        ("torch's, masked", "the model cannot compute on a part of a sequence"),
    ],
)
def test_what_would_be_another_in_parts_is_said_before_the_first_update(ranks: list[dict[str, Any]], case: str, said: str) -> None:
    for found in ranks:
        assert said in found[case]["refused"]
        assert found[case]["refused"].startswith("strategy=cp: ")
        assert "\n" not in found[case]["refused"]

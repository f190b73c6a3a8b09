"""Scores that stay cut over the vocabulary under tp: the numbers of one process, and nobody has all scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from processes import finish, lines, losses, said_by
from split_runs import finished, words

NEAR = 1e-5
ALL = 2 * 8 * 131
"""Scores of the batch in tests/strategies/cut_scores.py."""


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_its_losses_are_those_of_one_process(tmp_path: Path) -> None:
    """Of a vocabulary that two cannot share evenly."""
    found: dict[str, tuple[dict[int, float], float]] = {}
    for name, split, more in (("one", "one", ()), ("cut", "tp(2)", ("strategy.loss_parallel=true",))):
        asked = ("train.steps=12", "model.vocab_size=131", "model.soft_cap=5.0", *more)
        run = finished(finish(tmp_path, words(tmp_path, name, split, *asked), timeout=150), tmp_path, name)
        found[name] = losses(run), [line["loss"] for line in lines(run / "metrics.jsonl") if line["split"] == "val"][-1]
    (one, validation), (cut, other) = found["one"], found["cut"]
    difference = max(abs(cut[step] - one[step]) / one[step] for step in one)
    print(f"tp(2) with strategy.loss_parallel=true: at most {difference:.1e} from one process, over 12 steps")
    assert cut.keys() == one.keys()
    assert difference <= NEAR
    assert other == pytest.approx(validation, rel=NEAR)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What tests/strategies/cut_scores.py says, of each of two ranks."""
    home, program = tmp_path_factory.mktemp("cut"), Path(__file__).with_name("cut_scores.py")
    return said_by(home, [[str(program), str(rank), str(home / "meeting")] for rank in range(2)])


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_in_an_update_nobody_has_all_scores_and_in_an_evaluation_everybody(ranks: list[dict[str, Any]]) -> None:
    assert [found["False"]["scores"] for found in ranks] == [[2, 8, 131]] * 2
    assert [found["True"]["scores"] for found in ranks] == [[2, 8, 66], [2, 8, 65]]
    for found in ranks:
        assert found["False"]["gathered"] >= ALL
        assert found["True"]["gathered"] < ALL / 2
        assert found["True, z"]["gathered"] >= ALL, "why task.z_loss is refused with it"
        assert found["True"]["evaluated"] == [2, 8, 131]


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("with_z", ["", ", z"])
def test_losses_gradients_and_texts_are_what_they_are_with_whole_scores(ranks: list[dict[str, Any]], with_z: str) -> None:
    for found in ranks:
        whole, cut = found[f"False{with_z}"], found[f"True{with_z}"]
        assert cut["loss"] == pytest.approx(whole["loss"], rel=1e-6)
        assert cut["gradients"] == pytest.approx(whole["gradients"], rel=1e-5)
        assert (cut["validation"], cut["text"]) == (pytest.approx(whole["validation"], rel=1e-6), whole["text"])

"""A model that is made for other samples than the data have is refused once the data are prepared, and not by a matrix product."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from processes import finish, toy_words

from launcher.compose.check import check_held
from launcher.errors import ConfigError
from launcher.train.prepare import _held


@pytest.mark.parametrize(
    ("model", "holds", "said"),
    [
        ({"num_classes": 10}, {"num_classes": 3}, r"^model\.num_classes=10: the data have 3 classes; type model\.num_classes=3$"),
        ({"in_features": 64}, {"in_features": 10}, r"^model\.in_features=64: a sample of the data has 10 numbers; type model\.in_f.*=10$"),
        ({"channels": 1}, {"channels": 3}, r"^model\.channels=1: images of the data have 3 channels; type model\.channels=3$"),
        ({"out_features": 1}, {"out_features": 2}, r"^model\.out_features=1: .*; type model\.out_features=2$"),
        (
            {"num_classes": 10},
            {"out_features": 1},
            r"^model\.num_classes=10: a\.B has numbers .*; type model=regressor task=regression mod",
        ),
        ({"out_features": 1}, {"num_classes": 4}, r"^model\.out_features=1: a\.B has classes; type model=mlp task=cl.* model\.num_cl.*=4$"),
        (
            {"_target_": "models.resnet.resnet20", "num_classes": 10},
            {"num_classes": 3, "in_features": 4},
            r"^model\._target_=models\.resnet\.resnet20 takes images, and a\.B has rows .*; type model=mlp .*=3 model\.in_features=4$",
        ),
        (
            {"_target_": "models.cnn.CNN", "num_classes": 10},
            {"out_features": 2, "in_features": 4},
            r" has rows of numbers; type model=regressor task=regression model\.out_features=2 model\.in_features=4$",
        ),
    ],
)
def test_a_model_for_other_samples_is_one_line(model: dict[str, Any], holds: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_held({"model": {"_target_": "a.M", **model}, "data": {"_target_": "a.B"}}, holds)


@pytest.mark.parametrize(
    ("model", "holds"),
    [
        ({"_target_": "models.cnn.CNN"}, {"in_features": 4, "channels": 1}),
        ({"num_classes": 4}, {"num_classes": 4}),
        ({"num_classes": None}, {"num_classes": 4}),
        ({"width": 4}, {}),
    ],
)
def test_one_that_fits_and_what_nobody_knows_pass(model: dict[str, Any], holds: dict[str, int]) -> None:
    check_held({"model": {"_target_": "a.M", **model}, "data": {"_target_": "a.B"}}, holds)


def test_what_a_data_set_says_of_itself() -> None:
    assert _held(SimpleNamespace(num_classes=3, class_names=("a",), in_features="many", channels=None)) == {"num_classes": 3}
    assert _held(SimpleNamespace(class_names=("a", "b"))) == {"num_classes": 2}
    assert _held(object()) == {}


@pytest.mark.parametrize("sweep", [(), ("-m",)])
def test_it_is_refused_before_anything_starts(tmp_path: Path, sweep: tuple[str, ...]) -> None:
    done = finish(tmp_path, [*sweep, *toy_words(tmp_path / "runs", "model.num_classes=5", "train.steps=1")])
    assert done.returncode != 0
    assert "model.num_classes=5: the data have 4 classes; type model.num_classes=4" in done.stderr
    assert not list((tmp_path / "runs").glob("toy/*/attempts"))

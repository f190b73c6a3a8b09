"""The resident technique on plain data sets: a class with __len__ and __getitem__."""

from __future__ import annotations

import random
from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from toyproject.squares import Squares

from data.resident import Resident
from data.sampling import memory
from data.sampling.order import SPLIT, shuffled

Pair = namedtuple("Pair", "left right")


class Plain:
    """What `of(index)` returns, and nothing else."""

    def __init__(self, of: Any, samples: int = 20) -> None:
        self.of, self.samples = of, samples

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> Any:
        return self.of(index)


def opened(data: Any, rank: int = 0, size: int = 1, accumulate: int = 1, batch_size: int = 4, seed: int = 3, **more: Any) -> Resident:
    loader = Resident(data, batch_size=batch_size, accumulate=accumulate, seed=seed, **more)
    loader.open(SimpleNamespace(dp_rank=rank, dp_size=size), "cpu")
    return loader


def whole(loader: Resident, split: str) -> list[Any]:
    return list(loader.evaluation(split))


def test_a_class_with_two_methods_is_trained_on_and_held_out_of_by_seed(capsys: pytest.CaptureFixture[str]) -> None:
    loader = opened(Squares(), batch_size=32)
    assert (loader.samples, loader.steps_per_epoch) == (320, 10)
    for x, y in loader.steps(0):
        assert (x.shape, x.dtype, y.shape, y.dtype) == ((32, 4), torch.float32, (32, 4), torch.float32)
        torch.testing.assert_close(y, torch.where(x > 0.9, torch.nan, x**2), equal_nan=True)
    assert capsys.readouterr().err.splitlines() == [
        "data: no val of its own: 40 of 400 samples are held out, by seed (loader.val=0.1)",
        "data: no test of its own: 40 of 400 samples are held out, by seed (loader.test=0.1)",
    ]
    order = shuffled(400, SPLIT, 3)
    for split, places in (("val", order[:40]), ("test", order[40:80]), ("train", order[80:])):
        ((x, _),) = whole(loader, split)
        assert x.tolist() == [torch.tensor(Squares()[i][0], dtype=torch.float32).tolist() for i in sorted(places.tolist())]


def test_every_rank_has_its_share_and_all_of_them_have_everything_once() -> None:
    alone = [float(value) for x in opened(Plain(float)).steps(1) for value in x]
    ranks = [list(opened(Plain(float), rank, 2, 2).steps(1)) for rank in range(2)]
    assert [float(ranks[rank][2 * step + turn]) for step in range(4) for turn in range(2) for rank in range(2)] == alone
    assert sorted(
        float(value) for rank in range(3) for x in opened(Plain(float), rank, 3, batch_size=6).evaluation("train") for value in x
    ) == (sorted(alone))


def test_samples_may_be_of_any_nesting_and_of_what_people_have() -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)

    def sample(index: int) -> dict[str, Any]:
        return {
            "numbers": (index, index / 2, index % 2 == 0, np.float64(index), np.uint8(index)),
            "arrays": Pair(np.full(2, index, np.float64), np.full((1, 2), index, np.uint16)),
            "tensor": torch.full((2,), index, dtype=torch.float64),
            "image": Image.fromarray(pixels + index),
            "grey": Image.fromarray(pixels[..., 0] + index),
        }

    (batch,) = whole(opened(Plain(sample), val=0, test=0, eval_batch_size=20), "train")
    numbers, arrays = batch["numbers"], batch["arrays"]
    assert [leaf.dtype for leaf in numbers] == [torch.int64, torch.float32, torch.bool, torch.float32, torch.int64]
    assert all(leaf.shape == (20,) for leaf in numbers)
    assert numbers[0].tolist() == list(range(20))
    assert isinstance(arrays, Pair)
    assert [(leaf.dtype, leaf.shape) for leaf in arrays] == [(torch.float32, (20, 2)), (torch.int32, (20, 1, 2))]
    assert batch["tensor"].dtype == torch.float64, "a tensor is what its author made it"
    assert (batch["image"].shape, batch["grey"].shape) == ((20, 3, 2, 3), (20, 1, 2, 3))
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(batch["image"][7], torch.from_numpy((pixels + 7) / 255).permute(2, 0, 1).float())


def test_what_is_random_is_drawn_once_and_the_same_on_every_rank(capsys: pytest.CaptureFixture[str]) -> None:
    def sample(index: int) -> tuple[float, float, torch.Tensor]:
        return random.random(), np.random.rand(), torch.rand(2)

    random.seed(1)
    torch.manual_seed(1)
    np.random.seed(1)
    wanted = random.random(), float(np.random.rand()), torch.rand(1).item()
    random.seed(1)
    torch.manual_seed(1)
    np.random.seed(1)
    first, second = (opened(Plain(sample), rank, 2) for rank in range(2))
    assert (random.random(), float(np.random.rand()), torch.rand(1).item()) == wanted, "nobody's numbers are used up"
    said = [line for line in capsys.readouterr().err.splitlines() if "Plain[0] is another each time" in line]
    assert len(said) == 1, "of the first process alone"
    assert "stays for the whole run" in said[0]
    parts = [torch.cat([x for _, _, x in loader.evaluation("train")]) for loader in (opened(Plain(sample)), opened(Plain(sample)))]
    assert torch.equal(*parts)
    assert torch.equal(torch.cat([x for part in (first, second) for _, _, x in part.evaluation("train")]), parts[0])
    assert not torch.equal(torch.cat([x for _, _, x in opened(Plain(sample), seed=4).evaluation("train")]), parts[0])


def test_a_collate_that_is_not_called_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    opened(type("Own", (Plain,), {"collate": lambda self, samples: samples})(float), val=0, test=0)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("WARNING: data: Own.collate is not called")


@pytest.mark.parametrize(
    ("at_3", "why"),
    [
        ("a text", r"data: Plain\[3\] has 'a text' \(str\); return numbers, arrays, tensors or images"),
        (None, r"data: Plain\[3\] has a NoneType; return numbers"),
        (object(), r"data: Plain\[3\] has a object; return numbers"),
        (np.array(["a"]), r"data: Plain\[3\] has an array of <U1; return numbers"),
        (
            np.zeros(3),
            r"data: Plain\[3\] has a part of shape \(3,\) and float32, where sample 0 has one of shape \(2,\) and float32; .*crop, resize",
        ),
        (np.zeros(2, np.int32), r"data: Plain\[3\] has a part of shape \(2,\) and int32, where sample 0"),
        ((np.zeros(2), 1), r"data: Plain\[3\] has other parts than sample 0"),
    ],
)
def test_what_cannot_be_stacked_is_one_line_that_names_the_sample(at_3: Any, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}") as refused:
        opened(Plain(lambda index: at_3 if index == 3 else np.zeros(2)))
    assert "\n" not in str(refused.value)


def test_what_its_own_code_raises_is_named_and_stays_its_cause() -> None:
    with pytest.raises(RuntimeError, match=r"^data: Plain\[7\] failed: ZeroDivisionError: division by zero$") as failed:
        opened(Plain(lambda index: 1 / (index - 7)))
    assert isinstance(failed.value.__cause__, ZeroDivisionError)
    broken = type("Broken", (Plain,), {"__len__": lambda self: self.nothing})
    with pytest.raises(RuntimeError, match=r"^data: len\(Broken\) failed: AttributeError"):
        opened(broken(float))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (object(), r"data: object has no __len__; name a class with __len__ and __getitem__"),
        ([1, 2, 3], r"train\.batch_size=4: the training part has 3 samples"),
        (Plain(float, 0), r"data: Plain has no samples"),
        (iter([]), r"data: list_iterator has no __len__"),
    ],
)
def test_what_is_no_data_set_is_refused(data: Any, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}"):
        opened(data)


def test_splits_that_there_are_stay_whole_and_the_others_are_held_out(capsys: pytest.CaptureFixture[str]) -> None:
    loader = opened({"train": Plain(float), "test": Plain(lambda index: 100.0 + index, 7)}, val=0.25)
    assert [loader.evaluation(split).samples for split in ("train", "val", "test")] == [15, 5, 7]
    ((x,), (y,)) = (whole(loader, split) for split in ("val", "test"))
    assert max(x) < 20
    assert y.tolist() == [100.0 + index for index in range(7)]
    assert len(capsys.readouterr().err.splitlines()) == 1
    loader = opened(Plain(float), val=0, test=0)
    assert [loader.evaluation(split).samples for split in ("train", "val", "test")] == [20, 0, 0]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"val": 1}, r"loader\.val=1: not possible; type a share from 0 to below 1"),
        ({"test": -0.1}, r"loader\.test=-0\.1: not possible"),
        ({"val": 0.5, "test": 0.5}, r"loader\.val=0\.5: with loader\.test=0\.5 nothing is left to train on"),
        ({"eval_batch_size": 0}, r"loader\.eval_batch_size=0: not possible; type a whole number from 1"),
    ],
)
def test_shares_that_cannot_be_are_refused(keys: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}"):
        Resident(Plain(float), batch_size=4, accumulate=1, seed=0, **keys)


def test_what_does_not_fit_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    data = Plain(lambda index: read.append(index) or np.zeros(1000, np.float32), 2_000_000)
    monkeypatch.setattr(memory, "free", lambda: 8.5e9)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    why = (
        r"^data: 2,000,000 samples of 4,000 bytes are 7\.5 GiB, and this machine has 4\.0 free for each process; loader=resident holds all"
    )
    with pytest.raises(ValueError, match=why):
        opened(data)
    assert read == [0, 0]


def test_this_machine_says_how_much_it_has() -> None:
    assert 2**20 < memory.free() < 2**60


def test_a_set_whose_length_changes_while_it_is_read_is_refused() -> None:
    class Growing(Plain):
        def __getitem__(self, index: int) -> Any:
            self.samples = max(self.samples, 20 + (index == 7))
            return super().__getitem__(index)

    with pytest.raises(RuntimeError, match=r"^data: Growing had 20 samples when it was opened and has 21 now; .*let len stay what it is$"):
        opened(Growing(float))

"""Parts of samples in the arrays of other packages, by DLPack."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from data.resident import Resident
from data.sampling.leaf import leaf_of
from data.workers import Workers


class Foreign:
    """An array of a package that nobody here knows, as CuPy's and JAX's are."""

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor

    def __dlpack__(self, **options: Any) -> Any:
        return self._tensor.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._tensor.__dlpack_device__()


@pytest.mark.parametrize(
    ("value", "becomes"),
    [
        (np.arange(3.0), torch.tensor([0.0, 1.0, 2.0])),
        (torch.arange(6, dtype=torch.int32).view(2, 3).t(), torch.arange(6, dtype=torch.int32).view(2, 3).t()),
        (torch.tensor(7, dtype=torch.uint8), torch.tensor(7)),
        (torch.tensor(0.5, dtype=torch.float16), torch.tensor(0.5, dtype=torch.float16)),
    ],
)
def test_it_is_taken_as_an_array_of_numpy_is(value: Any, becomes: torch.Tensor) -> None:
    found, is_image = leaf_of(Foreign(value))
    assert torch.equal(found, becomes)
    assert (found.dtype, is_image) == (becomes.dtype, False)
    assert torch.equal(leaf_of(np.asarray(value))[0], found)


def test_what_dlpack_does_not_give_is_said() -> None:
    class Broken:
        def __dlpack__(self, **options: Any) -> Any:
            raise BufferError("lies on a device of its own\nfar away")

        def __dlpack_device__(self) -> Any:
            return 1, 0

    with pytest.raises(ValueError, match=r"^a Broken, of which DLPack gives nothing \(lies on a device of its own"):
        leaf_of(Broken())
    with pytest.raises(ValueError, match=r"^an array of complex64$"):
        leaf_of(Foreign(torch.ones(2, dtype=torch.complex64)))


class Rows:
    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return Foreign(torch.full((4,), float(index))), Foreign(torch.tensor(index % 3))


@pytest.mark.parametrize(("loader", "more"), [(Resident, {}), (Workers, {"num_workers": 0})])
def test_a_set_of_such_arrays_is_trained_on(loader: Any, more: dict[str, Any]) -> None:
    made = loader(Rows(), batch_size=8, accumulate=1, seed=0, val=0, test=0, **more)
    made.open(SimpleNamespace(dp_rank=0, dp_size=1), "cpu")
    x, y = next(iter(made.steps(0)))
    assert (x.shape, y.dtype) == ((8, 4), torch.int64)
    assert (x[:, 0].long() % 3 == y).all()
    made.close()

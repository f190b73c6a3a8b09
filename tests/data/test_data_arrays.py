"""Arrays of NumPy's: mapped where they lie, and nothing in them is run."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.arrays import Arrays
from data.numbers.rows import statistics
from data.product import Product

N = 50


def made(dtype: Any = np.float32, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(1)
    return (draw.normal(9, 3, (N, *(shape or (4,))))).astype(dtype), np.arange(N) % 3


def saved(place: Path, features: Any, found: Any) -> dict[str, str]:
    np.save(place / "x.npy", features)
    np.save(place / "y.npy", found)
    return {"features": str(place / "x.npy"), "targets": str(place / "y.npy")}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.uint8, np.uint16, ">f4"])
@pytest.mark.parametrize("shape", [(4,), (4, 5, 5)])
def test_columns_are_standardised_whatever_the_type(tmp_path: Path, dtype: Any, shape: tuple[int, ...]) -> None:
    features, found = made(dtype, *shape)
    data = Arrays(**saved(tmp_path, features, found))
    pinned = data.prepare()
    assert (data.num_classes, data.in_features, data.class_names) == (3, int(np.prod(shape)), ("0", "1", "2"))
    assert data.channels == (4 if len(shape) == 3 else None)
    source = Arrays(**pinned).part("train", "cpu")  # pyright: ignore[reportArgumentType]
    assert source is not None
    rows, labels = source.batch(torch.from_numpy(source.places))
    assert (rows.dtype, rows.shape, labels.tolist()) == (torch.float32, (40, *shape), found[source.places].tolist())
    whole = features[source.places].astype(np.float64)
    axes = (0, *range(2, whole.ndim))
    expected = (whole - whole.mean(axes, keepdims=True)) / whole.std(axes, keepdims=True)
    np.testing.assert_allclose(rows.numpy(), expected, atol=2e-5)
    assert not list((tmp_path / "cache").glob("arrays-*/features")), "the file itself is mapped"


def test_both_may_be_in_one_npz_and_texts_are_classes(tmp_path: Path) -> None:
    features, _ = made()
    np.savez(tmp_path / "a.npz", features=features, targets=np.array(["cat", "dog"] * 25))
    data = Arrays(features=str(tmp_path / "a.npz"))
    assert data.prepare()["targets"] is None
    assert data.class_names == ("cat", "dog")
    numbers = Arrays(**saved(tmp_path, features, features[:, :2]))
    assert (numbers.num_classes, numbers.out_features) == (None, 2)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("run",))


@pytest.mark.parametrize(
    ("features", "found", "why"),
    [
        (np.array([Bomb()] * 3, object), np.arange(3), r"^data\.features=.*x\.npy: is no array of numbers \(it holds Python's objects\)"),
        (np.ones((3, 2)), np.arange(4), r"^data\.targets: there are 4 for 3 rows of features"),
        (np.ones((0, 2)), np.arange(0), r"^data\.features=.*: it has no rows"),
        (np.ones((3, 0)), np.arange(3), r"^data\.features=.*: it has no columns; name an array"),
        (np.array([[1.0], [np.nan]] * 5), np.arange(10), r"^data\.features=.*: row 1 has a number that is not finite"),
        (np.ones((3, 2)), np.array([0, np.inf, 1]), r"^data\.targets=.*: row 1 has a number that is not finite"),
        (np.array(["a", "b"]), np.arange(2), r"^data\.features=.*: it has <U1 \(2,\), not numbers"),
        (np.float32(3), np.arange(2), r"^data\.features=.*: it has float32 \(\), not numbers"),
        (np.ones((3, 2)), np.ones(3, int), r"^data\.targets=.*: there is one class only, 1"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, features: Any, found: Any, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = saved(tmp_path, features, found)
    with pytest.raises(ValueError, match=why) as refused:
        Arrays(**options, kind="auto" if "one class" not in why else "classes").prepare()
    assert len(str(refused.value).splitlines()) == 1
    assert "run" not in capsys.readouterr().out.split()


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "y.npz").write_bytes(b"PK\x03\x04")
    np.savez(tmp_path / "z.npz", features=np.ones(3))
    for options, error, why in (
        ({"features": "x.npy", "targets": "x.npy"}, ValueError, r"is no array of numbers"),
        ({"features": "y.npz"}, ValueError, r"is no array of numbers"),
        ({"features": "z.npz"}, ValueError, r"^data\.targets=.*it has features and no targets"),
        ({"features": "none.npy", "targets": "x.npy"}, FileNotFoundError, r"^data\.features=.*there is no such file"),
    ):
        with pytest.raises(error, match=why):
            Arrays(**{key: str(tmp_path / name) for key, name in options.items()}).prepare()
    with pytest.raises(ValueError, match=r"^data\.features is null"):
        Arrays()
    with pytest.raises(ValueError, match=r"^data\.targets is null"):
        Arrays(features="x.npy")


def test_statistics_far_from_0_have_their_digits() -> None:
    rows = np.random.default_rng(0).normal(0, 1, (40_000, 2)) + np.array([1e8, 0])
    mean, std = statistics(rows, np.arange(40_000))
    np.testing.assert_allclose(std, rows.std(0), rtol=1e-7)
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-12, atol=1e-12)
    assert statistics(np.ones((3, 1)), np.arange(3))[1] == [1]


def test_a_product_is_that_of_its_matrix_and_the_same_in_every_process() -> None:
    data, again = Product(inputs=3, outputs=2, samples=40), Product(inputs=3, outputs=2, samples=40).part("train", "cpu")
    source = data.part("train", "cpu")
    assert source is not None
    assert again is not None
    x, y = source.batch(torch.from_numpy(source.places))
    np.testing.assert_allclose(y.numpy(), x.numpy() @ data.matrix.T, atol=1e-5)
    assert torch.equal(x, again.epoch(0, 7)(torch.from_numpy(again.places))[0])
    assert x.shape == (32, 3)
    assert abs(data.matrix).max() <= 1
    assert (Product(3, 2, 40, seed=1).matrix != data.matrix).all()
    with pytest.raises(ValueError, match=r"^data\.outputs=0: not possible"):
        Product(outputs=0)


@pytest.mark.parametrize(("shape", "suffix"), [((10**12, 4), ".npz"), ((-5, 4), ".npy")])
def test_a_header_that_lies_is_one_line(tmp_path: Path, shape: tuple[int, ...], suffix: str) -> None:
    """A file of 200 bytes that says that it has 29 TiB, or less than nothing."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    path, content = tmp_path / f"x{suffix}", header.getvalue() + bytes(64)
    if suffix == ".npz":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("features.npy", content)
    else:
        path.write_bytes(content)
    np.save(tmp_path / "y.npy", np.arange(3))
    with pytest.raises(ValueError, match=rf"^data\.features=.*x\{suffix}: is no array of numbers \("):
        Arrays(str(path), str(tmp_path / "y.npy"), cache=str(tmp_path / "cache")).prepare()

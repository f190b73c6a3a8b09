"""The program of an export against what torch.export makes of the same archive: the same bits; and what is refused."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

from launcher.errors import RunError
from launcher.predict.program import Program
from models.cnn import CNN
from models.detector import Detector
from models.linear import Linear
from models.mlp import MLP
from models.resnet import resnet8
from models.resnet9 import ResNet9
from models.transformer import Transformer
from models.vit import ViT


class Constants(nn.Module):
    """A tensor that is none of its state, a buffer that is not saved, a list in and out."""

    def __init__(self) -> None:
        super().__init__()
        self.constant = torch.arange(4.0)
        self.register_buffer("unsaved", torch.ones(4), persistent=False)

    def forward(self, x: torch.Tensor) -> Any:
        first, second = x.split(2, 1)
        return x * self.constant + self.unsaved + torch.tensor([1.0, 2, 3, 4]), [first, second.reshape(x.shape[0] * 2)]


def _images(size: int = 32) -> torch.Tensor:
    return torch.randn(3, 3, size, size)


MODELS: dict[str, Callable[[], tuple[nn.Module, torch.Tensor]]] = {
    "resnet9": lambda: (ResNet9(), _images()),
    "resnet": lambda: (resnet8(), _images()),
    "cnn": lambda: (CNN(channels=3), _images()),
    "mlp": lambda: (MLP(), torch.randn(3, 64)),
    "linear": lambda: (Linear(8, 2), torch.randn(3, 8)),
    "vit": lambda: (ViT(size=32, patch=8, dim=64, heads=4, layers=2, num_classes=10), _images()),
    "detector": lambda: (Detector(num_classes=3, channels=32, width=16), _images(64)),
    "transformer": lambda: (Transformer(layers=2, kv_heads=2), torch.randint(0, 256, (3, 16))),
    "constants": lambda: (Constants(), torch.randn(3, 4)),
}


def exported(model: nn.Module, example: torch.Tensor, *, decomposed: bool = False, length: bool = False) -> Any:
    shapes = {0: Dim("batch", min=1), **({1: Dim("length", min=1, max=64)} if length else {})}
    program: Any = torch.export.export(model.eval(), (example,), dynamic_shapes=(shapes,), strict=False)
    program = program.run_decompositions() if decomposed else program
    program._example_inputs = None
    return program


def archived(program: Any) -> bytes:
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


def _flat(outputs: Any) -> list[torch.Tensor]:
    return torch.utils._pytree.tree_leaves(outputs)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("decomposed", [False, pytest.param(True, marks=pytest.mark.full)], ids=["whole", "decomposed"])
@pytest.mark.parametrize("name", MODELS)
def test_a_program_says_what_torch_export_says_to_the_bit(name: str, decomposed: bool) -> None:
    torch.manual_seed(0)
    model, example = MODELS[name]()
    program = exported(model, example, decomposed=decomposed)
    ours = Program(archived(program), dict(model.state_dict()), torch.device("cpu"))
    for count in (1, 3, 5):
        inputs = example.repeat(2, *[1] * (example.ndim - 1))[:count]
        with torch.no_grad():
            wanted = program.module()(inputs.clone())
        found = ours(inputs.clone())
        assert type(found) is type(wanted)
        assert all(torch.equal(*pair) for pair in zip(_flat(found), _flat(wanted), strict=True))
        if isinstance(wanted, dict):
            assert list(found) == list(wanted)


@pytest.mark.filterwarnings("ignore")
def test_any_length_where_the_program_says_so() -> None:
    program = exported(Transformer(layers=1), torch.randint(0, 256, (3, 16)), length=True)
    ours = Program(archived(program), {}, torch.device("cpu"))
    tokens = torch.randint(0, 256, (2, 9))
    assert torch.equal(ours(tokens), program.module()(tokens))


@pytest.fixture(scope="module")
def small() -> bytes:
    return archived(exported(Linear(8, 2), torch.randn(3, 8)))


def _changed(archive: bytes, change: Callable[[Any], None]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("models/model.json"):
                told = json.loads(data)
                change(told)
                data = json.dumps(told).encode()
            new.writestr(name, data)
    return file.getvalue()


def _calls(target: str) -> Callable[[Any], None]:
    def change(told: Any) -> None:
        told["graph_module"]["graph"]["nodes"][0]["target"] = target

    return change


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (_calls("os.system"), "only operators of ATen"),
        (_calls("_operator.pow"), "only operators of ATen"),
        (_calls("torch.ops.prim.device.default"), "only operators of ATen"),
        (_calls("torch.ops.aten.from_file.default"), "takes filename"),
        (_calls("torch.ops.aten.no_such.default"), "has no operator"),
        (_calls("torch.ops.aten.set_.source_Storage"), "takes source"),
        (lambda told: told["schema_version"].update(major=9), "its schema is 9"),
        (lambda told: told.pop("graph_module"), "graph_module"),
    ],
)
def test_what_is_not_understood_is_one_line(small: bytes, change: Callable[[Any], None], part: str) -> None:
    with pytest.raises(RunError, match=part):
        Program(_changed(small, change), {}, torch.device("cpu"))


def test_what_is_no_archive_is_one_line() -> None:
    with pytest.raises(RunError, match=r"program\.pt2 is no program"):
        Program(b"PK\x03\x04 and nothing more", {}, torch.device("cpu"))

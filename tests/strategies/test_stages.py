"""How a model is cut into stages, and that a stage gives what the whole model has there."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from launcher.errors import ConfigError
from launcher.strategies import stages
from launcher.strategies.stages import Reached
from models import resnet
from models.transformer import STAGES, Transformer


def small(**asked: object) -> Transformer:
    torch.manual_seed(0)
    return Transformer(vocab_size=11, dim=16, layers=3, heads=4, **asked)  # pyright: ignore[reportArgumentType]


def test_units_are_in_the_order_of_the_patterns() -> None:
    assert stages.units(small(), STAGES) == ["embed", "blocks.0", "blocks.1", "blocks.2", "norm", "head"]
    assert stages.units(resnet.resnet8(), resnet.STAGES) == ["stem", "stages.0", "stages.1", "stages.2", "head"]


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        (("embed", "block.*", "norm", "head"), "STAGES in its file has 'block.*', and there is no such module"),
        (("embed", "blocks.*", "head"), "STAGES in its file has no module with norm.weight; add one"),
    ],
)
def test_what_the_file_says_has_to_be_the_model(patterns: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("*", r"\*")):
        stages.units(small(), patterns)


@pytest.mark.parametrize(
    ("sizes", "count", "begins"),
    [
        ([5, 5, 5, 5], 2, [0, 2]),
        ([100, 1, 1, 1], 2, [0, 1]),
        ([1, 1, 1, 100], 2, [0, 3]),
        ([100, 1, 1, 1], 3, [0, 1, 2]),
        ([4, 3, 2, 1], 4, [0, 1, 2, 3]),
        ([7], 1, [0]),
    ],
)
def test_the_largest_stage_is_as_small_as_can_be(sizes: list[int], count: int, begins: list[int]) -> None:
    assert stages._balanced(sizes, count) == begins


@pytest.mark.parametrize(
    ("count", "cut", "said"),
    [
        (7, None, "7 stages of a model of 6 parts"),
        (2, ["blocks.9"], "no stage can begin with blocks.9; type some of blocks.0"),
        (2, ["embed"], "no stage can begin with embed"),
        (3, ["blocks.1"], "makes 2 stages, and there are 3; name 2 modules"),
    ],
)
def test_a_cut_that_cannot_be_is_named(count: int, cut: list[str] | None, said: str) -> None:
    model = small()
    with pytest.raises(ConfigError, match=said):
        stages.shares(model, stages.units(model, STAGES), count, cut)


@pytest.mark.parametrize("soft_cap", [0.0, 2.0])
@pytest.mark.parametrize("cut", [None, ["blocks.1", "head"]])
def test_stages_one_after_the_other_are_the_model(soft_cap: float, cut: list[str] | None) -> None:
    model, tokens = small(soft_cap=soft_cap), torch.arange(8).view(2, 4)
    expected, names = model(tokens), [name for name, _ in model.named_modules()]
    parts = stages.shares(model, stages.units(model, STAGES), 3, cut)
    activation: torch.Tensor | None = None
    for number in range(3):
        made = stages.stage(model, parts, number)
        made.mail.open(activation)
        if number < 2:
            with pytest.raises(Reached) as end:
                made.module(tokens)
            activation = end.value.activation
        else:
            assert torch.equal(made.module(tokens), expected)
    assert [name for name, _ in model.named_modules()] == names, "the model itself is as it was"


def test_what_is_elsewhere_keeps_its_name_and_nothing_else() -> None:
    model = small()
    whole = {name: tuple(each.shape) for name, each in model.named_parameters()}
    parts = stages.shares(model, stages.units(model, STAGES), 2, ["blocks.2"])
    stages.leave(model, parts, [0, 1], 1)
    assert {name for name, _ in model.named_parameters(remove_duplicate=False)} == {*whole, "head.weight"}
    assert not model.blocks[0].attention.q.weight.numel()
    assert model.blocks[2].attention.q.weight.numel()
    holders = stages.HOLDERS[model]
    assert {name: holder.shape for name, holder in holders.items()} == whole
    assert holders["embed.weight"].places == {0, 1}, "the head is the embedding"
    assert holders["blocks.0.attention.q.weight"].places == {0}


def test_one_process_cannot_have_the_same_weight_in_two_stages() -> None:
    model = small()
    parts = stages.shares(model, stages.units(model, STAGES), 3, None)
    with pytest.raises(ConfigError, match=r"embed\.weight is in 2 stages, and one process has two of them"):
        stages.leave(model, parts, [0, 1, 0], 1)


def test_a_stage_trains_or_evaluates_as_the_model_does() -> None:
    model = small(dropout=0.5)
    made = stages.stage(model, stages.shares(model, stages.units(model, STAGES), 2, None), 1)
    for mode, blocks in ((False, False), (True, True), (True, False)):
        model.train(mode).blocks.train(blocks)
        made.follow()
        assert [made.module.training, made.module.get_submodule("blocks").training] == [mode, blocks]
        assert made.module.get_submodule("blocks.2.module").training == blocks, "its own modules are the model's"


class Row(nn.Module):
    """Blocks, and how `forward` calls them: a program on `x`, `blocks` and `head`."""

    def __init__(self, program: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.blocks, self.head = nn.Linear(3, 4), nn.ModuleList(nn.Linear(4, 4) for _ in range(3)), nn.Linear(4, 2)
        self.program = program

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        names = {"x": self.embed(x), "blocks": self.blocks, "torch": torch}
        exec(self.program, names)
        return self.head(names["x"])


ROW = ("embed", "blocks.*", "head")


def second(program: str, first: nn.Module | None = None) -> stages.Stage:
    """The second stage of such a model, which begins with blocks.1, or with `first` in its place."""
    model = Row(program)
    if first is not None:
        model.blocks[1] = first
    made = stages.stage(model, stages.shares(model, stages.units(model, ROW), 2, ["blocks.1"]), 1)
    made.mail.open(torch.ones(5, 4))
    return made


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("for b in reversed(blocks): x = b(x)", r"calls blocks\.2 where blocks\.0 is due"),
        ("for b in blocks: x = b(b(x))", r"calls blocks\.0 where blocks\.1 is due"),
        ("for b in (blocks[0], blocks[2]): x = b(x)", r"calls blocks\.2 where blocks\.1 is due"),
        ("x = blocks[0](x)", r"calls head where blocks\.1 is due"),
    ],
)
def test_a_forward_that_is_no_chain_is_named(program: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        second(program).module(torch.ones(5, 3))


def test_what_is_made_of_another_stages_numbers_is_none() -> None:
    """A residual around the modules would add what this stage does not have."""
    assert second("for b in blocks: x = x + b(x)").module(torch.ones(5, 3)).isnan().all()
    assert not second("for b in blocks: x = torch.relu(b(x))").module(torch.ones(5, 3)).isnan().any()


def test_modules_may_be_called_by_keyword_and_change_what_they_are_given() -> None:
    assert not second("for b in blocks: x = b(input=x)").module(torch.ones(5, 3)).isnan().any()
    for copies in (False, True):
        made = second("for b in blocks: x = b(x)", nn.Threshold(2.0, 0.0, inplace=True))
        made.mail.copies, received = copies, made.mail.received
        made.module(torch.ones(5, 3))
        assert received is not None
        assert torch.equal(received, torch.full((5, 4), float(copies))), "what was received is changed where it is not copied"


def test_a_module_that_is_called_when_all_is_over_is_named() -> None:
    made = second("for b in blocks: x = b(x)")
    made.mail.shut()
    with pytest.raises(ConfigError, match=r"as by torch\.utils\.checkpoint in the model; leave it out"):
        made.module(torch.ones(5, 3))

"""ViT: the same numbers as the reference in transformers, its sizes, and that it is one model under every way to split it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import REPO
from processes import finish, losses, toy_words
from split_runs import SPLITS

from launcher.config import dialect
from models.vit import ViT

SMALL = {"size": 16, "patch": 4, "dim": 24, "layers": 3, "heads": 3, "num_classes": 7}


def small(**asked: object) -> ViT:
    torch.manual_seed(0)
    return ViT(**{**SMALL, **asked})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("mlp_dim", [None, 40])
def test_it_computes_what_the_reference_does(mlp_dim: int | None) -> None:
    """https://github.com/huggingface/transformers, ViTForImageClassification, with its weights."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=16, patch_size=4, hidden_size=24, num_hidden_layers=3, num_attention_heads=3, intermediate_size=mlp_dim or 96,
        layer_norm_eps=1e-6, num_labels=7, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(1)
    reference = transformers.ViTForImageClassification(config).eval()
    for parameter in reference.parameters():  # norms and biases too
        torch.nn.init.normal_(parameter, std=0.3)
    theirs = reference.state_dict()
    mine: dict[str, torch.Tensor] = {}
    for name in small(mlp_dim=mlp_dim).state_dict():
        mine[name] = torch.cat([theirs[each] for each in _in_reference(name, theirs)])
    model = small(mlp_dim=mlp_dim).eval()
    model.load_state_dict(mine)
    images = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(model(images), reference(images).logits, atol=1e-5, rtol=1e-5)
    assert sum(each.numel() for each in mine.values()) == sum(each.numel() for each in theirs.values()), "no weight is left out"


def _in_reference(name: str, theirs: dict[str, torch.Tensor]) -> list[str]:
    """What a weight of ours is called there, in whichever version."""
    top = {"embed.class_token": "cls_token", "embed.positions": "position_embeddings", "embed.patches": "patch_embeddings.projection"}
    inside = {
        "attention_norm": ("layernorm_before",),
        "mlp_norm": ("layernorm_after",),
        "qkv": ("query|q_proj", "key|k_proj", "value|v_proj"),
        "out": ("attention.output.dense|attention.o_proj",),
        "up": ("intermediate.dense|mlp.fc1",),
        "down": ("output.dense|mlp.fc2",),
    }
    base, _, kind = name.rpartition(".")
    if name in top:
        return [each for each in theirs if each.endswith(top[name])]
    if base in top:
        return [each for each in theirs if each.endswith(f"{top[base]}.{kind}")]
    if base in ("norm", "head"):
        return [each for each in theirs if each.endswith(f"{'vit.layernorm' if base == 'norm' else 'classifier'}.{kind}")]
    number, part = base.split(".")[1:]
    of_layer = [each for each in theirs if f"layer.{number}." in each or f"layers.{number}." in each]
    found = []
    for words in inside[part]:
        ends = tuple(f"{word}.{kind}" for word in words.split("|"))
        found += [each for each in of_layer if each.endswith(ends) and not (part == "down" and "attention" in each)]
    return found


@pytest.mark.parametrize(("name", "millions"), [("vit_tiny", 5.36), ("vit_s", 22.05)])
def test_its_sizes_are_those_of_the_paper(name: str, millions: float) -> None:
    asked = dialect.read((REPO / "conf" / "model" / f"{name}.yaml").read_text())
    assert asked.pop("_target_") == "models.vit.ViT"
    with torch.device("meta"):
        model = ViT(**asked)
        assert model(torch.empty(2, 3, asked["size"], asked["size"])).shape == (2, asked["num_classes"])
    assert sum(each.numel() for each in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"patch": 5}, r"model\.patch=5: model\.size=16 is no multiple of it; type a divisor of 16"),
        ({"heads": 5}, r"model\.dim=24: each of model\.heads=5 has an even share"),
        ({"drop_path": 1.0}, r"model\.drop_path=1\.0 cannot be"),
    ],
)
def test_what_does_not_go_together_is_refused(asked: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        small(**asked)


def test_images_of_another_size_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^model\.size=16: the images are 32x32; type model\.size=32, or data\.size=16$"):
        small()(torch.zeros(1, 3, 32, 32))


def test_a_dropped_branch_is_dropped_for_a_sample_and_in_training_alone() -> None:
    model, images = small(drop_path=0.5, layers=2), torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    plain = small(layers=2).eval()(images)
    torch.testing.assert_close(model.eval()(images), plain)
    torch.manual_seed(0)
    same = (model.train()(images) - plain).abs().amax(1) < 1e-7
    assert not same.any(), "what is kept counts for more"
    assert [block.drop_path for block in model.blocks] == [0.0, 0.5]
    branch = model.blocks[1]._kept(torch.ones(4000, 3, 2))
    assert set(branch.unique().tolist()) == {0.0, 2.0}
    assert branch.mean() == pytest.approx(1, abs=0.1)
    assert torch.equal(branch[:, :1, :1].expand_as(branch), branch)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("splits", [("pp(2)",), pytest.param(("ddp(2)", "fsdp(2)", "hsdp(2x2)", "pp x fsdp(2x2)"), marks=pytest.mark.full)])
def test_however_it_is_split_its_losses_are_those_of_one_process(tmp_path: Path, splits: tuple[str, ...]) -> None:
    sizes = ("model.size=8", "model.dim=24", "model.layers=2", "model.heads=3", "model.num_classes=4")
    net = ("model=vit_tiny", *sizes, "train.steps=8")
    found: dict[str, dict[int, float]] = {}
    for number, split in enumerate(("one", *splits)):
        done = finish(tmp_path, toy_words(tmp_path / "runs", f"id={number}", *net, *SPLITS[split]), timeout=100)
        assert done.returncode == 0, done.stderr
        found[split] = losses(tmp_path / "runs" / "toy" / str(number))
    one = found.pop("one")
    for split, got in found.items():
        difference = max(abs(got[step] - one[step]) / one[step] for step in one)
        print(f"{split}: at most {difference:.1e} from one process, over 8 steps of a ViT")
        assert got.keys() == one.keys()
        assert difference <= 1e-5

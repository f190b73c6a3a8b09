"""The decoder: what it must not see, and what its options mean."""

from __future__ import annotations

import pytest
import torch
from helpers import REPO

from launcher.config import dialect
from models.transformer import Transformer, rotary, rotated

SMALL = {"vocab_size": 11, "dim": 16, "layers": 2, "heads": 4}


def small(**asked: object) -> Transformer:
    torch.manual_seed(0)
    return Transformer(**{**SMALL, **asked})  # pyright: ignore[reportArgumentType]


def test_a_score_depends_on_nothing_that_comes_later() -> None:
    model, tokens = small(), torch.randint(0, 11, (2, 9), generator=torch.Generator().manual_seed(1))
    other = tokens.clone()
    other[:, 5:] = (tokens[:, 5:] + 1) % 11
    before, after = model(tokens), model(other)
    assert before.shape == (2, 9, 11)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5], after[:, 5])


DOCUMENTS = torch.tensor([[0, 0, 0, 4, 4, 5, 5, 5, 5], [7, 7, 7, 7, 7, 7, 8, 8, 9]])


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_a_score_depends_on_no_token_of_another_document(kv_heads: int) -> None:
    model, tokens = small(kv_heads=kv_heads), torch.randint(0, 11, (2, 9), generator=torch.Generator().manual_seed(1))
    before = model(tokens, DOCUMENTS)
    assert not torch.allclose(before, model(tokens)), "without numbers all are one"
    for row, document in ((0, 0), (0, 4), (0, 5), (1, 7)):
        inside = DOCUMENTS[row] == document
        other = tokens.clone()
        other[row, inside] = (tokens[row, inside] + 1) % 11
        after = model(other, DOCUMENTS)
        assert torch.equal(before[row, ~inside], after[row, ~inside])
        assert not torch.isclose(before[row, inside], after[row, inside]).all(-1).any()


def test_a_document_in_a_window_has_the_scores_that_it_has_alone() -> None:
    """Though it stands at other positions there."""
    model, tokens = small(kv_heads=2), torch.randint(0, 11, (1, 9), generator=torch.Generator().manual_seed(1))
    found = model(tokens, DOCUMENTS[:1])
    for begin, end in ((0, 3), (3, 5), (5, 9)):
        torch.testing.assert_close(found[:, begin:end], model(tokens[:, begin:end]))


def test_attention_sees_how_far_apart_two_tokens_are_and_not_where_they_stand() -> None:
    rotation = rotary(20, 8, 10_000.0, torch.device("cpu"))
    query, key = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))

    def product(at: int, to: int) -> float:
        return float((rotated(query, rotation[:, at : at + 1]) * rotated(key, rotation[:, to : to + 1])).sum())

    assert product(7, 3) == pytest.approx(product(19, 15), abs=1e-5)
    assert product(7, 3) != pytest.approx(product(7, 4), abs=1e-3)


def test_heads_that_share_keys_are_as_heads_with_copies_of_them() -> None:
    grouped, full = small(kv_heads=2), small()
    weights = grouped.state_dict()
    for name, weight in weights.items():
        if name.endswith((".k.weight", ".v.weight")):
            weights[name] = weight.unflatten(0, (2, 4)).repeat_interleave(2, 0).flatten(0, 1)
    full.load_state_dict(weights)
    tokens = torch.arange(6).view(1, 6)
    torch.testing.assert_close(grouped(tokens), full(tokens))


def test_a_tied_head_is_the_embedding_and_a_free_one_is_not() -> None:
    tied, free = small(), small(tied=False)
    assert tied.head.weight is tied.embed.weight
    assert sum(p.numel() for p in free.parameters()) - sum(p.numel() for p in tied.parameters()) == 11 * 16


def test_a_cap_is_the_most_that_a_score_can_be() -> None:
    model, capped = small(), small(soft_cap=0.01)
    tokens = torch.arange(6).view(1, 6)
    torch.testing.assert_close(capped(tokens), 0.01 * torch.tanh(model(tokens) / 0.01))


def test_biases_are_where_qwen_has_them() -> None:
    assert {name.split(".")[-2] for name, _ in small(attention_bias=True).named_parameters() if name.endswith("bias")} == {"q", "k", "v"}
    assert not any(name.endswith("bias") for name, _ in small().named_parameters())


def test_dropout_draws_in_training_alone() -> None:
    model, tokens = small(dropout=0.5), torch.arange(6).view(1, 6)
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"dim": 18}, "model.dim=18: each of model.heads=4 needs an even share of it; type a multiple of 8"),
        ({"kv_heads": 3}, "model.kv_heads=3: as many of model.heads=4 share each; type a divisor of 4"),
        ({"kv_heads": 0}, "type a divisor of 4"),
    ],
)
def test_sizes_that_do_not_go_together_are_one_line(asked: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        small(**asked)


@pytest.mark.parametrize(("name", "millions"), [("gpt2_124m", 123.6), ("llama_1b", 1235.8), ("llama_8b", 8030.3)])
def test_a_size_is_what_it_is_called_for(name: str, millions: float) -> None:
    sizes = dialect.read((REPO / "conf" / "model" / f"{name}.yaml").read_text())
    assert sizes.pop("_target_") == "models.transformer.Transformer"
    with torch.device("meta"):
        model = Transformer(**sizes)
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)

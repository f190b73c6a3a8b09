"""The next token of a text: what is lost, counted and shown."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from launcher.answers.texts import continued
from launcher.train.tasks.language import NextToken

TOKENS = torch.tensor([[1, 2, 3, 0], [3, 3, 1, 2]])
TARGETS = torch.tensor([[2, 3, 0, 1], [3, 1, 2, 0]])


class Bigrams(torch.nn.Module):
    """Scores by the token alone."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.table[tokens]


class Shown:
    def __init__(self) -> None:
        self.texts: list[tuple[str, str, int]] = []

    def text(self, tag: str, text: str, step: int = 0) -> None:
        self.texts.append((tag, text, step))


def test_the_loss_is_the_sum_over_tokens_and_its_weight_is_how_many_there_are() -> None:
    model = Bigrams()
    step = NextToken().step(model, (TOKENS, TARGETS))
    expected = -model(TOKENS).log_softmax(-1).gather(-1, TARGETS[..., None]).sum()
    torch.testing.assert_close(step.loss, expected)
    assert step.weight == 8


def test_what_keeps_scores_from_drifting_is_lost_and_not_shown() -> None:
    model, task = Bigrams(), NextToken(z_loss=0.5)
    step, plain = task.step(model, (TOKENS, TARGETS)), NextToken().step(model, (TOKENS, TARGETS))
    drift = 0.5 * model(TOKENS).logsumexp(-1).square().sum()
    torch.testing.assert_close(step.loss, plain.loss + drift)
    shown = task.train_metrics(step.loss.item(), 8, [part.item() for part in step.statistics])
    assert shown["loss"] == pytest.approx(plain.loss.item() / 8)
    assert shown["perplexity"] == pytest.approx(math.exp(plain.loss.item() / 8))


def test_metrics_of_two_ranks_are_those_of_one() -> None:
    model, task = Bigrams(), NextToken(sample=5)
    one, first, second, merged = (task.metrics() for _ in range(4))
    one.update(model, (TOKENS, TARGETS))
    first.update(model, (TOKENS[:1], TARGETS[:1]))
    second.update(model, (TOKENS[1:], TARGETS[1:]))
    for each in (first, second):
        merged.merge(each.state())
    assert merged.result() == pytest.approx(one.result())
    assert one.result()["samples"] == 2
    assert one.result()["loss"] == pytest.approx(F.cross_entropy(model(TOKENS).flatten(0, 1), TARGETS.flatten()).item())
    assert merged.text is not None
    assert torch.equal(merged.text, one.text)  # pyright: ignore[reportArgumentType]


def test_a_text_goes_on_from_its_beginning_and_draws_from_nobody_elses_generator() -> None:
    seen: list[int] = []

    def certain(tokens: torch.Tensor) -> torch.Tensor:
        """The next number, surely."""
        seen.append(tokens.shape[1])
        return 1000.0 * F.one_hot((tokens + 1) % 4, 4).float()

    before = torch.get_rng_state()
    text = continued(certain, TOKENS[:1, :2], 6, context=4, temperature=1.0)
    assert text.tolist() == [[1, 2, 3, 0, 1, 2, 3, 0]]
    assert max(seen) == 4, "no more than the context is looked at"
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_is_told_of_documents_where_the_batch_has_them() -> None:
    told: list[list[int]] = []

    def certain(tokens: torch.Tensor, documents: torch.Tensor | None = None) -> torch.Tensor:
        told.append([] if documents is None else documents[0].tolist())
        return 1000.0 * F.one_hot((tokens + 1) % 4, 4).float()

    documents = torch.tensor([[3, 4, 4, 4], [4, 4, 4, 5]])
    task = NextToken(sample=3)
    task.step(certain, (TOKENS, TARGETS, documents))
    metrics = task.metrics()
    metrics.update(certain, (TOKENS, TARGETS, documents))
    assert told[:2] == [[3, 4, 4, 4]] * 2
    assert told[2:] == [[3, 4, -1, -1], [3, 4, 4, -1], [3, 4, 4, 4]], "a text goes on in the document that it begins with last"
    assert metrics.text is not None
    told.clear()
    task.step(certain, (TOKENS, TARGETS))
    assert told == [[]]


@pytest.mark.parametrize(("names", "given", "more"), [((), "\x01", "\x01\x02"), ("wxyz", "x", "xy"), ("wx", "x", "x\ufffd")])
def test_the_text_is_shown_by_the_names_of_its_tokens_or_as_bytes(names: Any, given: str, more: str) -> None:
    task, shown = NextToken(sample=2), Shown()
    metrics = task.metrics()
    metrics.text = torch.tensor([1, 1, 2])
    task.show_evaluation(shown, metrics, "val", names, 30)
    assert shown.texts == [("val/text", f"    [given]\n    {given}\n    [the model goes on]\n    {more}", 30)]


def test_without_a_sample_nothing_is_drawn_and_nothing_shown() -> None:
    task, shown = NextToken(sample=0), Shown()
    metrics = task.metrics()
    metrics.update(Bigrams(), (TOKENS, TARGETS))
    task.show_evaluation(shown, metrics, "val", (), 30)
    assert shown.texts == []


def test_a_number_that_cannot_be_is_one_line() -> None:
    for asked in ({"z_loss": -1.0}, {"sample": -1}, {"temperature": 0.0}):
        with pytest.raises(ValueError, match=r"task\.z_loss and task\.sample are 0 or more"):
            NextToken(**asked)  # pyright: ignore[reportArgumentType]

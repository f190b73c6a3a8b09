"""How a language model goes on with a text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.nn import functional as F

Model = Callable[..., Any]


def continued(
    model: Model, tokens: torch.Tensor, count: int, context: int, temperature: float, documents: torch.Tensor | None = None, seed: int = 0
) -> torch.Tensor:
    """tokens (B, T) and `count` more behind them: (B, T + count). The others are as `going_on` has them."""
    return torch.cat((tokens, *going_on(model, tokens, count, context, temperature, documents, seed)), 1)


def going_on(
    model: Model, tokens: torch.Tensor, count: int, context: int, temperature: float, documents: torch.Tensor | None = None, seed: int = 0
) -> Iterator[torch.Tensor]:
    """`count` tokens behind (B, T), (B, 1) each, drawn by the scores of at most `context` before it. `documents` (B, T): which each is in;
    what is drawn goes on with the last one.

    The draws are a function of `seed` and touch no other generator: what is shown changes nothing of what is trained.
    """
    generator = torch.Generator(tokens.device).manual_seed(seed)
    for _ in range(count):
        window = tokens[:, -context:]
        length = window.shape[1]
        padded = F.pad(window, (0, context - length))  # of one shape always; what comes after a token has no part in its scores
        of = () if documents is None else (F.pad(documents[:, -context:], (0, context - length), value=-1),)
        with torch.no_grad():
            scores = model(padded, *of)[:, length - 1] / temperature
            drawn = torch.multinomial(scores.softmax(-1), 1, generator=generator)
        yield drawn
        tokens = torch.cat((tokens, drawn), 1)
        documents = None if documents is None else torch.cat((documents, documents[:, -1:]), 1)


def written(tokens: Sequence[int], names: Sequence[str]) -> str:
    """Tokens as a text; without names of tokens they are bytes."""
    if names:
        return "".join(names[token] if token < len(names) else "\ufffd" for token in tokens)
    return bytes(token if token < 256 else 0x3F for token in tokens).decode(errors="replace")

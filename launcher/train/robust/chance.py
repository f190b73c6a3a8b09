"""What is drawn for each sample, from a generator of its own: a function of the key and the sample's number, whoever else is in the batch.
The generators of the process stay as they are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import torch


class Chance:
    """Draws for the samples of one batch, one call after the other. On the host, so that no device has others."""

    def __init__(self, numbers: Iterable[int], *key: int | str) -> None:
        """`numbers`: which samples they are. `key`: what else the draws hang on, such as a seed."""
        self._generators = [torch.Generator().manual_seed(_seed(*key, number)) for number in numbers]

    def uniform(self, like: torch.Tensor) -> torch.Tensor:
        """In 0 to below 1, float32, of the shape and in the place of `like` (N, …)."""
        return self._each(like, lambda one, generator: torch.rand(one.shape, generator=generator))

    def normal(self, like: torch.Tensor) -> torch.Tensor:
        """Of mean 0 and deviation 1, float32."""
        return self._each(like, lambda one, generator: torch.randn(one.shape, generator=generator))

    def poisson(self, rates: torch.Tensor) -> torch.Tensor:
        """Counts, float32, one for each rate (N, …)."""
        return self._each(rates, lambda one, generator: torch.poisson(one.float(), generator=generator))

    def _each(self, like: torch.Tensor, drawn: Callable[[torch.Tensor, torch.Generator], torch.Tensor]) -> torch.Tensor:
        here = like.detach().cpu()
        return torch.stack([drawn(one, generator) for one, generator in zip(here, self._generators, strict=True)]).to(like.device)


def _seed(*key: int | str) -> int:
    """32 bits: torch's generator on a CPU takes no more."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=4).digest(), "little")

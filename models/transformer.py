"""A decoder-only transformer in today's form: pre-norm with RMSNorm (Zhang and Sennrich, 2019, https://arxiv.org/abs/1910.07467),
rotary positions (Su et al., 2021, https://arxiv.org/abs/2104.09864), SwiGLU (Shazeer, 2020, https://arxiv.org/abs/2002.05202),
grouped-query attention (Ainslie et al., 2023, https://arxiv.org/abs/2305.13245). Llama and Qwen 2 are this model with their sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from models.weights import load

INIT_STD = 0.02

BLOCKS = ("Block",)
STAGES = ("embed", "blocks.*", "norm", "head")
TENSOR_PARALLEL = {
    "embed": "row",
    "blocks.*_norm": "sequence",
    "blocks.*.attention": "whole",
    "blocks.*.mlp": "whole",
    "blocks.*.[qkv]": "column",
    "blocks.*.gate": "column",
    "blocks.*.up": "column",
    "blocks.*.out": "row",
    "blocks.*.down": "row",
    "norm": "sequence",
    "head": "head",
}
CONTEXT_PARALLEL = {"x": 1, "rotation": 1}
PRETRAINED = ("weights",)


class Transformer(nn.Module):
    """Tokens (B, T) int64 to scores of the next one (B, T, vocab_size), in the type of its weights. Any T: positions are rotations.
    `documents` (B, T) int64 numbers the document of each token, which then attends to that one alone; positions go on from one to the next,
    for a rotation tells a distance only.

    kv_heads: heads of keys and values, each shared by heads / kv_heads of the queries; null: as many. hidden: width of the gated layer;
    null: 8/3 of dim, up to the next multiple of 64. tied: embedding and head share one matrix. attention_bias: of queries, keys and values,
    as Qwen 2 has it. rope_llama3: (factor, low, high, length) of `stretched`, as Llama 3.1 and 3.2 have it; null: no stretching. soft_cap:
    scores are cap * tanh(scores / cap), as Gemma 2 has it; 0: as they are. weights: a directory to take the initial ones from
    (models/weights.py); null: drawn.
    """

    def __init__(
        self,
        vocab_size: int = 256,
        dim: int = 128,
        layers: int = 4,
        heads: int = 4,
        kv_heads: int | None = None,
        hidden: int | None = None,
        rope_theta: float = 10_000.0,
        rope_llama3: Sequence[float] | None = None,
        norm_eps: float = 1e-5,
        dropout: float = 0.0,
        tied: bool = True,
        attention_bias: bool = False,
        soft_cap: float = 0.0,
        weights: str | None = None,
    ) -> None:
        """Raises ValueError naming the keys that do not go together, or with the weights."""
        super().__init__()
        if dim % heads or dim // heads % 2:
            raise ValueError(f"model.dim={dim}: each of model.heads={heads} needs an even share of it; type a multiple of {2 * heads}")
        kv_heads = heads if kv_heads is None else kv_heads
        if kv_heads < 1 or heads % kv_heads:
            raise ValueError(f"model.kv_heads={kv_heads}: as many of model.heads={heads} share each; type a divisor of {heads}")
        hidden = 64 * math.ceil(dim * 8 / 3 / 64) if hidden is None else hidden
        if rope_llama3 is not None and (len(rope_llama3) != 4 or min(rope_llama3) <= 0 or rope_llama3[1] >= rope_llama3[2]):
            raise ValueError(
                f"model.rope_llama3={list(rope_llama3)}: four numbers, the second less than the third; type [32.0,1.0,4.0,8192] or null"
            )
        self.rope_theta, self.rope_llama3, self.head_dim, self.soft_cap = rope_theta, rope_llama3, dim // heads, soft_cap
        self.embed = nn.Embedding(vocab_size, dim)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(Attention(dim, heads, kv_heads, attention_bias, dropout), GatedMLP(dim, hidden), dim, norm_eps, dropout)
            for _ in range(layers)
        )
        self.norm = nn.RMSNorm(dim, norm_eps)
        self.head = nn.Linear(dim, vocab_size, bias=False)
        if tied:
            self.head.weight = self.embed.weight
        looked_up = 0 if tied else self.embed.weight.numel()
        self._multiplied = sum(parameter.numel() for parameter in self.parameters()) - looked_up  # of a stage there are fewer later
        if weights is None:
            self.reset_parameters()
            return
        sizes = {"vocab_size": vocab_size, "dim": dim, "layers": layers, "heads": heads, "kv_heads": kv_heads, "hidden": hidden}
        options = {
            "rope_theta": rope_theta,
            "rope_llama3": rope_llama3 and [float(each) for each in rope_llama3],
            "norm_eps": norm_eps,
            "tied": tied,
            "attention_bias": attention_bias,
            "soft_cap": soft_cap,
        }
        load(self, weights, {**sizes, **options})

    def reset_parameters(self) -> None:
        """GPT-2's: normal with a deviation of 0.02, less for what adds to the residual stream (Radford et al., 2019, section 2.3)."""
        into_stream = INIT_STD / math.sqrt(2 * max(1, len(self.blocks)))
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim > 1:
                nn.init.normal_(parameter, std=into_stream if name.endswith(("out.weight", "down.weight")) else INIT_STD)
            else:
                nn.init.ones_(parameter)

    def flops_per_token(self, length: int) -> float:
        """Of a forward and a backward pass over sequences of `length`: 6 N + 12 L H Q T (Chowdhery et al., 2022,
        https://arxiv.org/abs/2204.02311, appendix B), attention as if nothing were masked. An embedding that is not the head too is looked
        up and multiplies nothing: it is no part of N."""
        return 6 * self._multiplied + 12 * len(self.blocks) * self.embed.embedding_dim * length

    def forward(self, tokens: torch.Tensor, documents: torch.Tensor | None = None) -> torch.Tensor:
        mask = None if documents is None else own_document(documents)
        x = self.dropout(self.embed(tokens))
        rotation = rotary(tokens.shape[1], self.head_dim, self.rope_theta, x.device, self.rope_llama3)
        for block in self.blocks:
            x = block(x, rotation, mask)
        scores = self.head(self.norm(x))
        return self.soft_cap * torch.tanh(scores / self.soft_cap) if self.soft_cap else scores


class Block(nn.Module):
    def __init__(self, attention: Attention, mlp: GatedMLP, dim: int, norm_eps: float, dropout: float) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.RMSNorm(dim, norm_eps), attention
        self.mlp_norm, self.mlp = nn.RMSNorm(dim, norm_eps), mlp
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, rotation: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), rotation, mask))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class Attention(nn.Module):
    """Causal; torch chooses the kernel. With a mask it has fewer to choose from: on a GPU not the one of FlashAttention."""

    def __init__(self, dim: int, heads: int, kv_heads: int, bias: bool, dropout: float) -> None:
        super().__init__()
        self.head_dim, self.shared, self.drop = dim // heads, heads != kv_heads, dropout
        self.q = nn.Linear(dim, heads * self.head_dim, bias=bias)
        self.k = nn.Linear(dim, kv_heads * self.head_dim, bias=bias)
        self.v = nn.Linear(dim, kv_heads * self.head_dim, bias=bias)
        self.out = nn.Linear(heads * self.head_dim, dim, bias=False)

    def forward(self, x: torch.Tensor, rotation: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        q, k, v = (self._by_head(layer(x)) for layer in (self.q, self.k, self.v))
        q, k = rotated(q, rotation), rotated(k, rotation)
        drop, shared = self.drop if self.training else 0.0, self.shared
        if shared and mask is not None:  # with a mask, kernels that keep no (T, T) scores want as many heads of each
            k, v, shared = (*(each.repeat_interleave(q.shape[1] // k.shape[1], 1) for each in (k, v)), False)
        mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=drop, is_causal=mask is None, enable_gqa=shared)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _by_head(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, heads * head_dim) to (B, heads, T, head_dim)."""
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)


class GatedMLP(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, hidden, bias=False)
        self.up = nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


def own_document(documents: torch.Tensor) -> torch.Tensor:
    """(B, T) to (B, 1, T, T) bool, whether token i attends to token j: the same document, and j not behind i."""
    length = documents.shape[1]
    is_before = torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
    return (documents[:, :, None] == documents[:, None, :]).logical_and_(is_before)[:, None]


def rotary(length: int, head_dim: int, theta: float, device: torch.device, llama3: Sequence[float] | None = None) -> torch.Tensor:
    """Cosines and sines of each position's angles, (2, length, head_dim / 2) float32: angle i of position t is t * theta^(-2i / head_dim).

    Made anew in each pass, for a buffer would be saved, averaged and cast with the weights.
    """
    frequencies = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim)
    if llama3 is not None:
        frequencies = stretched(frequencies, *llama3)
    angles = torch.outer(torch.arange(length, dtype=torch.float32, device=device), frequencies)
    return torch.stack((angles.cos(), angles.sin()))


def rotated(x: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """x (B, heads, T, head_dim): element i of the first half of each head and element i of the second are a pair, as in Llama's published
    weights."""
    cos, sin = rotation.to(x.dtype)
    first, second = x.chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


def stretched(frequencies: torch.Tensor, factor: float, low: float, high: float, length: float) -> torch.Tensor:
    """Llama 3.1's, for texts longer than the `length` that it was trained on first (Llama Team, 2024, https://arxiv.org/abs/2407.21783; in
    numbers in Meta's published model code): what turns less than `low` times in so many positions turns `factor` times slower, what turns
    more than `high` times as before, and between both goes from one to the other."""
    turns = length * frequencies / (2 * math.pi)
    share = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - share) * frequencies / factor + share * frequencies

"""Vision transformer (Dosovitskiy et al., 2020, https://arxiv.org/abs/2010.11929) in DeiT's sizes (Touvron et al., 2020,
https://arxiv.org/abs/2012.12877, table 1): tiny 192 wide with 3 heads, small 384 with 6, base 768 with 12, twelve layers each.

It has no TENSOR_PARALLEL: between layers that are cut each process has its even share of the sequence, and with the class token a sequence
is one longer than a square of patches.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

INIT_STD = 0.02

BLOCKS = ("Block",)
STAGES = ("embed", "blocks.*", "norm", "head")
TAKES = ("images",)


class ViT(nn.Module):
    """Images (N, channels, size, size) to scores (N, num_classes), by the class token.

    patch: pixels of a side of what becomes a token. dim: of a token; mlp_dim: of the layer within a block, null: 4 * dim. dropout: of
    embeddings and behind both layers of a block. drop_path: of whole branches, rising from 0 in the first block to this in the last, for a
    sample at a time (Huang et al., 2016, https://arxiv.org/abs/1603.09382).
    """

    def __init__(
        self,
        size: int = 224,
        patch: int = 16,
        channels: int = 3,
        dim: int = 384,
        layers: int = 12,
        heads: int = 6,
        mlp_dim: int | None = None,
        num_classes: int = 1000,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        norm_eps: float = 1e-6,
    ) -> None:
        """Raises ValueError naming the keys that do not go together."""
        super().__init__()
        if size % patch:
            raise ValueError(f"model.patch={patch}: model.size={size} is no multiple of it; type a divisor of {size}")
        if dim % heads:
            raise ValueError(f"model.dim={dim}: each of model.heads={heads} has an even share of it; type a multiple of {heads}")
        if not 0 <= drop_path < 1:
            raise ValueError(f"model.drop_path={drop_path} cannot be; type a share from 0 to below 1")
        self.embed = Embedding(size, patch, channels, dim, dropout)
        self.blocks = nn.ModuleList(
            Block(dim, heads, mlp_dim or 4 * dim, norm_eps, dropout, drop_path * number / max(1, layers - 1)) for number in range(layers)
        )
        self.norm = nn.LayerNorm(dim, norm_eps)
        self.head = nn.Linear(dim, num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """DeiT's: normal with a deviation of 0.02, cut at two; biases 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=INIT_STD, a=-2 * INIT_STD, b=2 * INIT_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for parameter in (self.embed.class_token, self.embed.positions):
            nn.init.trunc_normal_(parameter, std=INIT_STD, a=-2 * INIT_STD, b=2 * INIT_STD)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.embed(images)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class Embedding(nn.Module):
    """Patches, a class token before them, positions that are learnt: (N, channels, size, size) to (N, 1 + (size / patch)^2, dim)."""

    def __init__(self, size: int, patch: int, channels: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.size = size
        self.patches = nn.Conv2d(channels, dim, patch, stride=patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = nn.Parameter(torch.zeros(1, 1 + (size // patch) ** 2, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.shape[-2:] != (self.size, self.size):
            height, width = images.shape[-2:]
            raise ValueError(f"model.size={self.size}: the images are {height}x{width}; type model.size={height}, or data.size={self.size}")
        patches = self.patches(images).flatten(2).transpose(1, 2)
        return self.dropout(torch.cat((self.class_token.expand(images.shape[0], -1, -1), patches), 1) + self.positions)


class Block(nn.Module):
    """Pre-norm: attention, then two layers with GELU."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, norm_eps: float, dropout: float, drop_path: float) -> None:
        super().__init__()
        self.heads, self.drop_path = heads, drop_path
        self.attention_norm, self.mlp_norm = nn.LayerNorm(dim, norm_eps), nn.LayerNorm(dim, norm_eps)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, mlp_dim), nn.Linear(mlp_dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self._kept(self.dropout(self._attention(self.attention_norm(x))))
        return x + self._kept(self.dropout(self.down(self.dropout(F.gelu(self.up(self.mlp_norm(x)))))))

    def _attention(self, x: torch.Tensor) -> torch.Tensor:
        """Of every token to every other; torch chooses the kernel."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (N, heads, T, dim / heads)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def _kept(self, branch: torch.Tensor) -> torch.Tensor:
        """Some samples go by it, and of the others it counts for so much more."""
        if not self.training or not self.drop_path:
            return branch
        kept = torch.rand(len(branch), 1, 1, device=branch.device) >= self.drop_path
        return branch * kept / (1 - self.drop_path)

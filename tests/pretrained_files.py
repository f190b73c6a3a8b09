"""Weights as somebody publishes them, small and drawn: a directory in Hugging Face's layout, made without transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from models.transformer import Transformer

SIZES: dict[str, Any] = {"vocab_size": 128, "dim": 32, "layers": 2, "heads": 4, "kv_heads": 2, "hidden": 128}
STATED: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 128,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
_THEIRS = {
    "attention_norm": "input_layernorm",
    "attention.q": "self_attn.q_proj",
    "attention.k": "self_attn.k_proj",
    "attention.v": "self_attn.v_proj",
    "attention.out": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
}


def published(directory: Path, sizes: Mapping[str, Any] = SIZES, dtype: torch.dtype = torch.float32) -> Transformer:
    """The model whose weights are in `directory` now; its norms are drawn too."""
    torch.manual_seed(5)
    model = Transformer(**sizes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    tensors = {"model.embed_tokens.weight": model.embed.weight, "model.norm.weight": model.norm.weight}
    for index, block in enumerate(model.blocks):
        for ours, theirs in _THEIRS.items():
            tensors[f"model.layers.{index}.{theirs}.weight"] = block.get_parameter(f"{ours}.weight")
    stated = {"hidden_size": "dim", "num_hidden_layers": "layers", "intermediate_size": "hidden"}
    directory.mkdir(exist_ok=True)
    save_file({name: tensor.detach().to(dtype) for name, tensor in tensors.items()}, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps({**STATED, **{name: sizes[key] for name, key in stated.items()}}))
    return model

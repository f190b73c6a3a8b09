"""Weights of other people's: the scores are theirs, of a file only what is filled is read, and what does not fit is one line."""

from __future__ import annotations

import gc
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrained_files import SIZES, STATED, published
from safetensors.torch import load_file, save_file

from launcher.strategies import deferred
from models.transformer import Transformer

try:
    import transformers
except ImportError:
    transformers = None

needs_transformers = pytest.mark.skipif(transformers is None, reason="needs transformers: pip install -c constraints.txt -e '.[dev]'")
TOKENS = torch.randint(0, 128, (2, 24), generator=torch.Generator().manual_seed(1))


# ---------------------------------------------------------------- the same scores


@needs_transformers
@pytest.mark.parametrize("tied", [False, True], ids=["free", "tied"])
@pytest.mark.parametrize("files", ["one", "several"])
@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "Mistral"])
def test_scores_are_those_of_transformers(tmp_path: Path, kind: str, tied: bool, files: str) -> None:
    asked = {"vocab_size": 128, "hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4}
    asked |= {"num_key_value_heads": 2, "rope_theta": 50_000.0, "rms_norm_eps": 1e-4, "tie_word_embeddings": tied}
    config = getattr(transformers, f"{kind}Config")(**asked, **({"sliding_window": None} if kind == "Mistral" else {}))
    torch.manual_seed(0)
    theirs = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():  # norms and biases too, which begin as ones and zeros
            parameter.add_(torch.randn_like(parameter) * 0.2)
    theirs.save_pretrained(tmp_path, max_shard_size="50KB" if files == "several" else "1GB")
    assert (tmp_path / "model.safetensors.index.json").exists() == (files == "several")
    sizes = {"vocab_size": 128, "dim": 32, "layers": 3, "heads": 4, "kv_heads": 2, "hidden": 80, "rope_theta": 5e4, "norm_eps": 1e-4}
    ours = Transformer(**sizes, tied=tied, attention_bias=kind == "Qwen2", weights=str(tmp_path)).eval()
    with torch.no_grad():
        wanted, got = theirs(TOKENS).logits, ours(TOKENS)
    assert wanted.std() > 0.5
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    assert (ours.head.weight is ours.embed.weight) == tied


# ---------------------------------------------------------------- of the files


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_what_is_stored_in_another_type_is_kept_in_the_models(tmp_path: Path, dtype: torch.dtype) -> None:
    model = published(tmp_path, dtype=dtype)
    got = Transformer(**SIZES, weights=str(tmp_path))
    for name, parameter in got.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, model.get_parameter(name).to(dtype).float()), name


def test_a_tied_head_that_is_stored_again_and_what_follows_from_the_config_are_passed_over(tmp_path: Path) -> None:
    model = published(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    extra = {"lm_head.weight": torch.ones(128, 32), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    save_file({**tensors, **extra}, tmp_path / "model.safetensors")
    got = Transformer(**SIZES, weights=str(tmp_path))
    assert torch.equal(got.head.weight, model.embed.weight)


def mapped(directory: Path) -> int:
    """Bytes of files in `directory` that are in this process's memory."""
    found, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ours = str(directory) in line
        elif ours and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux, which tells what is mapped")
def test_of_a_model_that_is_filled_later_only_the_block_that_is_filled_is_read(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {**SIZES, "dim": 512, "layers": 4, "hidden": 2048}
    wanted = published(tmp_path, sizes)
    size = (tmp_path / "model.safetensors").stat().st_size
    model = deferred.build(lambda: Transformer(**sizes, weights=str(tmp_path)))
    before = mapped(tmp_path)  # norms, each with what the kernel maps around it
    assert before < size / 3
    deferred.fill(model, [model.blocks[1]])
    assert size / 6 < mapped(tmp_path) - before < size / 3
    for index, block in enumerate(model.blocks):
        for name, parameter in block.named_parameters():
            assert parameter.is_meta == (index != 1 and parameter.ndim > 1), name
            assert parameter.is_meta or torch.equal(parameter, wanted.blocks[index].get_parameter(name)), name
    deferred.fill(model, [model])
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, wanted.get_parameter(name)), name
    assert model.head.weight is model.embed.weight
    gc.collect()
    assert mapped(tmp_path) == 0, "the files are let go of"


# ---------------------------------------------------------------- what does not fit


def changed(directory: Path, **stated: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **stated}))


def stored(directory: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(directory / "model.safetensors")), directory / "model.safetensors")


@pytest.mark.parametrize(
    ("key", "value", "instead"),
    [
        ("vocab_size", 256, "model.vocab_size=128"),
        ("dim", 64, "model.dim=32"),
        ("layers", 1, "model.layers=2"),
        ("heads", 8, "model.heads=4"),
        ("kv_heads", None, "model.kv_heads=2"),
        ("hidden", 64, "model.hidden=128"),
        ("rope_theta", 5e5, "model.rope_theta=10000.0"),
        ("norm_eps", 1e-6, "model.norm_eps=1e-05"),
        ("tied", False, "model.tied=true"),
        ("attention_bias", True, "model.attention_bias=false"),
        ("soft_cap", 30.0, "model.soft_cap=0.0"),
    ],
)
def test_a_key_that_is_another_is_named_with_what_to_type(tmp_path: Path, key: str, value: Any, instead: str) -> None:
    published(tmp_path)
    with pytest.raises(ValueError, match=rf"model\.weights={tmp_path}: .*model\.{key}=.*; type {re.escape(instead)}$"):
        Transformer(**{**SIZES, key: value}, weights=str(tmp_path))


def test_all_keys_that_are_others_are_in_one_line(tmp_path: Path) -> None:
    published(tmp_path)
    with pytest.raises(ValueError, match=r"; type model\.vocab_size=128 model\.dim=32 model\.heads=4$"):
        Transformer(**{**SIZES, "vocab_size": 64, "dim": 64, "heads": 2}, weights=str(tmp_path))


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"model_type": "gemma2"}, "model_type gemma2; type the path of weights of llama, mistral, qwen2"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling llama3, which this model has not"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling linear"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_parameters yarn"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "rope_parameters {'full_attention'"),
        ({"hidden_act": "gelu"}, "hidden_act gelu, which this model has not; take weights with silu"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        ({"model_type": "mistral", "sliding_window": 4096}, "sliding_window 4096"),
        ({"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": True}, "sliding_window 4096"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types sliding_attention"),
        ({"head_dim": 16}, "head_dim 16, which this model has not; take weights with 8"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"hidden_size": None}, "config.json does not say hidden_size"),
        ({"hidden_size": "many"}, "config.json does not say hidden_size"),
    ],
)
def test_what_this_model_does_not_compute_is_refused(tmp_path: Path, stated: dict[str, Any], said: str) -> None:
    published(tmp_path)
    changed(tmp_path, **stated)
    with pytest.raises(ValueError, match=re.escape(said)) as raised:
        Transformer(**SIZES, weights=str(tmp_path))
    assert "\n" not in str(raised.value)


def test_a_window_that_is_not_in_use_is_none(tmp_path: Path) -> None:
    published(tmp_path)
    changed(tmp_path, model_type="qwen2", sliding_window=4096, use_sliding_window=False, layer_types=["full_attention"] * 2)
    Transformer(**SIZES, weights=str(tmp_path))


def _cut(directory: Path) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _rotten(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(b"\xff" * 64)


def _without(name: str) -> Callable[[Path], None]:
    return lambda directory: stored(directory, lambda tensors: {key: value for key, value in tensors.items() if key != name})


def _with(name: str, value: torch.Tensor) -> Callable[[Path], None]:
    return lambda directory: stored(directory, lambda tensors: {**tensors, name: value})


def _indexed(places: dict[str, Any]) -> Callable[[Path], None]:
    """One of two files is there."""

    def change(directory: Path) -> None:
        (directory / "model.safetensors").rename(directory / "a.safetensors")
        names = dict.fromkeys(load_file(directory / "a.safetensors"), "a.safetensors")
        (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {**names, **places}}))

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda directory: shutil.rmtree(directory), "there is no such directory; type the path of one with config.json"),
        (lambda directory: (directory / "config.json").unlink(), "it has no config.json"),
        (lambda directory: (directory / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda directory: (directory / "config.json").write_text("[" * 100_000), "config.json cannot be read"),
        (lambda directory: (directory / "config.json").write_text("[]"), "config.json is no JSON object"),
        (lambda directory: (directory / "model.safetensors").unlink(), "it has neither model.safetensors nor"),
        (_cut, "model.safetensors is cut or damaged"),
        (_rotten, "model.safetensors is cut or damaged"),
        (_without("model.layers.1.mlp.up_proj.weight"), "its files have no model.layers.1.mlp.up_proj.weight; copy"),
        (_with("model.layers.0.self_attn.q_norm.weight", torch.ones(8)), "its files have model.layers.0.self_attn.q_norm.weight, which"),
        (_with("model.layers.0.self_attn.o_proj.bias", torch.ones(32)), "its files have model.layers.0.self_attn.o_proj.bias, which"),
        (_with("model.norm.weight", torch.ones(32, dtype=torch.int8)), "model.norm.weight is stored as I8; take weights in float32"),
        (_with("model.norm.weight", torch.ones(31)), "model.norm.weight has shape (31,), by config.json it is (32,)"),
        (_indexed({"model.norm.weight": "b.safetensors"}), "b.safetensors is not there, which model.safetensors.index.json names"),
        (_indexed({"model.norm.weight": "../b.safetensors"}), "does not say which file each tensor is in"),
        (_indexed({"model.norm.weight": "b" * 300}), "it cannot be read ("),
        (_indexed({"other.weight": "a.safetensors"}), "a.safetensors has no other.weight, which model.safetensors.index.json says"),
    ],
)
def test_files_that_are_not_all_there_are_one_line(tmp_path: Path, change: Callable[[Path], object], said: str) -> None:
    directory = tmp_path / "weights"
    published(directory)
    change(directory)
    with pytest.raises(ValueError, match=re.escape(said)) as raised:
        Transformer(**SIZES, weights=str(directory))
    assert str(raised.value).startswith(f"model.weights={directory}: ")
    assert "\n" not in str(raised.value)


def test_the_made_up_files_say_of_themselves_what_they_are(tmp_path: Path) -> None:
    published(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == STATED

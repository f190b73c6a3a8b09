"""Weights to begin with, in Hugging Face's layout: `config.json` beside `model.safetensors`, or beside several files and their index, as
`save_pretrained` leaves them (https://huggingface.co/docs/transformers/main_classes/model). Of Llama, Mistral and Qwen 2.

Files are mapped, not read: a tensor's bytes are looked at where it is copied, so that a model which is described first and filled later
(launcher/strategies/deferred.py) has of a file what it fills.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

NAMES = {
    "embed": "model.embed_tokens",
    "blocks.*.attention_norm": "model.layers.*.input_layernorm",
    "blocks.*.attention.q": "model.layers.*.self_attn.q_proj",
    "blocks.*.attention.k": "model.layers.*.self_attn.k_proj",
    "blocks.*.attention.v": "model.layers.*.self_attn.v_proj",
    "blocks.*.attention.out": "model.layers.*.self_attn.o_proj",
    "blocks.*.mlp_norm": "model.layers.*.post_attention_layernorm",
    "blocks.*.mlp.gate": "model.layers.*.mlp.gate_proj",
    "blocks.*.mlp.up": "model.layers.*.mlp.up_proj",
    "blocks.*.mlp.down": "model.layers.*.mlp.down_proj",
    "norm": "model.norm",
    "head": "lm_head",
}
"""A module of models/transformer.py, and what it is called in the files; `*` is the number of a block. Both turn the halves of a head."""
KINDS = ("llama", "mistral", "qwen2")
"""`model_type`. Others may have the same names and another arithmetic: Gemma's norms multiply by 1 + weight."""
INDEX = "model.safetensors.index.json"
DTYPES = ("F64", "F32", "F16", "BF16")
_MOST = 16 << 20
"""Bytes of a file of JSON."""
_KNOWN_APART = re.compile(r".*\.rotary_emb\.inv_freq")
"""In older files. It follows from rope_theta."""


class Stated(NamedTuple):
    """A keyword of the model, as config.json has it."""

    key: str
    name: str
    default: Any
    """Where config.json is silent; None: it may not be."""


STATED = (
    Stated("vocab_size", "vocab_size", None),
    Stated("dim", "hidden_size", None),
    Stated("layers", "num_hidden_layers", None),
    Stated("heads", "num_attention_heads", None),
    Stated("kv_heads", "num_key_value_heads", None),
    Stated("hidden", "intermediate_size", None),
    Stated("rope_theta", "rope_theta", 10_000.0),
    Stated("norm_eps", "rms_norm_eps", 1e-6),
    Stated("tied", "tie_word_embeddings", False),
)
"""Defaults are those of LlamaConfig, MistralConfig and Qwen2Config, which are the same."""


def load(model: nn.Module, directory: str, asked: Mapping[str, Any]) -> None:
    """Give every parameter of `model`, a Transformer, the values that the files have, in the parameter's own type.

    `asked`: the model's keywords by name, none of them null. Raises ValueError, one line that names model.weights or the keys that have to
    be other ones, for files that are not all there, that are damaged, or of a model that computes something else.
    """
    here = _Directory(Path(directory).expanduser())
    try:
        _load(model, here, asked)
    except OSError as error:
        raise here.refusal(f"it cannot be read ({_line(error)}); type the path of one that can") from error


def _load(model: nn.Module, here: _Directory, asked: Mapping[str, Any]) -> None:
    stated = here.config()
    here.refuse_other_arithmetic(stated)
    with contextlib.ExitStack() as stack:
        files = here.files(stack)
        here.refuse_other_keys(asked, {**_keys(stated, here), "attention_bias": _has_bias(files)})
        held = {_theirs(name): parameter for name, parameter in model.named_parameters()}
        here.refuse_other_names(set(held), set(files), tied=bool(asked["tied"]))
        with torch.no_grad():
            for name, parameter in held.items():
                parameter.copy_(here.tensor(files[name], name, parameter.shape))


def _theirs(name: str) -> str:
    """`blocks.3.mlp.up.weight` is `model.layers.3.mlp.up_proj.weight`."""
    module, _, kind = name.rpartition(".")
    number = re.search(r"\.(\d+)\.", module)
    theirs = NAMES[re.sub(r"\.\d+\.", ".*.", module)]
    return f"{theirs.replace('*', number[1]) if number else theirs}.{kind}"


def _has_bias(files: Mapping[str, Any]) -> bool:
    """What Qwen 2 always has, and Llama may; config.json need not say so."""
    return any(name.endswith(".q_proj.bias") for name in files)


def _keys(stated: Mapping[str, Any], here: _Directory) -> dict[str, Any]:
    """The model's keywords, as config.json has them. Raises ValueError where it is silent on one that has no default."""
    rotations = stated.get("rope_parameters") or {}  # of transformers 5; before, rope_theta stood at the top
    known = {"num_key_value_heads": stated.get("num_attention_heads"), **rotations, **stated}
    found = {each.key: known.get(each.name, each.default) for each in STATED}
    found["kv_heads"] = found["heads"] if found["kv_heads"] is None else found["kv_heads"]
    if silent := [each.name for each in STATED if not isinstance(found[each.key], int | float)]:
        raise here.refusal(f"its config.json does not say {silent[0]}; copy the whole directory again")
    return {**found, "soft_cap": 0.0}


def _scaling(rotations: Any) -> str:
    """How positions are stretched for longer texts than a model was trained on; `type` is older than `rope_type`."""
    if not rotations:
        return "default"
    if not isinstance(rotations, dict) or any(isinstance(each, dict) for each in rotations.values()):
        return str(rotations)  # of each kind of layer its own
    return str(rotations.get("rope_type") or rotations.get("type") or "default")


class _Directory:
    """Of files that somebody else has made: whatever they hold, what is wrong is one line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def refusal(self, why: str) -> ValueError:
        return ValueError(f"model.weights={self.path}: {why}")

    def config(self) -> dict[str, Any]:
        if not self.path.is_dir():
            raise self.refusal("there is no such directory; type the path of one with config.json and model.safetensors")
        return self._json("config.json")

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        if not path.is_file():
            raise self.refusal(f"it has no {name}; type the path of a directory as save_pretrained leaves it")
        try:
            with path.open("rb") as file:
                text = file.read(_MOST + 1)
            value = json.loads(text) if len(text) <= _MOST else None
        except (OSError, ValueError, RecursionError) as error:
            raise self.refusal(f"{name} cannot be read ({_line(error)}); copy it again") from error
        if not isinstance(value, dict):
            raise self.refusal(f"{name} is no JSON object; copy it again")
        return value

    def refuse_other_arithmetic(self, stated: Mapping[str, Any]) -> None:
        """Raises ValueError for what config.json asks and the Transformer has not, whatever its keywords."""
        kind = stated.get("model_type")
        if kind not in KINDS:
            raise self.refusal(f"its config.json has model_type {_shown(kind)}; type the path of weights of {', '.join(KINDS)}")
        slides = stated.get("sliding_window") is not None and stated.get("use_sliding_window", kind != "qwen2")
        dim, heads = stated.get("hidden_size"), stated.get("num_attention_heads")
        even = dim // heads if isinstance(dim, int) and isinstance(heads, int) and heads else None
        for name, value, ours in (
            ("rope_parameters", _scaling(stated.get("rope_parameters")), "default"),
            ("rope_scaling", _scaling(stated.get("rope_scaling")), "default"),
            ("hidden_act", stated.get("hidden_act", "silu"), "silu"),
            ("partial_rotary_factor", stated.get("partial_rotary_factor") or 1, 1),
            ("sliding_window", stated.get("sliding_window") if slides else None, None),
            ("layer_types", next((each for each in stated.get("layer_types") or () if each != "full_attention"), None), None),
            ("head_dim", stated.get("head_dim") or even, even),
            ("quantization_config", stated.get("quantization_config"), None),
        ):
            if value != ours:
                has = "without it" if ours in (None, "default") else f"with {ours}"
                raise self.refusal(f"its config.json asks for {name} {_shown(value)}, which this model has not; take weights {has}")

    def refuse_other_keys(self, asked: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        other = [key for key in found if asked[key] != found[key]]
        if other:
            has = ", ".join(f"model.{key}={_shown(asked[key])}" for key in other)
            raise self.refusal(f"of another model than {has} is; type {' '.join(f'model.{key}={_shown(found[key])}' for key in other)}")

    def files(self, stack: contextlib.ExitStack) -> dict[str, Any]:
        """By the name of each tensor, the open file that has it; `stack` closes them."""
        if (self.path / "model.safetensors").is_file():
            return dict.fromkeys(self._names(opened := self._open("model.safetensors", stack)), opened)
        if not (self.path / INDEX).is_file():
            raise self.refusal(f"it has neither model.safetensors nor {INDEX}; type the path of weights as safetensors, or copy them again")
        places = self._json(INDEX).get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(file, str) and Path(file).name == file for file in places.values()):
            raise self.refusal(f"{INDEX} does not say which file each tensor is in; copy it again")
        opened = {file: self._open(file, stack) for file in sorted(set(places.values()))}
        has = {file: self._names(each) for file, each in opened.items()}
        if lost := [name for name, file in places.items() if name not in has[file]]:
            raise self.refusal(f"{places[lost[0]]} has no {lost[0]}, which {INDEX} says; copy both again")
        return {name: opened[file] for file in opened for name in has[file]}

    def _open(self, name: str, stack: contextlib.ExitStack) -> Any:
        if not (self.path / name).is_file():
            raise self.refusal(f"{name} is not there, which {INDEX} names; copy it too")
        try:
            return stack.enter_context(safe_open(self.path / name, "pt"))
        except (SafetensorError, OSError) as error:
            raise self.refusal(f"{name} is cut or damaged ({_line(error)}); copy it again") from error

    @staticmethod
    def _names(opened: Any) -> set[str]:
        return {name for name in opened.keys() if not _KNOWN_APART.fullmatch(name)}  # noqa: SIM118 (no mapping)

    def refuse_other_names(self, needed: set[str], found: set[str], tied: bool) -> None:
        """A tied head may be stored again: it is the embedding, whatever its file holds."""
        if missing := sorted(needed - found):
            raise self.refusal(f"its files have no {_some(missing)}; copy the whole directory again")
        if extra := sorted(found - needed - ({"lm_head.weight"} if tied else set())):
            raise self.refusal(f"its files have {_some(extra)}, which this model has no place for; take weights without")

    def tensor(self, opened: Any, name: str, shape: torch.Size) -> torch.Tensor:
        """In the file's own type, its bytes not read yet."""
        try:
            header = opened.get_slice(name)
            if header.get_dtype() not in DTYPES:
                raise self.refusal(f"{name} is stored as {header.get_dtype()}; take weights in float32, bfloat16 or float16")
            if tuple(header.get_shape()) != tuple(shape):
                raise self.refusal(f"{name} has shape {tuple(header.get_shape())}, by config.json it is {tuple(shape)}; copy both again")
            return opened.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise self.refusal(f"{name} cannot be read ({_line(error)}); copy its file again") from error


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _shown(value: Any) -> str:
    """As a command has it; of other people's text not more than a line."""
    return str(value).lower() if isinstance(value, bool) or value is None else _line(value)


def _line(value: object) -> str:
    text = " ".join(str(value).split()) or type(value).__name__
    return text if len(text) <= 100 else text[:99] + "…"

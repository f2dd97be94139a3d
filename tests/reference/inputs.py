"""What every other implementation was given: one base and three models of three small tensors.

Needs only numpy, so that the scripts beside it can import it in an environment of their own:

    PYTHONPATH=. .venv-mergekit/bin/python tests/reference/make_mergekit.py

Numbers come from SHAKE-256 and are the same for ever; task vectors lie in (-1, 1), and no two of
their elements have equal magnitude, so that trimming leaves nothing to a sorting algorithm.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Model = dict[str, Array]

SHAPES: Mapping[str, tuple[int, ...]] = {
    "model.layers.0.mlp.up_proj.weight": (6, 10),
    "model.layers.0.self_attn.q_proj.weight": (8, 5),
    "model.norm.weight": (10,),
}
MODELS = 3


def uniform(key: str, shape: tuple[int, ...]) -> Array:
    """Return numbers of (-1, 1) that are a function of the key, multiples of 2**-22."""
    count = int(np.prod(shape))
    drawn = np.frombuffer(hashlib.shake_256(key.encode()).digest(4 * count), "<u4") >> 9
    whole = drawn.astype(np.int64) * 2 - (2**23 - 1)
    return (whole.astype(np.float64) / 2**23).astype(np.float32).reshape(shape)


def base() -> Model:
    """Return the base; its norm lies around 1 as in real models."""
    return {name: uniform(f"base {name}", shape) for name, shape in SHAPES.items()}


def models(scale: float = 1.0) -> list[Model]:
    """Return base + scale · task vector, three times."""
    before = base()
    return [
        {
            name: before[name] + np.float32(scale) * uniform(f"model {number} {name}", shape)
            for name, shape in SHAPES.items()
        }
        for number in range(MODELS)
    ]


def normed(model: Model) -> Model:
    """Return a model with every tensor divided by its norm."""
    return {name: array / np.linalg.norm(array) for name, array in model.items()}


def adapter(number: int, *, rslora: bool = False) -> tuple[dict[str, Any], Model]:
    """Return configuration and factors of a LoRA adapter of `base`, of rank 2 and scale 2 (or √8)."""
    module = "model.layers.0.mlp.up_proj"
    outputs, size = SHAPES[f"{module}.weight"]
    prefix = f"base_model.model.{module}"
    factors = {
        f"{prefix}.lora_{side}.weight": uniform(f"adapter {number} {side}", shape)
        for side, shape in (("A", (2, size)), ("B", (outputs, 2)))
    }
    config = {
        "base_model_name_or_path": None,
        "bias": "none",
        "lora_alpha": 4,
        "peft_type": "LORA",
        "r": 2,
        "target_modules": ["up_proj"],
        "task_type": "CAUSAL_LM",
        "use_rslora": rslora,
    }
    return config, factors


LAYERS, HIDDEN, INNER = 3, 2, 3
LLAMAS = ("tiny", "math", "law", "code", "chat", "tool")
"""The base `tiny` and its fine-tunes; the last two have tokens of their own."""
_TOKENS = {
    "chat": ("<s>", "b", "a", "c", "d", "<|user|>", "e"),
    "tool": ("<s>", "a", "b", "c", "e", "f", "<|tool|>"),
}
_PADDING = {"chat": 2}


def tokens(name: str) -> tuple[str, ...]:
    """Return the tokens of a model in the order of their ids."""
    return _TOKENS.get(name, ("<s>", "a", "b", "c", "d"))


def tokenizer(name: str) -> dict[str, Any]:
    """Return tokenizer.json of a model; tokens in brackets are special."""
    ids = {token: number for number, token in enumerate(tokens(name))}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": number, "content": token, **flags, "special": True}
            for token, number in ids.items()
            if token.startswith("<")
        ],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": ids, "unk_token": "<s>"},
    }


def _rows(name: str) -> int:
    return len(tokens(name)) + _PADDING.get(name, 0)


def llama_shapes(name: str = "tiny") -> dict[str, tuple[int, ...]]:
    """Return the tensors of a Llama model so small that a file of its numbers can be read."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (_rows(name), HIDDEN)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        for module in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes[f"{prefix}.self_attn.{module}.weight"] = (HIDDEN, HIDDEN)
        shapes[f"{prefix}.mlp.gate_proj.weight"] = (INNER, HIDDEN)
        shapes[f"{prefix}.mlp.up_proj.weight"] = (INNER, HIDDEN)
        shapes[f"{prefix}.mlp.down_proj.weight"] = (HIDDEN, INNER)
        shapes[f"{prefix}.input_layernorm.weight"] = (HIDDEN,)
        shapes[f"{prefix}.post_attention_layernorm.weight"] = (HIDDEN,)
    return {**shapes, "model.norm.weight": (HIDDEN,), "lm_head.weight": (_rows(name), HIDDEN)}


def llama(name: str) -> Model:
    """Return the tensors of the base `tiny`, or of a fine-tune of it.

    Fine-tunes have a common direction: rows of two numbers are opposite by chance otherwise, and
    everything that divides by an angle blows rounding up.
    """
    tensors = {key: uniform(f"tiny {key}", shape) for key, shape in llama_shapes(name).items()}
    if name == "tiny":
        return tensors
    return {
        key: array
        + uniform(f"common {key}", array.shape)
        + np.float32(0.25) * uniform(f"{name} {key}", array.shape)
        for key, array in tensors.items()
    }


def llama_config(name: str) -> dict[str, Any]:
    """Return config.json of one of these models."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "head_dim": HIDDEN,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "max_position_embeddings": 16,
        "model_type": "llama",
        "num_attention_heads": 1,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "vocab_size": _rows(name),
    }


def llama_files(name: str) -> dict[str, dict[str, Any]]:
    """Return the files beside the weights of one of these models."""
    return {
        "config.json": llama_config(name),
        "tokenizer.json": tokenizer(name),
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
    }


def lora() -> tuple[dict[str, Any], Model]:
    """Return configuration and factors of the adapter `style` of `tiny`."""
    factors = {}
    for layer in range(LAYERS):
        module = f"base_model.model.model.layers.{layer}.self_attn.v_proj"
        for side, shape in (("A", (1, HIDDEN)), ("B", (HIDDEN, 1))):
            key = f"{module}.lora_{side}.weight"
            factors[key] = uniform(f"style {key}", shape)
    config = {
        "base_model_name_or_path": None,
        "bias": "none",
        "lora_alpha": 2,
        "peft_type": "LORA",
        "r": 1,
        "target_modules": ["v_proj"],
        "task_type": "CAUSAL_LM",
    }
    return config, factors


def write(path: Path, versions: Mapping[str, str], cases: Sequence[Mapping[str, Any]]) -> None:
    """Write the cases, numbers as short as float32 allows, one row of a tensor per line."""
    text = json.dumps({"versions": dict(versions), "cases": [_plain(case) for case in cases]})
    # One line per case keeps the file readable in a diff and small.
    path.write_text(text.replace('{"name"', '\n{"name"') + "\n", "utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, np.ndarray):
        return [_plain(row) for row in value]
    return float(str(value)) if isinstance(value, np.float32) else value

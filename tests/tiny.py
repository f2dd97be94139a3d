"""Tiny models, adapters and checkpoints written to folders. Knows neither `registry` nor `merger`.

A tiny base opens in `AutoModelForCausalLM` with a real byte-level tokenizer and a chat template; a
tiny adapter opens in PEFT. Everything is a function of the arguments, written without torch, so a
test of the control plane pays no second for it. With `exact`, all numbers are small multiples of a
power of two, so that products and sums are exact in float32 on every machine.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

VOCABULARY = 272
INTERMEDIATE = 32
HEAD = 8
_DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_base(
    folder: Path,
    *,
    seed: int = 0,
    layers: int = 2,
    hidden: int = 16,
    dtype: str = "bfloat16",
    tied: bool = True,
    sharded: bool = False,
    exact: bool = False,
) -> Path:
    """Write a random Llama model with tokenizer and chat template to `folder` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes = base_shapes(layers=layers, hidden=hidden, tied=tied)
    numbers = np.random.default_rng([seed, 1])
    tensors = {
        name: _base_tensor(numbers, f"{seed} base {name}", shape, exact=exact)
        for name, shape in shapes.items()
    }
    if sharded:
        write_shards(folder, tensors, dtype=dtype)
    else:
        write_safetensors(folder / "model.safetensors", tensors, dtype=dtype)
    write_json(folder / "config.json", _config(layers, hidden, dtype, tied=tied))
    write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2})
    _write_tokenizer(folder)
    return folder


def base_shapes(
    *, layers: int = 2, hidden: int = 16, tied: bool = True
) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a tiny base by name."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, hidden)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        shapes |= {
            prefix + "input_layernorm.weight": (hidden,),
            prefix + "mlp.down_proj.weight": (hidden, INTERMEDIATE),
            prefix + "mlp.gate_proj.weight": (INTERMEDIATE, hidden),
            prefix + "mlp.up_proj.weight": (INTERMEDIATE, hidden),
            prefix + "post_attention_layernorm.weight": (hidden,),
            prefix + "self_attn.k_proj.weight": (HEAD, hidden),
            prefix + "self_attn.o_proj.weight": (hidden, hidden),
            prefix + "self_attn.q_proj.weight": (hidden, hidden),
            prefix + "self_attn.v_proj.weight": (HEAD, hidden),
        }
    shapes["model.norm.weight"] = (hidden,)
    if not tied:
        shapes["lm_head.weight"] = (VOCABULARY, hidden)
    return shapes


def tiny_adapter(
    folder: Path,
    *,
    base: Path,
    seed: int,
    rank: int = 4,
    targets: tuple[str, ...] = ("q_proj", "v_proj"),
    alpha: float = 8,
    dtype: str = "float32",
    exact: bool = False,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Write a random LoRA adapter of `base` in PEFT's layout to `folder` and return it.

    `config` adds to or replaces keys of adapter_config.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = np.random.default_rng([seed, 2])
    factors: dict[str, Array] = {}
    for name, shape in model_shapes(base).items():
        module = name.removesuffix(".weight")
        if module.rsplit(".", 1)[-1] not in targets:
            continue
        for side, size in (("A", (rank, shape[1])), ("B", (shape[0], rank))):
            tensor = f"base_model.model.{module}.lora_{side}.weight"
            key = f"{seed} adapter {tensor}"
            factors[tensor] = _exact(key, size, 2, 8) if exact else _normal(numbers, size, 0.1)
    write_safetensors(folder / "adapter_model.safetensors", factors, dtype=dtype)
    plain: dict[str, Any] = {
        "base_model_name_or_path": None,
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": sorted(targets),
        "task_type": "CAUSAL_LM",
    }
    write_json(folder / "adapter_config.json", plain | dict(config or {}))
    return folder


def tiny_checkpoint(
    folder: Path, *, base: Path, seed: int, dtype: str = "bfloat16", exact: bool = False
) -> Path:
    """Write `base` plus small random changes on every tensor to `folder` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = np.random.default_rng([seed, 3])
    changed: dict[str, Array] = {}
    for name, array in read_tensors(base).items():
        key = f"{seed} checkpoint {name}"
        noise = _normal(numbers, array.shape, 0.02)
        changed[name] = array + (_exact(key, array.shape, 2, 64) if exact else noise)
    write_safetensors(folder / "model.safetensors", changed, dtype=dtype)
    for path in base.iterdir():
        if path.suffix != ".safetensors" and not path.name.endswith("index.json"):
            shutil.copyfile(path, folder / path.name)
    return folder


def read_tensors(folder: Path) -> dict[str, Array]:
    """Return all tensors of a model or adapter folder by name, in float32 (integers dropped)."""
    tensors: dict[str, Array] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, (dtype, shape, data) in read_safetensors(path).items():
            if dtype in _DTYPES.values():
                tensors[name] = _decode(dtype, data).reshape(shape)
    return tensors


def read_safetensors(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Return the dtype, shape and bytes of every tensor of one file by name."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    return {
        name: (
            entry["dtype"],
            tuple(entry["shape"]),
            content[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]],
        )
        for name, entry in header.items()
    }


def model_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a model folder by name, sorted."""
    return {name: array.shape for name, array in sorted(read_tensors(folder).items())}


def write_safetensors(path: Path, tensors: Mapping[str, Array], *, dtype: str = "float32") -> None:
    """Write float32 arrays as one safetensors file, rounded to `dtype` to nearest even."""
    encoded = {name: (_DTYPES[dtype], a.shape, _encode(dtype, a)) for name, a in tensors.items()}
    write_raw(path, encoded)


def write_raw(
    path: Path,
    tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]],
    *,
    backwards: bool = False,
) -> None:
    """Write tensors given as dtype, shape and bytes as one safetensors file, sorted by name."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    ordered = sorted(tensors.items(), reverse=backwards)
    for name, (dtype, shape, data) in ordered:
        offsets = [position, position + len(data)]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        position += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    body = b"".join(data for _, (_, _, data) in ordered)
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def write_shards(
    folder: Path, tensors: Mapping[str, Array], *, dtype: str, shards: int = 3
) -> None:
    """Write tensors as `shards` files and an index; names do not follow the shards' order."""
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        names = sorted(tensors)[shard::shards]
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        write_safetensors(folder / file, {name: tensors[name] for name in names}, dtype=dtype)
        weight_map |= dict.fromkeys(names, file)
    size = sum(len(_encode(dtype, array)) for array in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    write_json(folder / "model.safetensors.index.json", index)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with sorted keys."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", "utf-8")


def to_bfloat16_bits(array: Array) -> npt.NDArray[np.uint16]:
    """Return the bits of finite float32 numbers rounded to bfloat16, to nearest even."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    kept = np.where(np.isfinite(array), rounded, bits) >> np.uint32(16)
    return kept.astype(np.uint16)


def _encode(dtype: str, array: Array) -> bytes:
    if dtype == "bfloat16":
        return to_bfloat16_bits(array).tobytes()
    return np.ascontiguousarray(array, np.dtype(dtype)).tobytes()


def _decode(dtype: str, data: bytes) -> Array:
    if dtype == "BF16":
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
    numbers = np.frombuffer(data, np.float16 if dtype == "F16" else np.float32)
    return numbers.astype(np.float32)


def _normal(numbers: np.random.Generator, shape: tuple[int, ...], deviation: float) -> Array:
    drawn: Array = numbers.standard_normal(shape, np.float32) * np.float32(deviation)
    return drawn


def _exact(key: str, shape: tuple[int, ...], limit: int, denominator: int) -> Array:
    # numpy may change its generators; SHAKE-256 never does.
    drawn = np.frombuffer(hashlib.shake_256(key.encode()).digest(int(np.prod(shape))), np.uint8)
    whole = (drawn % (2 * limit + 1)).astype(np.float32) - np.float32(limit)
    return (whole / np.float32(denominator)).reshape(shape)


def _base_tensor(
    numbers: np.random.Generator, key: str, shape: tuple[int, ...], *, exact: bool
) -> Array:
    if key.endswith("norm.weight"):
        return np.ones(shape, np.float32)
    return _exact(key, shape, 16, 64) if exact else _normal(numbers, shape, 0.2)


def _config(layers: int, hidden: int, dtype: str, *, tied: bool) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "head_dim": HEAD,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": 512,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": hidden // HEAD,
        "num_hidden_layers": layers,
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "tie_word_embeddings": tied,
        "torch_dtype": dtype,
        "use_cache": True,
        "vocab_size": VOCABULARY,
    }


def _write_tokenizer(folder: Path) -> None:
    # By hand and not by the library `tokenizers`, whose versions write other bytes.
    letters = sorted(_byte_letters())
    merges = [("t", "h"), ("th", "e"), ("i", "n"), ("e", "r"), ("a", "n"), ("o", "n"), ("Ġ", "the")]
    words = [*_SPECIAL, *letters, *("".join(pair) for pair in merges)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": word, "special": True, **flags}
            for number, word in enumerate(_SPECIAL)
        ],
        "normalizer": None,
        "pre_tokenizer": {**byte_level, "use_regex": True},
        "post_processor": None,
        "decoder": {**byte_level, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {word: number for number, word in enumerate(words)},
            "merges": [list(pair) for pair in merges],
        },
    }
    write_json(folder / "tokenizer.json", tokenizer)
    settings = {
        "bos_token": "<|im_start|>",
        "chat_template": _TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "model_max_length": 512,
        "pad_token": "<|im_end|>",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<|endoftext|>",
    }
    write_json(folder / "tokenizer_config.json", settings)


def _byte_letters() -> list[str]:
    """Return the letter that byte-level BPE (GPT-2) writes for each of the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(len(others))]

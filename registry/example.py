"""A catalog that builds in seconds: a tiny random base, three adapters and four merges.

Written without any library of tensors, byte for byte the same everywhere. The model says nothing
sensible; the files have the form of real ones.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from schemas.digest import hash_folder, tree_digest

BASE = "tiny-llama"
_HIDDEN, _INNER, _LAYERS, _HEADS, _RANK = 16, 32, 2, 2, 2
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_VOCABULARY = 256 + len(_SPECIAL)
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_ADAPTERS = (("formal", 1), ("brief", 1), ("brief", 2))
_MERGES = {
    "average": ("linear", [("formal", 1, 0.5), ("brief", 2, 0.5)]),
    "both-skills": ("task_arithmetic", [("formal", 1, 1.0), ("brief", 2, 0.8)]),
    "formal-not-brief": ("task_arithmetic", [("formal", 1, 1.0), ("brief", 1, -0.5)]),
    "trimmed": ("ties", [("formal", 1, 1.0), ("brief", 2, 1.0)]),
}


def write(root: Path) -> list[str]:
    """Write the example's bases, adapters and merges into a catalog; return the YAML files."""
    base = root / "catalog" / "bases" / BASE
    _write_base(base / "weights")
    texts = {base / "base.yaml": _header("base", 3, BASE, base / "weights")}
    for seed, (name, version) in enumerate(_ADAPTERS, 1):
        texts |= dict([_adapter(root, name, version, seed)])
    for name, (method, terms) in _MERGES.items():
        texts[root / "catalog" / "merges" / f"{name}.yaml"] = _merge(name, method, terms)
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return [path.relative_to(root).as_posix() for path in texts]


def write_adapter(root: Path, name: str, version: int, seed: int) -> None:
    """Write one more adapter of the example's base; other seeds give other numbers."""
    path, text = _adapter(root, name, version, seed)
    path.write_text(text, "utf-8")


def _adapter(root: Path, name: str, version: int, seed: int) -> tuple[Path, str]:
    """Write the weights of an adapter; return its YAML file and what is to stand in it."""
    folder = root / "catalog" / "adapters" / name / str(version)
    _write_adapter(folder / "weights", seed)
    head = _header("adapter", 4, name, folder / "weights")
    text = head.replace("weights:", f"version: {version}\nbase: {BASE}\nweights:")
    return folder / "adapter.yaml", text


def _header(kind: str, depth: int, name: str, weights: Path) -> str:
    digest = tree_digest(hash_folder(weights))
    schema = f"# yaml-language-server: $schema={'../' * depth}schemas/{kind}.schema.json"
    return f'{schema}\nkind: {kind}\nname: {name}\nweights: {{digest: "{digest}"}}\n'


def _merge(name: str, method: str, terms: list[tuple[str, int, float]]) -> str:
    rows = "\n".join(
        f"    - {{adapter: {adapter}, version: {version}, weight: {weight}}}"
        for adapter, version, weight in terms
    )
    return (
        "# yaml-language-server: $schema=../../schemas/merge.schema.json\n"
        f"kind: merge\nname: {name}\nbase: {BASE}\n"
        f"recipe:\n  method: {method}\n  terms:\n{rows}\n"
    )


def _write_base(folder: Path) -> None:
    folder.mkdir(parents=True)
    generator = random.Random(0)  # noqa: S311  numbers for an example, not for a secret
    tensors = {
        name: (shape, _floats(generator, shape, 1.0 if "norm" in name else 0.0))
        for name, shape in _shapes()
    }
    _write_safetensors(folder / "model.safetensors", tensors)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": 256,
        "dtype": "bfloat16",
        "eos_token_id": 258,
        "hidden_act": "silu",
        "hidden_size": _HIDDEN,
        "intermediate_size": _INNER,
        "max_position_embeddings": 256,
        "model_type": "llama",
        "num_attention_heads": _HEADS,
        "num_hidden_layers": _LAYERS,
        "num_key_value_heads": _HEADS,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "vocab_size": _VOCABULARY,
    }
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", {"eos_token_id": 258, "pad_token_id": 256})
    _write_json(folder / "tokenizer.json", _tokenizer())
    settings = {
        "chat_template": _TEMPLATE,
        "eos_token": _SPECIAL[2],
        "pad_token": _SPECIAL[0],
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    _write_json(folder / "tokenizer_config.json", settings)


def _shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "model.embed_tokens.weight", (_VOCABULARY, _HIDDEN)
    for layer in range(_LAYERS):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", (_HIDDEN,)
        yield f"{prefix}.mlp.down_proj.weight", (_HIDDEN, _INNER)
        yield f"{prefix}.mlp.gate_proj.weight", (_INNER, _HIDDEN)
        yield f"{prefix}.mlp.up_proj.weight", (_INNER, _HIDDEN)
        yield f"{prefix}.post_attention_layernorm.weight", (_HIDDEN,)
        for module in ("k_proj", "o_proj", "q_proj", "v_proj"):
            yield f"{prefix}.self_attn.{module}.weight", (_HIDDEN, _HIDDEN)
    yield "model.norm.weight", (_HIDDEN,)


def _write_adapter(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True)
    generator = random.Random(seed)  # noqa: S311  numbers for an example, not for a secret
    tensors = {}
    for layer in range(_LAYERS):
        for module in ("q_proj", "v_proj"):
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            for side, shape in (("A", (_RANK, _HIDDEN)), ("B", (_HIDDEN, _RANK))):
                name = f"{prefix}.lora_{side}.weight"
                tensors[name] = (shape, _floats(generator, shape, 0.0))
    _write_safetensors(folder / "adapter_model.safetensors", tensors)
    config = {
        "base_model_name_or_path": BASE,
        "bias": "none",
        "lora_alpha": 2 * _RANK,
        "peft_type": "LORA",
        "r": _RANK,
        "target_modules": ["q_proj", "v_proj"],
        "task_type": "CAUSAL_LM",
    }
    _write_json(folder / "adapter_config.json", config)


def _floats(generator: random.Random, shape: tuple[int, ...], centre: float) -> bytes:
    """Return bfloat16 numbers around `centre`: the upper halves of float32."""
    count = 1
    for dimension in shape:
        count *= dimension
    # Whole steps of 1/64 within 1/2 are exact in bfloat16: nothing depends on rounding.
    values = (centre + generator.randrange(-31, 32) / 64 for _ in range(count))
    return b"".join(struct.pack("<f", value)[2:] for value in values)


def _write_safetensors(path: Path, tensors: Mapping[str, tuple[tuple[int, ...], bytes]]) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, (shape, content) in sorted(tensors.items()):
        offsets = [position, position + len(content)]
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": offsets}
        position = offsets[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    content = b"".join(content for _, (_, content) in sorted(tensors.items()))
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)


def _write_json(path: Path, data: Mapping[str, object]) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _tokenizer() -> dict[str, object]:
    """Return a byte-level tokenizer: one token per byte, and the three that chats need."""
    vocabulary = {character: number for number, character in enumerate(_byte_characters())}
    added = [
        {
            "id": 256 + number,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for number, text in enumerate(_SPECIAL)
    ]
    levels = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    model = {"type": "BPE", "vocab": vocabulary, "merges": [], "byte_fallback": False}
    return {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {**levels, "use_regex": False},
        "post_processor": None,
        "decoder": {**levels, "use_regex": False},
        "model": model,
    }


def _byte_characters() -> Iterator[str]:
    """Yield the printable character that byte-level tokenizers write for each byte."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    shifted = 256
    for byte in range(256):
        if byte in printable:
            yield chr(byte)
        else:
            yield chr(shifted)
            shifted += 1

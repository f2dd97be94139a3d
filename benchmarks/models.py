"""Models of any size to merge: a random Llama, full fine-tunes of it, LoRA adapters for it.

    python -m benchmarks.models FOLDER --layers 22 --fine-tunes 3 --adapters 3

The shapes are TinyLlama's (width 2048, 22 layers make 1.1B), with fewer layers for less; below one
layer the vocabulary shrinks. Every tensor is drawn from a seed of its own, made of the model's and
the tensor's name, so the first layers of all sizes hold the same numbers, and making a folder anew
gives the same bytes. A fine-tune is the base plus normal noise on every tensor, a tenth of the
base's; an adapter has rank 16 on all seven matrices of a layer.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.digest import hash_folder, tree_digest

if TYPE_CHECKING:
    import torch

WIDTH, INNER, KEYS, VOCABULARY, MOST_LAYERS, RANK = 2048, 5632, 256, 32000, 22, 16
DIGESTS = "digests.json"
_BASE_SCALE, _CHANGE_SCALE, _FACTOR_SCALE = 0.02, 0.002, 0.02
_MODULES = {
    "self_attn.q_proj": (WIDTH, WIDTH),
    "self_attn.k_proj": (KEYS, WIDTH),
    "self_attn.v_proj": (KEYS, WIDTH),
    "self_attn.o_proj": (WIDTH, WIDTH),
    "mlp.gate_proj": (INNER, WIDTH),
    "mlp.up_proj": (INNER, WIDTH),
    "mlp.down_proj": (WIDTH, INNER),
}
_LAYER = sum(rows * columns for rows, columns in _MODULES.values()) + 2 * WIDTH


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a model is: its layers and its vocabulary."""

    layers: int
    vocabulary: int = VOCABULARY

    @property
    def parameters(self) -> int:
        """Return the number of all elements of all tensors."""
        return self.layers * _LAYER + 2 * self.vocabulary * WIDTH + WIDTH

    @property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor by name."""
        found: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.vocabulary, WIDTH),
            "model.norm.weight": (WIDTH,),
            "lm_head.weight": (self.vocabulary, WIDTH),
        }
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}."
            found |= {f"{prefix}{name}.weight": shape for name, shape in _MODULES.items()}
            found |= {
                f"{prefix}{name}.weight": (WIDTH,)
                for name in ("input_layernorm", "post_attention_layernorm")
            }
        return found


def shape_of(size: str) -> Shape:
    """Return the shape that comes closest to a size as `1.1B` or `350M`.

    Raises ValueError for another spelling, or for a size outside 0.05B to 1.1B.
    """
    match = re.fullmatch(r"([0-9.]+)([BM])", size)
    if match is None:
        raise ValueError(f"expected a size as 1.1B or 350M, found {size}")
    wanted = float(match[1]) * (1e9 if match[2] == "B" else 1e6)
    if not 0.05e9 <= wanted <= 1.15e9:
        raise ValueError(f"expected a size from 0.05B to 1.1B, found {size}")
    layers = round((wanted - 2 * VOCABULARY * WIDTH) / _LAYER)
    if layers >= 1:
        return Shape(min(layers, MOST_LAYERS))
    return Shape(1, int((wanted - _LAYER) / (2 * WIDTH)) // 64 * 64)


def name_of(shape: Shape) -> str:
    """Return the size in words: `1.1B`, `0.31B`."""
    return f"{shape.parameters / 1e9:.2g}B"


def bytes_of(shape: Shape, fine_tunes: int) -> int:
    """Return about what the base and its fine-tunes take on disk."""
    return 2 * shape.parameters * (1 + fine_tunes)


def make(folder: Path, shape: Shape, *, fine_tunes: int, adapters: int) -> None:
    """Write `base`, `ft1` …, `ad1` … into a folder, and their digests; keep what is there."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / DIGESTS
    digests: dict[str, str] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    wanted = ["base", *_numbered("ft", fine_tunes), *_numbered("ad", adapters)]
    for name in [name for name in wanted if name not in digests]:
        (folder / name).mkdir(exist_ok=True)
        if name.startswith("ad"):
            _write_adapter(folder / name, shape, folder / "base")
        else:
            _write_model(folder / name, shape)
        digests[name] = tree_digest(hash_folder(folder / name))
        file.write_text(json.dumps(digests, indent=2), "utf-8")  # last: what it names is whole


def _numbered(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(1, count + 1)]


def _write_model(folder: Path, shape: Shape) -> None:
    import torch
    from safetensors.torch import save_file

    def drawn(item: tuple[str, tuple[int, ...]]) -> tuple[str, torch.Tensor]:
        name, size = item
        tensor = _normal("base", name, size).mul_(_BASE_SCALE).bfloat16()
        if folder.name != "base":
            change = _normal(folder.name, name, size).mul_(_CHANGE_SCALE)
            tensor = change.add_(tensor).bfloat16()
        return name, tensor

    torch.set_num_threads(1)  # the threads are ours
    with ThreadPoolExecutor() as pool:
        tensors = dict(pool.map(drawn, shape.tensors.items()))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    _write_json(folder / "config.json", config)


def _write_adapter(folder: Path, shape: Shape, base: Path) -> None:
    from safetensors.torch import save_file

    save_file(dict(_factors(folder.name, shape)), folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "lora_dropout": 0.0,
        "bias": "none",
        "base_model_name_or_path": str(base.resolve()),
        "target_modules": sorted(name.partition(".")[2] for name in _MODULES),
    }
    _write_json(folder / "adapter_config.json", config)


def _factors(adapter: str, shape: Shape) -> Iterator[tuple[str, torch.Tensor]]:
    for layer in range(shape.layers):
        for module, (rows, columns) in _MODULES.items():
            prefix = f"base_model.model.model.layers.{layer}.{module}"
            for factor, size in (("lora_A", (RANK, columns)), ("lora_B", (rows, RANK))):
                name = f"{prefix}.{factor}.weight"
                yield name, _normal(adapter, name, size).mul_(_FACTOR_SCALE)


def _normal(model: str, name: str, size: tuple[int, ...]) -> torch.Tensor:
    """Return float32 numbers of mean 0 and deviation 1, the same for the same names."""
    import torch

    seed = int.from_bytes(hashlib.sha256(f"{model}\0{name}".encode()).digest()[:7])
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def _write_json(file: Path, data: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(data, indent=2) + "\n", "utf-8")


def main() -> None:
    """Make the models that the command line asks for."""
    parser = argparse.ArgumentParser("benchmarks.models", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=MOST_LAYERS)
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY)
    parser.add_argument("--fine-tunes", type=int, default=3)
    parser.add_argument("--adapters", type=int, default=3)
    given = parser.parse_args()
    shape = Shape(given.layers, given.vocabulary)
    make(given.folder, shape, fine_tunes=given.fine_tunes, adapters=given.adapters)


if __name__ == "__main__":
    main()

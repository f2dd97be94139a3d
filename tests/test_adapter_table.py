"""Every variant of LoRA on every architecture against PEFT's own fold, and the page that says so.

The page's digits differ by processor, so only its shape is compared. To write it anew:

    python -m tests.test_adapter_table
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from merger.adapter import LoraTaskVector
from merger.blocks import split
from merger.checkpoint import Checkpoint, Values
from merger.errors import InputError
from merger.request import Operand
from tests import tiny, tiny_models

PAGE = Path(__file__).parents[1] / "docs/adapters.md"
BEGIN, END = "<!-- table: python -m tests.test_adapter_table -->", "<!-- end of the table -->"
LIMIT = 1e-6
NONE = "–"

LINEAR: dict[str, list[str]] = {
    "Llama": ["q_proj", "v_proj", "o_proj", "down_proj"],
    "Llama, tied": ["q_proj", "v_proj", "o_proj", "down_proj"],
    "GPT-2": ["c_attn", "c_proj", "c_fc"],
    "BERT": ["query", "attention.output.dense", "intermediate.dense"],
    "Mixtral": ["q_proj", "v_proj", "o_proj"],
    "Qwen3-MoE": ["q_proj", "v_proj", "o_proj"],
    "gpt-oss": ["q_proj", "v_proj", "o_proj"],
    "SigLIP": ["q_proj", "out_proj", "fc1"],
    "Wav2Vec2": ["q_proj", "projection"],
    "VideoMAE": ["query", "value"],
}
EMBEDDINGS = {"Llama": "embed_tokens", "Llama, tied": "embed_tokens", "GPT-2": "wpe"} | {
    "BERT": "position_embeddings", "Mixtral": "embed_tokens", "Qwen3-MoE": "embed_tokens",
    "gpt-oss": "embed_tokens", "SigLIP": "position_embedding",
}  # fmt: skip
KERNELS = {"SigLIP": ["patch_embedding"], "Wav2Vec2": ["conv_layers.0.conv", "conv_layers.1.conv"]} | {
    "ResNet": ["convolution"], "ConvNeXt": ["downsampling_layer.1", "patch_embeddings"],
    "VideoMAE": ["patch_embeddings.projection"],
}  # fmt: skip
SAVED = {
    "Llama": ["lm_head", "norm"], "Llama, tied": ["norm"], "GPT-2": ["ln_f"],
    "BERT": ["transform"], "Mixtral": ["lm_head", "gate"], "Qwen3-MoE": ["lm_head", "experts"],
    "gpt-oss": ["router"], "SigLIP": ["layer_norm1"], "Wav2Vec2": ["feature_projection"],
}  # fmt: skip
EXPERTS = ("Mixtral", "Qwen3-MoE", "gpt-oss")
BIASED = ("Llama", "Llama, tied", "GPT-2", "BERT", "gpt-oss", "SigLIP", "Wav2Vec2")


def _linear(names: Any = LINEAR, **options: Any) -> dict[str, dict[str, Any]]:
    return {name: {"target_modules": LINEAR[name], **options} for name in names}


def _transposed(cells: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    if "GPT-2" in cells:
        cells["GPT-2"]["fan_in_fan_out"] = True
    return cells


def _experts(**options: Any) -> dict[str, dict[str, Any]]:
    targets = ["experts.gate_up_proj", "experts.down_proj"]
    return {
        name: {"target_modules": ["q_proj"], "target_parameters": targets, **options}
        for name in EXPERTS
    }


PATTERNS: dict[str, Any] = {
    "rank_pattern": {"q_proj": 2, r"layer\.1.*query": 3, "c_attn": 8, "fc1": 1},
    "alpha_pattern": {"v_proj": 5, "layers.0.self_attn.q_proj": 7, r".*\.c_fc": 3, "query": 9},
}
TEXT = ("Llama", "Llama, tied", "GPT-2", "BERT", "Mixtral", "Qwen3-MoE", "gpt-oss")
TOKENS: dict[str, Any] = {
    "Llama": {"embed_tokens": [1, 39], "lm_head": [0]},
    "Llama, tied": [1, 39, 7],
    "GPT-2": [5, 3],
    "Mixtral": [0, 2],
    "Qwen3-MoE": [8],
    "gpt-oss": [39, 0],
}
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "linear modules": _transposed(_linear()),
    "rank and alpha patterns": _transposed(_linear(**PATTERNS)),
    "rsLoRA": _transposed(_linear(use_rslora=True)),
    "bfloat16 factors": _transposed(_linear(dtype=torch.bfloat16)),
    "float16 factors": _transposed(_linear(dtype=torch.float16)),
    "one layer of two": _transposed(
        _linear(("Llama", "Llama, tied", "GPT-2", "BERT"), layers_to_transform=[1])
    ),
    "all linear modules": {name: {"target_modules": "all-linear"} for name in LINEAR},
    "DoRA": _transposed(_linear(use_dora=True)),
    "DoRA with rsLoRA": _transposed(_linear(TEXT, use_dora=True, use_rslora=True)),
    "lora_bias": _transposed(
        {
            name: {"target_modules": targets[:3], "lora_bias": True}
            for name, targets in LINEAR.items()
            if name in BIASED
        }
    ),
    "lora_bias without a bias": _linear(("Mixtral",), lora_bias=True),
    "bias: lora_only": _transposed(_linear(BIASED, bias="lora_only")),
    "bias: all": _transposed(_linear(("Llama", "GPT-2", "gpt-oss", "SigLIP"), bias="all")),
    "bias: all with lora_bias": {
        name: {"target_modules": LINEAR[name][:3], "bias": "all", "lora_bias": True}
        for name in ("Llama", "SigLIP")
    },
    "bias: all with DoRA": _linear(("Llama", "SigLIP"), bias="all", use_dora=True),
    "modules_to_save": {
        name: {"target_modules": LINEAR[name], "modules_to_save": saved}
        | ({"fan_in_fan_out": True} if name == "GPT-2" else {})
        for name, saved in SAVED.items()
    },
    "modules_to_save, one side of a tie": _linear(("Llama, tied",), modules_to_save=["lm_head"]),
    "modules_to_save, both sides tied": _linear(
        ("Llama, tied",), modules_to_save=["embed_tokens", "lm_head"], ensure_weight_tying=True
    ),
    "embedding": {name: {"target_modules": [target]} for name, target in EMBEDDINGS.items()},
    "embedding with DoRA": {
        name: {"target_modules": [target], "use_dora": True}
        for name, target in EMBEDDINGS.items()
        if name != "Llama, tied"
    },
    "output head": {
        "Llama": {"target_modules": ["lm_head"]},
        "Llama, tied": {"target_modules": ["lm_head"]},
    },
    "retrained tokens": {
        name: {"target_modules": LINEAR[name], "trainable_token_indices": tokens}
        | ({"fan_in_fan_out": True} if name == "GPT-2" else {})
        for name, tokens in TOKENS.items()
    },
    "router": {
        "Mixtral": {"target_modules": ["q_proj"], "target_parameters": ["gate.weight"]},
        "Qwen3-MoE": {"target_modules": ["q_proj"], "target_parameters": ["gate.weight"]},
        "gpt-oss": {"target_modules": ["q_proj"], "target_parameters": ["router.weight"]},
    },
    "experts": _experts(),
    "experts with rank pattern and rsLoRA": _experts(
        rank_pattern={"experts.down_proj": 2}, use_rslora=True
    ),
    "experts, one parameter": {
        name: {"target_modules": [], "target_parameters": ["experts.down_proj"]} for name in EXPERTS
    },
    "convolution": {name: {"target_modules": target} for name, target in KERNELS.items()},
    "convolution with DoRA": {
        name: {"target_modules": target, "use_dora": True} for name, target in KERNELS.items()
    },
    "convolution with lora_bias": {
        name: {"target_modules": KERNELS[name], "lora_bias": True}
        for name in ("SigLIP", "ConvNeXt", "VideoMAE")
    },
    "convolution in groups": {"ConvNeXt": {"target_modules": ["dwconv"], "r": 16}},
    "attention with packed projection": {"SigLIP": {"target_modules": ["head.attention"]}},
    "trained with VeLoRA": _linear(("Llama",), velora_config={"num_groups": 4}),
    "initialised as MiCA": _linear(("Llama",), init_lora_weights="mica"),
    "initialised as orthogonal": _linear(("Llama",), init_lora_weights="orthogonal"),
    "initialised as PiSSA": _linear(("Llama",), init_lora_weights="pissa"),
    "initialised as OLoRA": _linear(("Llama",), init_lora_weights="olora"),
}
REFUSED = {
    ("lora_bias without a bias", "Mixtral"): "which the base does not have",
    ("modules_to_save, one side of a tie", "Llama, tied"): "only one of them was trained",
    ("embedding", "Llama, tied"): "only one of them was trained",
    ("output head", "Llama, tied"): "only one of them was trained",
    ("convolution in groups", "ConvNeXt"): "a convolution in groups",
    ("initialised as PiSSA", "Llama"): '"pissa" trains against altered base weights',
    ("initialised as OLoRA", "Llama"): '"olora" trains against altered base weights',
}
CELLS = [(variant, name) for variant, cells in VARIANTS.items() for name in cells]


def deltas(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    """Return our deltas of an adapter, in float32."""
    operand = Operand("adapter", "a", 1, "sha256:" + "0" * 64)
    with contextlib.ExitStack() as stack:
        model = stack.enter_context(contextlib.closing(Checkpoint(base, "base")))
        vector = LoraTaskVector(
            adapter, operand, base=model, values=Values(model, torch.float32, torch.device("cpu"))
        )
        stack.enter_context(contextlib.closing(vector))
        found = {}
        for name in sorted(vector.names):
            shape = model.tensors[name].shape
            delta = vector.delta(name)
            found[name] = torch.cat([delta.block(b) for b in split(shape)]).reshape(shape)
    return found


def error(base: Path, adapter: Path, folder: Path) -> float:
    """Return the largest relative error of a delta against PEFT's fold minus the base."""
    ours = deltas(base, adapter)
    tiny_models.fold(base, adapter, folder)
    folded = tiny.read_tensors(folder)
    worst = 0.0
    for name, array in tiny.read_tensors(base).items():
        expected = torch.from_numpy(folded[name] - array)
        found = ours.pop(name, torch.zeros_like(expected))
        norm = float(expected.norm())
        difference = float((found - expected).norm())
        worst = max(worst, difference / norm if norm else difference)
    assert not ours
    return worst


def cell(variant: str, name: str, folder: Path) -> float | str:
    """Return the error of a cell, or why the adapter is refused."""
    base = folder / name
    if not base.exists():
        tiny_models.write_base(name, base)
    place = folder / variant / name
    adapter = tiny_models.write_adapter(base, place / "adapter", **VARIANTS[variant][name])
    try:
        return error(base, adapter, place / "folded")
    except InputError as refused:
        return refused.why


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("table")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("variant", "name"), CELLS)
def test_the_delta_is_pefts_folded_weight_minus_the_base(
    variant: str, name: str, folder: Path
) -> None:
    found = cell(variant, name, folder)

    if why := REFUSED.get((variant, name)):
        assert isinstance(found, str)
        assert why in found
    else:
        assert isinstance(found, float), found
        assert found <= LIMIT


def table(found: dict[tuple[str, str], float | str]) -> Iterator[str]:
    """Yield the lines of the page's table and its reasons."""
    names = list(tiny_models.ARCHITECTURES)
    reasons = list(dict.fromkeys(one for one in found.values() if isinstance(one, str)))
    yield f"| variant | {' | '.join(names)} |"
    yield "|---|" + "---|" * len(names)
    for variant in VARIANTS:
        cells = [_shown(found.get((variant, name)), reasons) for name in names]
        yield f"| {variant} | {' | '.join(cells)} |"
    yield ""
    for number, reason in enumerate(reasons, 1):
        yield f"{number}. {reason}"


def _shown(found: float | str | None, reasons: list[str]) -> str:
    if found is None:
        return NONE
    if isinstance(found, str):
        return f"refused ({reasons.index(found) + 1})"
    return f"1e{math.ceil(math.log10(found))}" if found else "0"


def test_the_page_has_a_cell_for_every_variant_and_architecture() -> None:
    lines = PAGE.read_text("utf-8").partition(BEGIN)[2].partition(END)[0].strip().splitlines()
    stand_in: dict[tuple[str, str], float | str] = dict.fromkeys(CELLS, 1e-7)
    expected = list(table(stand_in | {cell: REFUSED[cell] for cell in REFUSED}))

    rows = [line for line in lines if line.startswith("|")]
    assert [_kinds(row) for row in rows] == [_kinds(row) for row in expected if row[:1] == "|"]
    errors = [part for row in rows[2:] for part in row.split("|") if part.strip().startswith("1e")]
    assert errors
    assert all(float(part) <= LIMIT for part in errors)


def _kinds(row: str) -> list[str]:
    parts = (part.strip() for part in row.split("|"))
    return ["error" if p == "0" or p.startswith("1e") else p.partition(" (")[0] for p in parts]


def main() -> None:
    """Write the page's table."""
    with tempfile.TemporaryDirectory() as folder:
        found = {place: cell(*place, Path(folder)) for place in CELLS}
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    lines = "\n".join(table(found))
    PAGE.write_text(f"{before}{BEGIN}\n\n{lines}\n\n{END}{rest.partition(END)[2]}", "utf-8")


if __name__ == "__main__":
    main()

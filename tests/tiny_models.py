"""Tiny random transformers models of many architectures, and PEFT adapters trained by nobody."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_TEXT: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
_GROUPED = _TEXT | {"num_key_value_heads": 1, "head_dim": 8, "intermediate_size": 24}
_EXPERTS = _GROUPED | {"num_hidden_layers": 1, "num_experts_per_tok": 2}
_VISION = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "image_size": 8}


def _llama(**options: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**_GROUPED, attention_bias=True, **options))


def _gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=40, n_positions=8))


def _bert() -> Any:
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(**_TEXT, intermediate_size=24, max_position_embeddings=8)
    return BertForMaskedLM(config)


def _mixtral() -> Any:
    from transformers import MixtralConfig, MixtralForCausalLM

    return MixtralForCausalLM(MixtralConfig(**_EXPERTS, num_local_experts=4))


def _qwen3_moe() -> Any:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    config = Qwen3MoeConfig(**_EXPERTS, num_experts=4, moe_intermediate_size=12)
    return Qwen3MoeForCausalLM(config)


def _gpt_oss() -> Any:
    from transformers import GptOssConfig, GptOssForCausalLM

    config = GptOssConfig(**_EXPERTS, num_local_experts=4, layer_types=["full_attention"])
    return GptOssForCausalLM(config)


def _siglip() -> Any:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    return SiglipVisionModel(SiglipVisionConfig(**_VISION, num_hidden_layers=1, patch_size=4))


def _wav2vec2() -> Any:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    config = Wav2Vec2Config(
        **(_TEXT | {"num_hidden_layers": 1}),
        intermediate_size=24,
        conv_dim=(8, 8),
        conv_stride=(2, 2),
        conv_kernel=(3, 1),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    return Wav2Vec2Model(config)


def _video_mae() -> Any:
    from transformers import VideoMAEConfig, VideoMAEModel

    config = VideoMAEConfig(
        **_VISION, num_hidden_layers=1, patch_size=4, num_frames=4, tubelet_size=2
    )
    return VideoMAEModel(config)


def _resnet() -> Any:
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="bottleneck"
    )
    return ResNetModel(config)


def _convnext() -> Any:
    from transformers import ConvNextConfig, ConvNextModel

    return ConvNextModel(ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1]))


ARCHITECTURES: dict[str, Callable[[], Any]] = {
    "Llama": lambda: _llama(tie_word_embeddings=False),
    "Llama, tied": lambda: _llama(tie_word_embeddings=True),
    "GPT-2": _gpt2,
    "BERT": _bert,
    "Mixtral": _mixtral,
    "Qwen3-MoE": _qwen3_moe,
    "gpt-oss": _gpt_oss,
    "SigLIP": _siglip,
    "Wav2Vec2": _wav2vec2,
    "ResNet": _resnet,
    "ConvNeXt": _convnext,
    "VideoMAE": _video_mae,
}


def write_base(name: str, folder: Path) -> Path:
    """Write a random model of an architecture, as transformers saves it."""
    torch.manual_seed(7)
    model = ARCHITECTURES[name]()
    with torch.no_grad():  # biases and norms too, which transformers starts at zero and one
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    model.save_pretrained(folder)
    return folder


def load(base: Path) -> Any:
    """Return the model of a folder, in float32."""
    import json

    import transformers

    (name,) = json.loads((base / "config.json").read_text("utf-8"))["architectures"]
    return getattr(transformers, name).from_pretrained(base, dtype=torch.float32)


def write_adapter(
    base: Path, folder: Path, *, dtype: torch.dtype = torch.float32, **options: Any
) -> Path:
    """Write a random adapter of a base, as PEFT saves it."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(11)
    task = "CAUSAL_LM" if hasattr(model := load(base), "generate") else "FEATURE_EXTRACTION"
    config = LoraConfig(**({"r": 4, "lora_alpha": 6, "task_type": task} | options))
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if not parameter.requires_grad:
                continue
            if "magnitude" in name:
                parameter.mul_(1 + 0.3 * torch.rand_like(parameter))
            else:
                parameter.normal_(std=0.2)
            parameter.data = parameter.data.to(dtype)
    adapted.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    return folder


def fold(base: Path, adapter: Path, folder: Path) -> Any:
    """Write PEFT's fold of an adapter into its base and return the folded model."""
    from peft import PeftModel

    folded = PeftModel.from_pretrained(load(base), adapter).merge_and_unload()
    folded.save_pretrained(folder)
    return folded

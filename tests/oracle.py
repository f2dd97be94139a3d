"""PEFT as an oracle: what folding an adapter into the base gives, in float32, rounded once.

PEFT in bfloat16 rounds the delta and the sum, so the base is loaded in float32 here.
"""

from __future__ import annotations

from pathlib import Path

import torch


def folded_by_peft(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of the base with the adapter folded in, float32."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return dict(merged.state_dict())


def bfloat16_units(built: torch.Tensor, expected: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """Return |built - expected| in units of bfloat16 at max(|base|, |expected|), float64.

    The sum of base and delta is exact to a unit of the larger of its parts, not of itself: where
    they cancel, a unit of the result says nothing.
    """
    magnitude = torch.maximum(base.double().abs(), expected.double().abs())
    magnitude = magnitude.clamp(min=torch.finfo(torch.bfloat16).tiny)
    exponent = torch.floor(torch.log2(magnitude))
    return (built.double() - expected.double()).abs() / torch.exp2(exponent - 7)

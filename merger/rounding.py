"""From base and delta to the written bits: one addition, one rounding. Knows no file."""

from __future__ import annotations

import torch


def apply_delta(base: torch.Tensor, delta: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return base + delta in `dtype`, flat (n,), not in place.

    `base` has any float dtype that holds its values, `delta` the compute dtype, in which they are
    added; the sum is rounded once, to nearest even. Where the delta is 0 the base's value is kept,
    -0.0 too.
    """
    # 0 - δ is -δ, and +0.0 where δ is either zero. Taking that away adds δ, and changes no base
    # where there is nothing to add; adding 0.0 would turn -0.0 into 0.0.
    negated = torch.rsub(delta, 0)
    return round_to(torch.sub(base.to(delta.dtype), negated, out=negated), dtype)


def round_to(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return float32 or float64 values rounded once, to nearest even, to a float type.

    torch goes from float64 to bfloat16 and float16 by way of float32 and so rounds twice. Rounding
    to odd in between (Boldo and Melquiond 2008) makes the second rounding the only one that shows.
    """
    if values.dtype == torch.float64 and dtype in (torch.bfloat16, torch.float16):
        return _to_odd_float32(values).to(dtype)
    return values.to(dtype)


def _to_odd_float32(values: torch.Tensor) -> torch.Tensor:
    """Return float64 cut towards zero to float32, the last bit set where that was inexact."""
    near = values.to(torch.float32)
    is_beyond = near.to(torch.float64).abs() > values.abs()
    cut = torch.where(is_beyond, torch.nextafter(near, torch.zeros_like(near)), near)
    is_inexact = cut.to(torch.float64) != values
    odd = cut.view(torch.int32) | is_inexact.to(torch.int32)
    return torch.where(torch.isfinite(values), odd.view(torch.float32), near)


def is_finite(values: torch.Tensor) -> bool:
    """Return whether all values of a flat float tensor are finite; one pass without a mask."""
    if values.numel() == 0:
        return True
    low, high = torch.aminmax(values)
    return bool(torch.isfinite(low)) and bool(torch.isfinite(high))

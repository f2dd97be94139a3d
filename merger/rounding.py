"""From base and delta to the written bits: one addition, one rounding. Knows no file."""

from __future__ import annotations

from math import frexp, ldexp

import torch


def apply_delta(base: torch.Tensor, delta: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return base + delta in `dtype`, flat (n,), not in place; rounded once, to nearest even."""
    return round_to(add_delta(base, delta), dtype)


def add_delta(base: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """Return base + delta in the compute dtype, which delta has, flat (n,), not in place.

    `base` has any float dtype that holds its values. Where the delta is 0 the base's value is
    kept, -0.0 too.
    """
    # 0 - δ is -δ, and +0.0 where δ is either zero. Taking that away adds δ, and changes no base
    # where there is nothing to add; adding 0.0 would turn -0.0 into 0.0.
    negated = torch.rsub(delta, 0)
    return torch.sub(base.to(delta.dtype), negated, out=negated)


def fits(values: torch.Tensor, dtype: torch.dtype) -> bool:
    """Return whether all values of a flat tensor are finite once they are rounded to `dtype`."""
    if values.numel() == 0:
        return True
    known = torch.finfo(dtype)
    # Half a step beyond the largest number of the type rounds to even: to infinity.
    beyond = known.max + ldexp(known.eps, frexp(known.max)[1] - 2)
    low, high = torch.aminmax(values)
    return -beyond < float(low) and float(high) < beyond


def round_to(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return float32 or float64 values rounded once, to nearest even, to a float type."""
    return _to_be_rounded(values, dtype).to(dtype)


def round_into(values: torch.Tensor, written: torch.Tensor) -> None:
    """Write float32 or float64 values, rounded once, to nearest even, into a tensor of (n,).

    From a GPU they are on their way into pinned memory when this returns.
    """
    written.copy_(_to_be_rounded(values, written.dtype), non_blocking=True)


def _to_be_rounded(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return values that torch rounds to `dtype` as if it rounded once.

    torch goes from float64 to bfloat16 and float16 by way of float32 and so rounds twice. Rounding
    to odd in between (Boldo and Melquiond 2008) makes the second rounding the only one that shows.
    """
    if values.dtype == torch.float64 and dtype in (torch.bfloat16, torch.float16):
        return _to_odd_float32(values)
    return values


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

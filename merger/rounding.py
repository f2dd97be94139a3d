"""From base and delta to the written bits: one addition, one rounding. Knows no file."""

from __future__ import annotations

import torch

_INTEGERS = {2: torch.int16, 4: torch.int32}


def apply_delta(base: torch.Tensor, delta: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return base + delta in `dtype`, flat (n,), not in place.

    `base` has its stored dtype, `delta` the compute dtype, in which they are added; the sum is
    rounded once, to nearest even. Where the delta is 0 the base's value is kept, -0.0 too.
    """
    exact = base.to(delta.dtype)
    result = exact + delta
    if _has_negative_zero(base):
        result = torch.where(delta == 0, exact, result)
    return round_to(result, dtype)


def _has_negative_zero(base: torch.Tensor) -> bool:
    # -0.0 is the only value that adding +0.0 changes. Read as an integer it is the least of all,
    # so one cheap pass finds it; a mask over every block would cost ten times as much.
    if base.numel() == 0:
        return False
    bits = base.view(_INTEGERS[base.element_size()])
    return int(bits.amin()) == torch.iinfo(bits.dtype).min


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

"""One addition, one rounding: against exact fractions and bit patterns."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from merger.rounding import apply_delta, fits, is_finite, round_to

BFLOAT16_BITS = 8  # of a significand, the hidden one too


def bits(values: torch.Tensor) -> list[int]:
    sizes = {2: torch.int16, 4: torch.int32}
    return values.view(sizes[values.element_size()]).tolist()


def test_a_zero_delta_keeps_the_bits_of_the_base() -> None:
    base = torch.tensor([-0.0, 0.0, 1.5, -3.0], dtype=torch.bfloat16)
    delta = torch.tensor([0.0, -0.0, 0.0, -0.0])

    assert bits(apply_delta(base, delta, torch.bfloat16)) == bits(base)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_finite_value_of_the_base_survives_a_zero_delta(dtype: torch.dtype) -> None:
    if dtype == torch.float32:
        patterns = np.random.default_rng(0).integers(0, 1 << 32, 1 << 14).astype(np.uint32)
        base = torch.from_numpy(patterns.view(np.float32))
    else:
        base = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(dtype)
    base = base[torch.isfinite(base)]

    for compute in (torch.float32, torch.float64):
        result = apply_delta(base, torch.zeros(len(base), dtype=compute), dtype)
        assert bits(result) == bits(base)


def test_a_sum_that_vanishes_is_zero() -> None:
    base, delta = torch.tensor([1.0], dtype=torch.bfloat16), torch.tensor([-1.0])

    assert bits(apply_delta(base, delta, torch.bfloat16)) == [0]


def test_float64_is_rounded_once() -> None:
    # Just above half a step: float32 rounds it down to the half, which then goes to even.
    step = 2.0**-8
    value = 1.0 + step + 2.0**-40
    values = torch.tensor([value, -value], dtype=torch.float64)

    assert values.to(torch.bfloat16).tolist() == [1.0, -1.0]
    assert round_to(values, torch.bfloat16).tolist() == [1.0 + 2 * step, -1.0 - 2 * step]


@given(st.floats(2.0**-100, 2.0**100), st.booleans())
def test_float64_to_bfloat16_is_the_nearest_even(value: float, negative: bool) -> None:
    exact = Fraction(-value if negative else value)

    values = torch.tensor([float(exact)], dtype=torch.float64)
    rounded = Fraction(round_to(values, torch.bfloat16).item())

    assert rounded == nearest_even(exact)


def nearest_even(value: Fraction) -> Fraction:
    exponent = 0
    while abs(value) / Fraction(2) ** exponent >= 2:
        exponent += 1
    while abs(value) / Fraction(2) ** exponent < 1:
        exponent -= 1
    step = Fraction(2) ** (exponent - (BFLOAT16_BITS - 1))
    return round(value / step) * step  # round() of a fraction goes to even


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_float64_halfway_values_go_to_even_and_beyond_half_away(dtype: torch.dtype) -> None:
    numbers = torch.arange(0, 1 << 15, dtype=torch.int32).to(torch.int16).view(dtype)
    numbers = numbers[torch.isfinite(numbers)].double()
    low, high = numbers[:-1], numbers[1:]
    middle = (low + high) / 2
    is_even = (torch.arange(len(low)) % 2) == 0

    assert torch.equal(round_to(middle, dtype).double(), torch.where(is_even, low, high))
    assert torch.equal(round_to(torch.nextafter(middle, high), dtype).double(), high)
    assert torch.equal(round_to(torch.nextafter(middle, low), dtype).double(), low)


def test_what_overflows_or_is_no_number_stays_so() -> None:
    values = torch.tensor([1e300, -1e300, float("inf"), float("nan")], dtype=torch.float64)

    rounded = round_to(values, torch.float16)

    assert rounded[:3].tolist() == [float("inf"), -float("inf"), float("inf")]
    assert bool(torch.isnan(rounded[3]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_bad_value_is_found_wherever_it_stands(dtype: torch.dtype, bad: float) -> None:
    for position in (0, 17, 99):
        values = torch.zeros(100, dtype=dtype)
        assert is_finite(values)
        values[position] = bad
        assert not is_finite(values)
    assert is_finite(torch.zeros(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("compute", [torch.float32, torch.float64])
def test_values_fit_if_all_of_them_are_finite_once_rounded(
    dtype: torch.dtype, compute: torch.dtype
) -> None:
    largest = torch.finfo(dtype).max
    ends = [largest, -largest, 0.0]
    # The next number that the type would have, and what still rounds to the largest.
    step = torch.tensor(largest, dtype=torch.float64) * torch.finfo(dtype).eps / 2
    beyond, just = float(largest + step), float(largest + step / 4)

    assert fits(torch.tensor(ends, dtype=compute), dtype)
    assert fits(torch.zeros(0, dtype=compute), dtype)
    if compute == torch.float64 or dtype != torch.float32:
        assert fits(torch.tensor([just, -just], dtype=compute), dtype)
    for wrong in (beyond, -beyond, float("inf"), -float("inf"), float("nan")):
        assert not fits(torch.tensor([0.0, wrong, 1.0], dtype=compute), dtype)

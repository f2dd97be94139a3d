"""Trim keeps exactly as many as asked, the largest, lowest index first: by hand and by property."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from merger import selection
from merger.selection import Cut, find_cut
from merger.sparsify import kept_count, trim


def blocks_of(values: torch.Tensor, step: int) -> list[torch.Tensor]:
    return [values[start : start + step] for start in range(0, len(values), step)]


def trimmed(
    values: torch.Tensor, keep: int, *, step: int = 3, gather: int = 1 << 24, sample: int = 1 << 14
) -> list[float]:
    cut = find_cut(blocks_of(values, step), len(values), keep, gather=gather, sample=sample)
    starts = range(0, len(values), step)
    blocks = [trim(values[start : start + step], cut, start=start) for start in starts]
    return torch.cat(blocks).tolist()


@pytest.mark.parametrize(
    ("density", "elements", "expected"),
    [(0.2, 10, 2), (0.29, 10, 2), (0.001, 10, 1), (1.0, 10, 10), (0.7, 10, 7), (0.57, 100, 56)],
)
def test_the_count_is_the_floor_of_the_binary64_product(
    density: float, elements: int, expected: int
) -> None:
    # 0.57 · 100 is 56.99999999999999 in binary64.
    assert kept_count(density, elements) == expected


def test_the_largest_magnitudes_are_kept_with_their_signs() -> None:
    values = torch.tensor([1.0, -5.0, 2.0, 4.0, -3.0])

    assert trimmed(values, 2) == [0.0, -5.0, 0.0, 4.0, 0.0]


def test_among_equal_magnitudes_the_lowest_index_is_kept_first() -> None:
    values = torch.tensor([1.0, -2.0, 2.0, 3.0, 2.0, -2.0, 2.0])

    assert trimmed(values, 3) == [0.0, -2.0, 2.0, 3.0, 0.0, 0.0, 0.0]
    assert trimmed(values, 5) == [0.0, -2.0, 2.0, 3.0, 2.0, -2.0, 0.0]


def test_zeros_count_as_elements_and_stay_zero() -> None:
    values = torch.tensor([0.0, 0.0, -1.0, 0.0])

    assert trimmed(values, 2) == [0.0, 0.0, -1.0, 0.0]


def test_keeping_all_is_the_identity() -> None:
    values = torch.tensor([0.0, 1.0, -1.0, 2.0**-149])
    cut = find_cut(blocks_of(values, 2), 4, 4)

    assert cut == Cut(0.0, 4)
    assert trim(values, cut, start=0) is values


def test_a_single_element_is_always_kept() -> None:
    assert trimmed(torch.tensor([-7.0]), 1) == [-7.0]


def test_the_smallest_numbers_are_told_apart() -> None:
    tiny = 2.0**-149
    values = torch.tensor([tiny, 2 * tiny, 0.0, -tiny])

    assert trimmed(values, 2) == [tiny, 2 * tiny, 0.0, 0.0]


def test_a_value_that_is_no_number_does_not_hang_the_search() -> None:
    values = torch.tensor([1.0, float("nan"), 2.0, float("nan")])

    assert np.isnan(find_cut(blocks_of(values, 2), 4, 1).value)


@st.composite
def tensors_and_counts(draw: st.DrawFn) -> tuple[torch.Tensor, int]:
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    # Few different values: equal magnitudes are the rule.
    few = st.lists(st.integers(-3, 3), min_size=1, max_size=60)
    width = 32 if dtype == torch.float32 else 64
    many = st.lists(
        st.floats(allow_nan=False, allow_infinity=False, width=width), min_size=1, max_size=60
    )
    values = torch.tensor(draw(st.one_of(few, many)), dtype=dtype)
    return values, draw(st.integers(1, len(values)))


def naive(values: torch.Tensor, keep: int) -> list[float]:
    numbers = values.tolist()
    order = sorted(range(len(numbers)), key=lambda index: (-abs(numbers[index]), index))
    kept = set(order[:keep])
    return [number if index in kept else 0.0 for index, number in enumerate(numbers)]


@settings(deadline=None)
@given(
    drawn=tensors_and_counts(),
    step=st.integers(1, 9),
    gather=st.sampled_from([1, 4, 1 << 24]),
    sample=st.sampled_from([1, 4, 10, 1 << 14]),
)
def test_any_tensor_is_trimmed_as_sorting_would(
    drawn: tuple[torch.Tensor, int], step: int, gather: int, sample: int
) -> None:
    values, keep = drawn

    assert trimmed(values, keep, step=step, gather=gather, sample=sample) == naive(values, keep)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [3, 500, 10**9])
@pytest.mark.parametrize("density", [0.05, 0.2, 0.7])
def test_of_many_values_those_are_kept_that_a_sort_keeps(
    dtype: torch.dtype, levels: int, density: float
) -> None:
    random = torch.Generator().manual_seed(levels)
    values = torch.randn(300_000, generator=random, dtype=dtype)
    values = (values * levels).round() / levels
    keep = int(density * len(values))

    cut = find_cut(blocks_of(values, 1 << 16), len(values), keep)

    order = torch.argsort(values.abs(), descending=True, stable=True)
    expected = torch.zeros_like(values)
    expected[order[:keep]] = values[order[:keep]]
    assert torch.equal(trim(values, cut, start=0), expected)


@settings(deadline=None)
@given(tensors_and_counts())
def test_what_lies_close_together_is_told_apart(drawn: tuple[torch.Tensor, int]) -> None:
    values, keep = drawn
    magnitudes = values.abs().numpy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "_FEW", 2)
        patch.setattr(selection, "_INTERVAL_BITS", 2)

        found = selection._narrow(magnitudes, keep)

    wanted = np.sort(magnitudes)[::-1][keep - 1]
    assert found.value == wanted
    assert found.greater == int((magnitudes > wanted).sum())
    assert found.equal == int((magnitudes == wanted).sum())

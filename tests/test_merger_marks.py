"""Marks and signs against plain loops, at every length around a word of marks."""

from __future__ import annotations

import math
import random

import pytest
import torch

from merger import marks

SOME = [0.0, -0.0, 1.5, -1.5, 2.0, -2.0, math.inf, -math.inf, 1e-45, -1e-45]


def drawn(count: int) -> list[float]:
    """Return some numbers, the same every time."""
    chance = random.Random(count)
    return [chance.choice(SOME) for _ in range(count)]


@pytest.mark.parametrize("count", range(26))
def test_what_is_selected_is_what_is_marked_in_its_order(count: int) -> None:
    """Also the last ones, which fill no word, and where nothing or all is marked."""
    values = torch.tensor([float(number) for number in range(count)])
    for bound in (-1.0, count / 2, count - 2.5, float(count)):
        kept = marks.select(values, marks.above(values, bound))
        assert kept.tolist() == [number for number in range(count) if number > bound]
    scattered = torch.tensor(drawn(count))
    kept = marks.select(scattered, marks.equal(scattered, 1.5))
    assert kept.tolist() == [value for value in drawn(count) if value == 1.5]


@pytest.mark.parametrize("count", range(26))
def test_comparisons_mark_what_python_says(count: int) -> None:
    """A bound that many values equal tells > from ≥."""
    values = drawn(count)
    found = torch.tensor(values)
    assert marks.above(found, 1.5).tolist() == [value > 1.5 for value in values]
    assert marks.at_least(found, 1.5).tolist() == [value >= 1.5 for value in values]
    assert marks.below(found, 1.5).tolist() == [value < 1.5 for value in values]
    assert marks.count(marks.at_least(found, 1.5)) == sum(value >= 1.5 for value in values)
    assert marks.signs(found).tolist() == [(value > 0) - (value < 0) for value in values]


def test_what_is_no_number_has_no_sign_and_no_mark() -> None:
    """Every comparison with it is false."""
    nothing = torch.tensor([math.nan])
    assert marks.signs(nothing).tolist() == [0]
    assert marks.at_least(nothing, -math.inf).tolist() == [0]

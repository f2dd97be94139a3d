"""Each step and option of TIES on tensors that can be worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from merger.methods import ties
from merger.selection import find_cut
from merger.sparsify import trim


def values(*rows: list[float]) -> list[torch.Tensor]:
    return [torch.tensor(row) for row in rows]


# Columns: agreement, conflict won by +, conflict won by -, a tie, one term alone, nothing.
THREE = values(
    [1.0, 4.0, 1.0, 2.0, 0.0, 0.0],
    [3.0, -1.0, -2.0, -2.0, 0.0, 0.0],
    [2.0, -1.0, -2.0, 0.0, -6.0, 0.0],
)


def test_tally_sums_and_counts_each_side() -> None:
    counted = ties.tally(THREE)

    assert counted.positive.tolist() == [6.0, 4.0, 1.0, 2.0, 0.0, 0.0]
    assert counted.negative.tolist() == [0.0, -2.0, -4.0, -2.0, -6.0, 0.0]
    assert counted.positives.tolist() == [3.0, 1.0, 1.0, 1.0, 0.0, 0.0]
    assert counted.negatives.tolist() == [0.0, 2.0, 2.0, 1.0, 1.0, 0.0]


def test_the_smallest_numbers_count_as_nonzero() -> None:
    smallest = 2.0**-149

    counted = ties.tally(values([smallest, -smallest, 1e38, -1e38, 0.0, -0.0]))

    assert counted.positives.tolist() == [1.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    assert counted.negatives.tolist() == [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]


def test_total_elects_the_heavier_side_and_frequency_the_more_frequent() -> None:
    counted = ties.tally(THREE)

    assert ties.elect(counted, "total").tolist() == [1.0, 1.0, -1.0, 0.0, -1.0, 0.0]
    assert ties.elect(counted, "frequency").tolist() == [1.0, -1.0, -1.0, 0.0, -1.0, 0.0]


@pytest.mark.parametrize(
    ("tie", "majority", "expected"),
    [
        ("positive", -9.0, [1.0, 1.0, 1.0, -1.0]),
        ("zero", -9.0, [0.0, 0.0, 1.0, -1.0]),
        ("majority", -9.0, [-1.0, -1.0, 1.0, -1.0]),
        ("majority", 9.0, [1.0, 1.0, 1.0, -1.0]),
        ("majority", 0.0, [1.0, 1.0, 1.0, -1.0]),
        ("largest", -9.0, [-1.0, 1.0, 1.0, -1.0]),
    ],
)
def test_a_tie_is_decided_as_asked(tie: str, majority: float, expected: list[float]) -> None:
    # First column: -3 against 1 + 2; second: equal magnitudes.
    rows = values([-3.0, -2.0, 1.0, 0.0], [1.0, 2.0, 1.0, -1.0], [2.0, 0.0, 0.0, 0.0])
    elected = ties.elect(ties.tally(rows), "total")

    decided = ties.break_ties(elected, rows, tie=tie, majority=majority)

    assert decided.tolist() == expected


@pytest.mark.parametrize(
    ("combine", "expected"),
    [
        ("mean", [2.0, 4.0, -2.0, 2.0, -6.0, 0.0]),
        ("sum", [6.0, 4.0, -4.0, 2.0, -6.0, 0.0]),
        ("max", [3.0, 4.0, -2.0, 2.0, -6.0, 0.0]),
    ],
)
def test_only_agreeing_values_are_combined(combine: str, expected: list[float]) -> None:
    assert merged(combine=combine) == expected


@pytest.mark.parametrize(
    ("agreeing", "expected"),
    [
        (1, [2.0, 4.0, -2.0, 2.0, -6.0, 0.0]),
        (2, [2.0, 0.0, -2.0, 0.0, 0.0, 0.0]),
        (3, [2.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
    ],
)
def test_too_few_agreeing_terms_give_zero(agreeing: int, expected: list[float]) -> None:
    assert merged(agreeing=agreeing) == expected


def merged(combine: str = "mean", agreeing: int = 0) -> list[float]:
    counted = ties.tally(THREE)
    sign = ties.break_ties(ties.elect(counted, "total"), THREE, tie="positive", majority=0.0)
    return ties.merge(counted, sign, THREE, combine=combine, agreeing=agreeing).tolist()


def test_a_tie_left_at_zero_adds_nothing() -> None:
    rows = values([2.0, 1.0], [-2.0, 1.0])
    counted = ties.tally(rows)
    sign = ties.elect(counted, "total")

    assert ties.merge(counted, sign, rows, combine="sum", agreeing=0).tolist() == [0.0, 2.0]


def test_a_lone_negative_term_subtracts() -> None:
    rows = values([-1.0, 2.0, 0.0])
    counted = ties.tally(rows)
    sign = ties.break_ties(ties.elect(counted, "total"), rows, tie="positive", majority=0.0)

    assert ties.merge(counted, sign, rows, combine="mean", agreeing=0).tolist() == [-1.0, 2.0, 0.0]


@pytest.mark.parametrize(
    ("share", "terms", "expected"),
    [
        (0.0, 3, 0),
        (0.1, 3, 1),
        (1 / 3, 3, 1),
        (0.34, 3, 2),
        (2 / 3, 3, 2),
        (1.0, 3, 3),
        (1.0, 1, 1),
    ],
)
def test_the_agreement_asked_for_is_a_share_of_all_terms(
    share: float, terms: int, expected: int
) -> None:
    assert ties.agreeing_count(share, terms) == expected


def test_a_negative_weight_turns_a_share_round_but_not_the_vote() -> None:
    # Both positive, so + is elected; the second, of weight -2, takes its own share away.
    rows = values([1.0, 1.0, -4.0], [3.0, -5.0, 1.0])
    counted = ties.tally(rows)
    sign = ties.elect(counted, "unweighted_total")
    assert sign.tolist() == [1.0, -1.0, -1.0]

    merged = {
        combine: ties.merge(
            counted,
            sign,
            rows,
            combine=combine,
            agreeing=0,
            weights=(1.0, -2.0),
            is_weighted=False,
        ).tolist()
        for combine in ("mean", "sum", "max")
    }

    assert merged == {
        "mean": [(1.0 - 6.0) / 2, 10.0, -4.0],
        "sum": [1.0 - 6.0, 10.0, -4.0],
        "max": [-6.0, 10.0, -4.0],
    }


def test_of_two_equal_magnitudes_max_takes_the_positive_one() -> None:
    rows = values([3.0], [6.0])
    counted = ties.tally(rows)

    for weights, expected in (((2.0, -1.0), 6.0), ((-2.0, 1.0), 6.0), ((-2.0, -1.0), -6.0)):
        merged = ties.merge(
            counted,
            ties.elect(counted, "unweighted_frequency"),
            rows,
            combine="max",
            agreeing=0,
            weights=weights,
            is_weighted=False,
        )
        assert merged.tolist() == [expected]


def test_a_term_of_weight_zero_votes_and_is_counted_but_adds_nothing() -> None:
    rows = values([-4.0, 2.0], [1.0, 0.0])
    counted = ties.tally(rows)
    sign = ties.elect(counted, "unweighted_total")

    def merged(combine: str, agreeing: int = 0) -> list[float]:
        return ties.merge(
            counted,
            sign,
            rows,
            combine=combine,
            agreeing=agreeing,
            weights=(0.0, 1.0),
            is_weighted=False,
        ).tolist()

    assert sign.tolist() == [-1.0, 1.0]
    assert merged("mean") == merged("weighted_mean") == merged("sum") == [0.0, 0.0]


def test_a_weighted_mean_divides_by_the_weights_that_agree() -> None:
    # Weighted values of weights 1, 3 and 0.5.
    rows = values([2.0, 2.0, 0.0, -1.0], [9.0, -3.0, 0.0, -6.0], [-1.0, 4.0, 0.0, 0.0])
    counted = ties.tally(rows)
    sign = ties.break_ties(ties.elect(counted, "total"), rows, tie="positive", majority=0.0)

    merged = ties.merge(
        counted, sign, rows, combine="weighted_mean", agreeing=0, weights=(1.0, 3.0, 0.5)
    )

    assert merged.tolist() == [11.0 / 4.0, 6.0 / 1.5, 0.0, -7.0 / 4.0]


@pytest.mark.parametrize("election", ["total", "frequency"])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.5, 2.0, 0.25), (1.0, -0.7, 0.3)])
def test_the_unweighted_elections_are_those_of_peft(
    election: str, weights: tuple[float, ...]
) -> None:
    from peft.utils import merge_utils

    generator = torch.Generator().manual_seed(1)
    rows = [torch.randn(500, generator=generator) for _ in range(3)]
    keep = 200
    expected = merge_utils.ties(rows, torch.tensor(weights), keep / 500, election)

    trimmed = [trim(row, find_cut([row], 500, keep), start=0) for row in rows]
    counted = ties.tally(trimmed)
    sign = ties.elect(counted, f"unweighted_{election}")
    merged = ties.merge(
        counted,
        ties.break_ties(sign, trimmed, tie="positive", majority=0.0),
        trimmed,
        combine="mean",
        agreeing=0,
        weights=weights,
        is_weighted=False,
    )

    torch.testing.assert_close(merged, expected, rtol=1e-6, atol=1e-7)


def test_what_is_elected_by_nobody_is_zero_though_a_value_overflowed() -> None:
    values = [torch.tensor([math.inf]), torch.tensor([-1.0])]
    counted = ties.tally(values)
    sign = ties.elect(counted, "frequency")

    merged = ties.merge(counted, sign, values, combine="mean", agreeing=0)

    assert sign.item() == 0.0
    assert merged.item() == 0.0


def test_where_no_weight_is_there_the_weighted_mean_is_a_positive_zero() -> None:
    # A decomposition of the merged delta, for an adapter, tells -0.0 from 0.0.
    values = [torch.tensor([-0.0])]
    counted = ties.tally(values)

    merged = ties.merge(
        counted, torch.tensor([-1.0]), values, combine="weighted_mean", agreeing=0, weights=(0.0,)
    )

    assert math.copysign(1.0, merged.item()) == 1.0

"""Agreement, conflict and survival on tensors that can be worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from merger.interference import Sums, TensorSums, figures

A = torch.tensor([1.0, -2.0, 0.0, 3.0])
B = torch.tensor([2.0, 1.0, 5.0, -3.0])


def sums_of(
    *taus: torch.Tensor, weights: tuple[float, ...] = (), density: float = 0.5
) -> TensorSums:
    found = TensorSums(
        terms=tuple(range(len(taus))),
        weights=weights or (1.0,) * len(taus),
        densities=(density,) * len(taus),
    )
    found.add(taus)
    return found


def test_norms_cosine_agreement_and_conflict_of_two_terms() -> None:
    found = figures(sums_of(A, B).total(2, 4), has_masks=False, has_result=False)

    assert (found["tensors"], found["elements"]) == (1, 4)
    first, second = found["terms"]
    assert first == {
        "tensors": 1,
        "elements": 4,
        "norm": round(math.sqrt(14), 6),
        "weighted_norm": round(math.sqrt(14), 6),
        "nonzero": 0.75,
    }
    assert second["nonzero"] == 1.0
    cosine = pytest.approx(-9 / math.sqrt(14 * 39), rel=1e-6)
    assert found["cosines"] == [[1.0, cosine], [cosine, 1.0]]
    # Both are not 0 at three elements, of one sign at the first; b alone reaches the third.
    assert found["sign_agreement"] == [[1.0, 0.3333333], [0.3333333, 1.0]]
    assert found["sign_conflict"] == 0.5
    assert found["dare"] == {"expected": 0.125, "realised": None}
    assert found["result"] is None


def test_a_negative_weight_turns_agreement_into_conflict_and_leaves_the_cosine() -> None:
    sums = sums_of(A, B, weights=(1.0, -0.5)).total(2, 4)
    found = figures(sums, has_masks=False, has_result=False)

    assert found["sign_agreement"][0][1] == 0.6666667
    assert found["sign_conflict"] == 0.25
    assert found["cosines"][0][1] < 0
    assert found["terms"][1]["weighted_norm"] == round(math.sqrt(39) / 2, 6)


def test_a_term_of_weight_0_has_no_sign() -> None:
    sums = sums_of(A, B, weights=(1.0, 0.0)).total(2, 4)
    found = figures(sums, has_masks=False, has_result=False)

    assert found["sign_agreement"] == [[1.0, None], [None, None]]
    assert found["sign_conflict"] == 0.0
    assert found["terms"][1]["nonzero"] == 0.0


@pytest.mark.parametrize(
    ("density", "expected"),
    # Signs (+ + -), (+ + +), (- - +), (0 + -): a survivor on each side, then none can be, …
    [
        (0.5, (0.75 * 0.5 + 0 + 0.75 * 0.5 + 0.5 * 0.5) / 4),
        (0.1, (0.19 * 0.1 + 0 + 0.19 * 0.1 + 0.1 * 0.1) / 4),
        (1.0, 3 / 4),
    ],
)
def test_the_conflict_expected_after_dropping_at_random(density: float, expected: float) -> None:
    taus = [
        torch.tensor([1.0, 2.0, -1.0, 0.0]),
        torch.tensor([3.0, 1.0, -2.0, 4.0]),
        torch.tensor([-1.0, 5.0, 7.0, -2.0]),
    ]
    found = figures(sums_of(*taus, density=density).total(3, 4), has_masks=False, has_result=False)

    assert found["dare"]["expected"] == pytest.approx(expected, rel=1e-6)
    assert found["sign_conflict"] == 0.75


def test_densities_may_differ_between_terms() -> None:
    sums = TensorSums(terms=(0, 1), weights=(1.0, 1.0), densities=(0.25, 1.0))
    sums.add([torch.tensor([1.0, 1.0]), torch.tensor([-1.0, 1.0])])

    found = figures(sums.total(2, 2), has_masks=False, has_result=False)

    assert found["dare"]["expected"] == 0.125


def test_what_survives_is_the_projection_and_the_signs_that_are_kept() -> None:
    sums = TensorSums(terms=(0, 1), weights=(1.0, 2.0), densities=(0.5, 0.5))
    delta = torch.tensor([1.0, -2.0, 0.0, 0.0])
    sums.add_result(sums.add([A, B]), delta)

    found = figures(sums.total(2, 4), has_masks=False, has_result=True)["result"]

    assert found == {
        "norm": round(math.sqrt(5), 6),
        "nonzero": 0.5,
        "survival": [round(5 / 14, 7), 0.0],
        "signs_kept": [0.6666667, 0.25],
    }


def test_the_plain_sum_of_orthogonal_terms_keeps_all_of_both() -> None:
    left, right = torch.tensor([1.0, 1.0, 0.0]), torch.tensor([1.0, -1.0, 0.0])
    sums = TensorSums(terms=(0, 1), weights=(0.5, -3.0), densities=(0.5, 0.5))
    sums.add_result(sums.add([left, right]), 0.5 * left - 3 * right)

    found = figures(sums.total(2, 3), has_masks=False, has_result=True)["result"]

    assert found["survival"] == [1.0, 1.0]


def test_values_that_masks_left_count_where_their_signs_differ() -> None:
    # The first and the second element of both are left, and the last of b alone.
    left = [torch.tensor([2.0, -4.0, 0.0, 0.0]), torch.tensor([4.0, 2.0, 0.0, -6.0])]
    realised = []
    for weight in (1.0, -1.0):
        sums = TensorSums(terms=(0, 1), weights=(1.0, weight), densities=(0.5, 0.5))
        sums.add_left(sums.add([A, B]), left)
        found = figures(sums.total(2, 4), has_masks=True, has_result=True)
        realised.append(found["dare"]["realised"])

    assert realised == [0.25, 0.25]
    assert found["dare"]["expected"] == 0.0625


def test_a_tensor_that_a_term_has_not_is_no_agreement_and_no_conflict() -> None:
    alone = TensorSums(terms=(1,), weights=(1.0,), densities=(0.5,))
    alone.add([torch.tensor([4.0, 0.0])])
    whole = Sums.of(2)
    whole.add(sums_of(A, B).total(2, 4))
    whole.add(alone.total(2, 2))

    found = figures(whole, has_masks=False, has_result=False)

    assert (found["tensors"], found["elements"]) == (2, 6)
    assert [term["elements"] for term in found["terms"]] == [4, 6]
    assert found["terms"][1]["norm"] == round(math.sqrt(39 + 16), 6)
    assert found["sign_agreement"][0][1] == 0.3333333
    assert found["sign_conflict"] == 0.4  # two of the five that any term reaches


def test_squares_beyond_float32_are_still_numbers() -> None:
    sums = sums_of(torch.tensor([1e30, 0.0]), torch.tensor([1e30, 1e30]))

    found = figures(sums.total(2, 2), has_masks=False, has_result=False)

    assert found["terms"][0]["norm"] == 1e30
    assert found["cosines"][0][1] == pytest.approx(math.sqrt(0.5), rel=1e-6)


def test_a_term_that_is_zero_survives_as_nothing_known() -> None:
    sums = TensorSums(terms=(0,), weights=(1.0,), densities=(0.5,))
    zero = torch.zeros(3)
    sums.add_result(sums.add([zero]), zero)

    found = figures(sums.total(1, 3), has_masks=False, has_result=True)

    assert found["result"]["survival"] == [None]
    assert found["result"]["signs_kept"] == [None]
    assert found["cosines"] == [[0.0]]

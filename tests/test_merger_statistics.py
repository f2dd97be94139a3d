"""Figures of a merge on tensors that can be worked out by hand."""

from __future__ import annotations

import math

import torch

from merger.statistics import TensorTally, summarize

LABELS = ["adapter a@1", "adapter b@1"]


def tally() -> TensorTally:
    found = TensorTally(terms=(0, 1), weights=(2.0, -1.0), elements=6, kept=(3, 2))
    taus = [torch.tensor([3.0, 4.0, 0.0]), torch.tensor([4.0, -3.0, 0.0])]
    found.add(taus, [2 * taus[0], -1 * taus[1]], 2 * taus[0] - taus[1])
    more = [torch.tensor([0.0, 0.0, 12.0]), torch.tensor([0.0, 0.0, 12.0])]
    found.add(more, [2 * more[0], -1 * more[1]], 2 * more[0] - more[1])
    return found


def test_norms_cosines_and_conflict_are_those_of_the_whole_tensor() -> None:
    found = summarize({"w": tally()}, LABELS, kept=None)

    assert found["touched"] == {"tensors": 1, "elements": 6}
    first, second = found["terms"]
    assert first == {
        "term": "adapter a@1",
        "tensors": 1,
        "elements": 6,
        "norm": 13.0,
        "weighted_norm": 26.0,
        "kept": 0.5,
    }
    assert (second["norm"], second["weighted_norm"]) == (13.0, 13.0)
    assert second["kept"] == 0.3333333
    # 12·12 / 13² ; the third and sixth elements of τ are 0 and 12.
    assert found["cosines"] == [[1.0, 0.852071], [0.852071, 1.0]]
    # Values: (6, -4), (8, 3), (0, 0), then (0, 0), (0, 0), (24, -12).
    assert found["sign_conflict"] == 0.6666667
    assert found["nonzero"] == 0.5
    assert found["delta_norm"] == round(math.sqrt(2**2 + 11**2 + 12**2), 5)
    assert found["tensors"]["rows"]["w"] == [6, 16.40122, 0.5, 0.6666667, [0, 1], [13.0, 13.0]]


def test_a_term_that_touches_nothing_else_has_cosine_zero() -> None:
    alone = TensorTally(terms=(1,), weights=(1.0,), elements=2)
    tau = torch.tensor([1.0, 0.0])
    alone.add([tau], [tau], tau)

    found = summarize({"w": alone}, LABELS, kept=(0, 1))

    assert found["cosines"] == [[0.0, 0.0], [0.0, 1.0]]
    assert found["sign_conflict"] == 0.0
    assert [term["kept"] for term in found["terms"]] == [0.0, 0.5]


def test_squares_beyond_float32_are_still_numbers() -> None:
    large = TensorTally(terms=(0,), weights=(1e200,), elements=1)
    tau = torch.tensor([1e30])
    large.add([tau], [tau], tau)

    found = summarize({"w": large}, LABELS[:1], kept=None)

    assert found["terms"][0]["norm"] == 1e30
    assert found["terms"][0]["weighted_norm"] == 1e230

"""The cut of a tensor: whole rows, in order, by the shape alone."""

from __future__ import annotations

import pytest

from merger import blocks
from merger.blocks import Block, split


def test_a_matrix_is_cut_between_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 10)

    found = split((5, 4))

    assert found == (Block(0, 2, 4), Block(2, 4, 4), Block(4, 5, 4))
    assert [(block.start, block.stop) for block in found] == [(0, 8), (8, 16), (16, 20)]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((), [(0, 1)]),
        ((25,), [(0, 10), (10, 20), (20, 25)]),
        ((2, 30), [(0, 30), (30, 60)]),
        ((3, 2, 2), [(0, 8), (8, 12)]),
        ((0,), []),
        ((4, 0), []),
    ],
)
def test_other_shapes_are_covered_without_gaps(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], expected: list[tuple[int, int]]
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 10)

    assert [(block.start, block.stop) for block in split(shape)] == expected

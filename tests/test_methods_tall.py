"""The spectral methods of tall matrices by rows, beside the same methods on whole matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch

from merger.methods import spectral, tall
from merger.methods.spectral import Setting
from merger.task_vector import Factors

UNIT = torch.finfo(torch.float32).eps
SHAPE = (700, 300)  # more columns than a strip of a Gram matrix

Whole = Callable[[spectral.Matrices, Setting], Factors]
ByRows = Callable[[tall.Rows, int, Setting], tall.RowMap]

METHODS: dict[str, tuple[Whole, ByRows]] = {
    "tsv_m": (spectral.tsv_m, tall.tsv_m),
    "iso_c": (spectral.iso_c, tall.iso_c),
    **{
        f"iso_cts {share}": (
            lambda taus, setting, share=share: spectral.iso_cts(taus, setting, share),
            lambda rows, terms, setting, share=share: tall.iso_cts(rows, terms, setting, share),
        )
        for share in (0.0, 0.4, 0.8, 1.0)
    },
}


def random(seed: int, rows: int, columns: int) -> torch.Tensor:
    numbers = np.random.default_rng(seed).standard_normal((rows, columns))
    return torch.tensor(numbers, dtype=torch.float32)


def low_rank(seed: int, rank: int) -> torch.Tensor:
    return random(seed, SHAPE[0], rank) @ random(seed + 100, rank, SHAPE[1])


def falling(seed: int, decades: float) -> torch.Tensor:
    """Return a matrix whose singular values fall by so many powers of ten."""
    left, right = (torch.linalg.qr(random(seed, size, SHAPE[1]).double())[0] for size in SHAPE)
    values = torch.logspace(0, -decades, SHAPE[1], dtype=torch.float64)
    return (left * values @ right.T).float()


TERMS = {
    "of full rank": [random(seed, *SHAPE) for seed in (1, 2, 3)],
    "with small directions": [falling(seed, 3) for seed in (1, 2, 3)],
    "of low rank": [low_rank(1, 7), low_rank(2, 2)],
    "of low and of full rank": [low_rank(1, 7), random(2, *SHAPE)],
    "alone": [random(1, *SHAPE)],
    "equal": [random(1, *SHAPE)] * 2,
    "zero": [torch.zeros(SHAPE), random(2, *SHAPE)],
    "all zero": [torch.zeros(SHAPE)] * 2,
}


def rows_of(taus: Sequence[torch.Tensor], step: int = 128) -> tall.Rows:
    def rows(wanted: Sequence[int]) -> Iterator[list[torch.Tensor]]:
        for first in range(0, SHAPE[0], step):
            yield [taus[term][first : first + step].double() for term in wanted]

    return rows


def by_rows(merge: tall.RowMap, taus: Sequence[torch.Tensor], step: int = 100) -> np.ndarray:
    found = [merge(strips) for strips in rows_of(taus, step)(range(len(taus)))]
    return torch.cat(found).numpy()


@pytest.mark.parametrize("taus", TERMS.values(), ids=TERMS)
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_rows_give_what_whole_matrices_give(
    method: tuple[Whole, ByRows], taus: list[torch.Tensor]
) -> None:
    whole, tall_ = method
    setting = Setting(SHAPE[1], len(taus), UNIT)
    # LAPACK's singular value decomposition in float64, with the zeros of float32.
    left, right = whole(lambda: (tau.double() for tau in taus), setting)
    expected = (left @ right).numpy()

    found = by_rows(tall_(rows_of(taus), len(taus), setting), taus)

    assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize("taus", TERMS.values(), ids=TERMS)
def test_the_parts_are_those_of_the_shared_basis(taus: list[torch.Tensor]) -> None:
    setting = Setting(SHAPE[1], len(taus), UNIT)
    exact = [tau.double() for tau in taus]
    basis = spectral.shared_basis(exact, setting)

    to_basis, parts = tall.shared_parts(rows_of(taus), len(taus), setting)

    found = by_rows(tall.product(to_basis), taus)
    assert found.shape == basis.shape
    np.testing.assert_allclose(found.T @ found, np.eye(found.shape[1]), rtol=0, atol=1e-6)
    for tau, part in zip(exact, parts, strict=True):
        error = np.linalg.norm(found @ part.numpy() - tau.numpy())
        assert error <= 1e-6 * torch.linalg.norm(torch.cat(exact))

"""TSV-M, Iso-C, Iso-CTS and the basis of KnOTS on matrices one can decompose by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from merger.methods import spectral
from merger.methods.spectral import Setting
from merger.task_vector import Factors
from tests.reference import geometry

Method = Callable[[spectral.Matrices, Setting], Factors]
UNIT = torch.finfo(torch.float64).eps
HALF = math.sqrt(0.5)

METHODS: dict[str, Method] = {
    "tsv_m": spectral.tsv_m,
    "iso_c": spectral.iso_c,
    "iso_cts": lambda taus, setting: spectral.iso_cts(taus, setting, 0.8),
    "iso_cts without a common space": lambda taus, setting: spectral.iso_cts(taus, setting, 0.0),
    "iso_cts of the common space only": lambda taus, setting: spectral.iso_cts(taus, setting, 1.0),
}
PLAIN: dict[str, Callable[[Sequence[np.ndarray]], np.ndarray]] = {
    "tsv_m": lambda taus: geometry.tsv_m(taus, len(taus)),
    "iso_c": geometry.iso_c,
    "iso_cts": lambda taus: geometry.iso_cts(taus, len(taus), 0.8),
    "iso_cts of the common space only": lambda taus: geometry.iso_cts(taus, len(taus), 1.0),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def merged(method: Method, *taus: object, size: int = 0, terms: int = 0) -> np.ndarray:
    matrices = [torch.as_tensor(tau, dtype=torch.float64) for tau in taus]
    setting = Setting(size or min(matrices[0].shape), terms or len(matrices), UNIT)
    left, right = method(lambda: iter(matrices), setting)
    return (left @ right).numpy()


def outer(*triples: tuple[float, int, int], rows: int = 4, columns: int = 4) -> np.ndarray:
    """Return Σ σ·e_i·f_jᵀ."""
    matrix = np.zeros((rows, columns))
    for value, row, column in triples:
        matrix[row, column] += value
    return matrix


def expect_close(found: object, expected: object, atol: float = 1e-12) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def low_rank(seed: int, rows: int, columns: int, rank: int) -> np.ndarray:
    return random(seed, rows, rank) @ random(seed + 100, rank, columns)


def test_tsv_m_of_orthogonal_terms_is_their_sum() -> None:
    one = outer((3, 0, 0), (2, 1, 1))
    two = outer((5, 2, 2), (-1, 3, 3))

    expect_close(merged(spectral.tsv_m, one, two), one + two)


def test_tsv_m_keeps_the_first_singular_vectors_of_each_term() -> None:
    one = outer((3, 0, 0), (2, 1, 1), (1, 2, 2))

    expect_close(
        merged(spectral.tsv_m, one, outer((5, 3, 3))), outer((3, 0, 0), (2, 1, 1), (5, 3, 3))
    )
    expect_close(merged(spectral.tsv_m, one, terms=4), outer((3, 0, 0)))
    expect_close(merged(spectral.tsv_m, one, terms=5), outer())


def test_tsv_m_turns_vectors_apart_evenly_until_they_are_orthogonal() -> None:
    one, two = outer((3, 0, 0)), outer((2 * HALF, 0, 1), (2 * HALF, 1, 1))

    found = merged(spectral.tsv_m, one, two)

    # 45° apart: each moves by 22.5°.
    cosine, sine = math.cos(math.pi / 8), math.sin(math.pi / 8)
    expect_close(
        found,
        outer((3 * cosine, 0, 0), (-3 * sine, 1, 0), (2 * sine, 0, 1), (2 * cosine, 1, 1)),
    )


def test_tsv_m_of_equal_terms_is_the_term() -> None:
    tau = outer((3, 0, 0), (2, 1, 1))

    expect_close(merged(spectral.tsv_m, tau, tau), tau)
    expect_close(merged(spectral.tsv_m, tau, -tau), outer())


def test_tsv_m_does_not_split_equal_singular_values() -> None:
    turn = np.linalg.qr(random(1, 4, 4))[0]

    expect_close(merged(spectral.tsv_m, turn, terms=2), turn)


def test_iso_c_levels_the_singular_values() -> None:
    expect_close(merged(spectral.iso_c, np.diag([4.0, 3.0, 2.0, 1.0])), 2.5 * np.eye(4))
    expect_close(
        merged(spectral.iso_c, np.diag([4.0, -3.0, 0.0, 0.0]), np.diag([0.0, 0.0, 2.0, -1.0])),
        2.5 * np.diag([1.0, -1.0, 1.0, -1.0]),
    )


def test_iso_c_of_low_rank_counts_the_zeros_and_leaves_their_directions_alone() -> None:
    one, two = outer((3, 0, 0)), outer((1, 1, 2))

    expect_close(merged(spectral.iso_c, one, two), outer((1, 0, 0), (1, 1, 2)))


def test_iso_c_of_terms_that_cancel_is_zero() -> None:
    tau = random(3, 5, 7)

    assert not merged(spectral.iso_c, tau, -tau).any()
    # What rounding leaves of a sum is not taken for a direction.
    assert not merged(spectral.iso_c, tau, -tau * (1 + 2**-52)).any()


@pytest.mark.parametrize(
    ("size", "terms", "share", "expected"),
    [
        (8, 3, 0.8, (5, 1)),  # 6 and 2/3, rounded to 1 each
        (8, 4, 0.5, (4, 1)),
        (8, 4, 0.75, (8, 0)),  # half a direction each: to even
        (20, 8, 0.4, (4, 2)),  # 12/8 = 1.5, to even
        (8, 3, 0.0, (2, 2)),  # 8/3 rounds to 3, but there are only two each
        (8, 3, 1.0, (8, 0)),
        (2, 3, 0.5, (2, 0)),
    ],
)
def test_iso_cts_shares_the_directions_out(
    size: int, terms: int, share: float, expected: tuple[int, int]
) -> None:
    assert spectral.counts(Setting(size, terms, UNIT), share) == expected


def test_iso_cts_adds_directions_of_each_term() -> None:
    one = outer((4, 0, 0), (2, 2, 2))
    two = outer((3, 1, 1), (1, 3, 3), (-2, 2, 2))

    found = merged(lambda taus, setting: spectral.iso_cts(taus, setting, 0.5), one, two)

    # The sum gives (0, 0) and (1, 1); the own directions (2, 2) of both cancel.
    level = (4 + 3 + 2 + 2) / 4
    expect_close(found, outer((level, 0, 0), (level, 1, 1)))


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("shape", [(12, 20), (20, 12)])
def test_of_full_rank_the_result_is_that_of_the_papers_code(
    name: str, shape: tuple[int, int]
) -> None:
    taus = [random(seed, *shape) for seed in (1, 2, 3)]

    expect_close(merged(METHODS[name], *taus), PLAIN[name](taus), 1e-11)


@pytest.mark.parametrize("name", PLAIN)
def test_of_low_rank_it_is_that_without_arbitrary_vectors(name: str) -> None:
    taus = [low_rank(seed, 30, 40, rank) for seed, rank in ((1, 3), (2, 5), (3, 4))]

    expect_close(merged(METHODS[name], *taus), PLAIN[name](taus), 1e-10)


@every_method
def test_a_turned_basis_turns_the_result(method: Method) -> None:
    taus = [low_rank(seed, 9, 7, rank) for seed, rank in ((1, 7), (2, 2), (3, 1))]
    left, right = (np.linalg.qr(random(9, size, size))[0] for size in (9, 7))

    found = merged(method, *(left @ tau @ right for tau in taus))

    expect_close(found, left @ merged(method, *taus) @ right)


@every_method
def test_equal_singular_values_may_turn(method: Method) -> None:
    # Every singular value is double, so LAPACK's vectors are arbitrary within each pair.
    values = np.repeat([3.0, 2.0, 1.0], 2)
    turns = [np.linalg.qr(random(seed, 6, 6))[0] for seed in range(4)]
    taus = [turns[0] * values @ turns[1], turns[2] * values @ turns[3]]
    mixed = np.kron(np.eye(3), np.array([[0.6, -0.8], [0.8, 0.6]]))

    again = [turns[0] @ mixed * values @ mixed.T @ turns[1], taus[1]]

    expect_close(merged(method, *again), merged(method, *taus))


def factors(*ranks: int, rows: int, columns: int) -> list[Factors]:
    return [
        (torch.tensor(random(seed, rows, rank)), torch.tensor(random(seed + 50, rank, columns)))
        for seed, rank in enumerate(ranks)
    ]


SHARED = factors(4, 4, 4, rows=24, columns=32)
FACTORS = {
    "independent": factors(3, 5, 2, rows=24, columns=32),
    "tall": factors(3, 5, 2, rows=32, columns=24),
    "alone": factors(6, rows=24, columns=32),
    "one right side for all": [(left, SHARED[0][1]) for left, _ in SHARED],
    "one left side for all": [(SHARED[0][0], right) for _, right in SHARED],
    "cancelling": [SHARED[0], (-SHARED[0][0], SHARED[0][1]), SHARED[1]],
    "zero": [(torch.zeros(24, 4).double(), SHARED[0][1]), SHARED[1]],
}


@every_method
@pytest.mark.parametrize("pairs", FACTORS.values(), ids=FACTORS)
@pytest.mark.parametrize("unit", [UNIT, torch.finfo(torch.float32).eps])
def test_low_rank_and_whole_matrices_give_one_result(
    method: Method, pairs: list[Factors], unit: float
) -> None:
    whole = [left @ right for left, right in pairs]
    setting = Setting(24, len(pairs), unit)
    frame = spectral.frame(pairs)

    left, right = method(lambda: iter(frame.cores), setting)
    expected_left, expected_right = method(lambda: iter(whole), setting)

    expect_close(frame.left @ left @ right @ frame.right, expected_left @ expected_right, 1e-10)


def test_the_frame_is_exact_and_orthonormal() -> None:
    pairs = factors(3, 5, rows=24, columns=6)

    frame = spectral.frame([(left.float(), right.float()) for left, right in pairs])

    assert frame.left.shape == (24, 8)
    assert frame.right.shape == (6, 6)
    expect_close(frame.left.T @ frame.left, np.eye(8))
    expect_close(frame.right @ frame.right.T, np.eye(6))
    for core, (left, right) in zip(frame.cores, pairs, strict=True):
        expect_close(
            frame.left @ core @ frame.right, left.float().double() @ right.float().double()
        )


def test_the_shared_basis_spans_all_terms_and_no_more() -> None:
    taus = [torch.tensor(low_rank(seed, 12, 9, 2)) for seed in (1, 2)]

    basis = spectral.shared_basis(taus, Setting(9, 2, UNIT))

    assert basis.shape == (12, 4)
    for tau in taus:
        expect_close(basis @ basis.T @ tau, tau)


def test_the_largest_entry_of_a_row_is_made_positive() -> None:
    parts = [torch.tensor([[1.0], [-3.0], [0.5], [-2.0]]), torch.tensor([[-2.0], [1], [0.5], [2]])]

    assert spectral.row_signs(parts).tolist() == [-1.0, -1.0, 1.0, -1.0]


def test_a_decomposition_that_does_not_converge_is_tried_on_the_transpose(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tau = torch.tensor(random(7, 5, 8))
    svd = torch.linalg.svd

    def stubborn(matrix: torch.Tensor, **options: bool) -> object:
        if matrix.shape == (5, 8):
            raise torch.linalg.LinAlgError
        return svd(matrix, **options)

    expected = merged(spectral.iso_c, tau)
    monkeypatch.setattr(torch.linalg, "svd", stubborn)

    expect_close(merged(spectral.iso_c, tau), expected)


def test_float32_matrices_of_low_rank_are_decomposed_whatever_their_size() -> None:
    # LAPACK's SVD in float32 gave up on such a matrix of 2048 x 5632.
    tau = torch.tensor(low_rank(1, 600, 900, 3), dtype=torch.float32)
    setting = Setting(600, 1, torch.finfo(torch.float32).eps)

    for matrix in (tau, tau.T):
        u, s, v = spectral._svd(matrix, float(torch.linalg.matrix_norm(tau)), setting)

        assert s.shape == (3,)
        assert all(part.dtype == torch.float32 for part in (u, s, v))
        expect_close(u.T @ u, np.eye(3), 1e-6)
        expect_close(v @ v.T, np.eye(3), 1e-6)
        expect_close((u * s) @ v, matrix, 1e-4)


@every_method
@pytest.mark.parametrize("shape", [(60, 90), (90, 60)])
def test_float32_has_the_result_of_float64(method: Method, shape: tuple[int, int]) -> None:
    taus = [torch.tensor(random(seed, *shape), dtype=torch.float32) for seed in (1, 2, 3)]
    setting = Setting(60, 3, torch.finfo(torch.float32).eps)

    left, right = method(lambda: iter(taus), setting)

    assert left.dtype == right.dtype == torch.float32
    expected = merged(method, *taus)
    assert np.linalg.norm((left @ right).numpy() - expected) < 1e-5 * np.linalg.norm(expected)


def test_large_finite_values_are_not_taken_for_zero() -> None:
    # Their squares are beyond float32.
    tau = torch.diag(torch.tensor([4e25, 2e25], dtype=torch.float32))

    left, right = spectral.iso_c(lambda: iter([tau]), Setting(2, 1, 2.0**-23))

    np.testing.assert_allclose((left @ right).numpy(), 3e25 * np.eye(2), rtol=1e-6)


def test_iso_cts_of_adapters_that_fit_the_common_space_is_iso_c() -> None:
    taus = [low_rank(seed, 30, 40, 4) for seed in (1, 2)]

    expect_close(merged(METHODS["iso_cts"], *taus), merged(spectral.iso_c, *taus))

"""Methods on singular values: TSV-M, Iso-C, Iso-CTS, and the shared basis of KnOTS.

Pure functions on matrices in float32 or float64, on any device. Letters: N terms, O out, I in, R
rank, P and Q the sizes of a smaller basis. Every result is a product of two factors, (O, R) and
(R, I), and is the same in every orthonormal basis: `frame` finds a small one for low-rank
operands, and the methods work on what the operands are in it.

Results depend on subspaces only, never on what LAPACK returns by accident: a pair (u, v) may
change its sign, pairs of equal singular values may turn, and the vectors of singular values that
are zero, which are arbitrary, are never used (`_svd` says what counts as zero). Where the papers'
code uses them its result is a matter of chance; ours is then the mean over all their choices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from merger.task_vector import Factors

Matrices = Callable[[], Iterable[torch.Tensor]]
"""The weighted matrices of the terms in their order, to be read again and again."""

NOISE = 4
"""Rounding units, times the Frobenius norm, up to which a singular value counts as zero.

What rounding of the elements leaves of a zero stays below 0.2 units, and LAPACK adds less than 2
(measured in float32 on sums of low rank up to 1024 x 1024). A larger factor would take directions
from square matrices of full rank, whose smallest singular value is about 1/n of that norm.
"""

_CHUNK_ELEMENTS = 1 << 20  # of a float32 matrix that are in float64 at once


@dataclass(frozen=True, slots=True)
class Setting:
    """What a method knows besides the matrices, which may stand in a smaller basis.

    `size` is min(O, I) of the tensor, `terms` the number of terms of the recipe, `unit` the
    rounding unit of the dtype in which the elements of a task vector are formed.
    """

    size: int
    terms: int
    unit: float


@dataclass(frozen=True, slots=True)
class Frame:
    """Orthonormal bases, (O, P) and (Q, I), in which low-rank operands are small, (P, Q) each."""

    left: torch.Tensor
    right: torch.Tensor
    cores: tuple[torch.Tensor, ...]


def frame(factors: Sequence[Factors]) -> Frame:
    """Return the common basis of products L·R, exactly: by QR of all lefts and of all rights.

    Takes float32 or float64, computes in float64. P = min(O, ΣR), Q = min(ΣR, I).
    """
    lefts = [left.double() for left, _ in factors]
    rights = [right.double() for _, right in factors]
    left_OP, lower = torch.linalg.qr(torch.cat(lefts, dim=1))  # noqa: N806 shapes
    right_IQ, upper = torch.linalg.qr(torch.cat(rights).T)  # noqa: N806 shapes
    ranks = [left.shape[1] for left in lefts]
    cores = tuple(
        a @ b.T for a, b in zip(lower.split(ranks, 1), upper.split(ranks, 1), strict=True)
    )
    return Frame(left_OP, right_IQ.T.contiguous(), cores)


def tsv_m(taus: Matrices, setting: Setting) -> Factors:
    """Return U⊥ S V⊥ᵀ: each term's first ⌊min(O, I)/N⌋ singular triplets, made orthogonal.

    Gargiulo et al. 2025, "Task Singular Vectors", algorithm 1 and their code
    (compute_and_sum_svd_mem_reduction): all kept left vectors side by side are replaced by their
    polar factor, and so are the right ones. Where we differ: the code computes ⌊k·(1/N)⌋ in
    floating point, which is one less for some N; vectors of singular values that are zero take no
    part; where several terms have the same directions the polar factor stays a partial isometry
    (two equal terms give the term itself); the code leaves out tensors called text_projection.
    """
    kept = []
    for tau in taus():
        norm = _norm(tau)
        kept.append(_svd(tau, norm, setting, setting.size // setting.terms))
    u, s, v = _joined(kept)
    return _polar(u, setting) * s, _polar(v.T, setting).T


def iso_c(taus: Matrices, setting: Setting) -> Factors:
    """Return σ̄·U Vᵀ of Σ wᵢτᵢ, σ̄ the mean of its min(O, I) singular values, zeros too.

    Marczak et al. 2025, "No Task Left Behind", algorithm 1 and its code, which sums like us (the
    copy in the TSV repository averages, a factor 1/N). The code gives the length σ̄ to the
    directions of singular values 0 as well, which are arbitrary; here they get nothing, so for
    adapters of ranks ΣR the result has ΣR directions, each as long as in the code.
    """
    u, s, v = _total(taus, setting)
    return u * (s.sum() / setting.size), v


def iso_cts(taus: Matrices, setting: Setting, common_share: float) -> Factors:
    """Return σ̄·U⊥V⊥ᵀ of the sum's first directions and of each term's own.

    Marczak et al. 2025, algorithm 2 and its code: with m = min(O, I) each term gets
    n = round((m - ⌊m·common_share⌋)/N) directions (halves to even), the sum the other m - N·n.
    A term's own are the first singular triplets of τᵢ - U_c U_cᵀ τᵢ. All left vectors are replaced
    by their polar factor, and all right ones; σ̄ is the sum of all kept singular values over m.
    Where we differ: n is at most ⌊m/N⌋ (for common_share near 0 the code indexes from the end);
    vectors of singular values that are zero take no part, so low-rank terms whose sum has no more
    than the common directions have none of their own left, and the result is that of Iso-C.
    """
    common, own = counts(setting, common_share)
    u_common, s_common, v_common = _total(taus, setting, common)
    kept = [(u_common, s_common, v_common)]
    # An error in the common directions leaves this much more of a term that lies within them.
    condition = float(s_common[0] / s_common[-1]) if len(s_common) else 1.0
    for tau in taus() if own else ():
        rest = tau - u_common @ (u_common.T @ tau)
        norm = _norm(tau) * condition
        kept.append(_svd(rest, norm, setting, own))
    u, s, v = _joined(kept)
    return _polar(u, setting) * (s.sum() / setting.size), _polar(v.T, setting).T


def counts(setting: Setting, common_share: float) -> tuple[int, int]:
    """Return how many directions of Iso-CTS are common, and how many each term has of its own."""
    size, terms = setting.size, setting.terms
    own = min(round((size - int(size * common_share)) / terms), size // terms)
    return size - own * terms, own


def shared_basis(taus: Sequence[torch.Tensor], setting: Setting) -> torch.Tensor:
    """Return U of U Σ [V₁ᵀ … V_Nᵀ] = [τ₁ … τ_N], (O, R), R the rank of all side by side.

    Stoica et al. 2025, "KnOTS", section 4. Their code keeps singular values above 1e-5; here those
    that are not zero. Columns have any sign: see `row_signs`.
    """
    together = torch.cat(list(taus), dim=1)
    norm = _norm(together)
    if together.dtype == torch.float32 and together.shape[0] <= together.shape[1]:
        return _of_gram(together, norm, setting)[0].float()
    return _svd(together, norm, setting)[0]


def row_signs(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return +1 or -1 per row of parts side by side, (R,), that makes its largest entry positive.

    Of entries of equal magnitude the first decides.
    """
    together = torch.cat(list(parts), dim=1)
    largest = together.abs().argmax(dim=1, keepdim=True)
    return torch.where(together.gather(1, largest)[:, 0] < 0, -1.0, 1.0).to(together.dtype)


Triplets = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""U (O, R), singular values (R,) in falling order, Vᵀ (R, I)."""


def _svd(matrix: torch.Tensor, norm: float, setting: Setting, count: int | None = None) -> Triplets:
    """Return the first `count` singular triplets of a matrix without those of value zero.

    Zero is what rounding can make of zero: at most `NOISE` units of `norm`, the Frobenius norm of
    what the matrix was computed from. A float32 matrix is decomposed through its smaller Gram
    matrix in float64, which loses nothing above that, takes less time than LAPACK's SVD in
    float32, and always converges: that one gives up on large matrices with many values near zero.
    """
    if matrix.dtype == torch.float64:
        u, s, v = _lapack(matrix)
        kept = _kept(s, norm, setting, count)
        return u[:, :kept], s[:kept], v[:kept]
    if matrix.shape[0] > matrix.shape[1]:
        v, s, u = _svd(matrix.T, norm, setting, count)
        return u.T, s, v.T
    left, values = _of_gram(matrix, norm, setting, count)
    across = left.T / values[:, None]
    right = [(across @ chunk.double()).float() for chunk in _chunks(matrix)]
    return left.float(), values.float(), torch.cat(right, dim=1)


def _kept(values: torch.Tensor, norm: float, setting: Setting, count: int | None) -> int:
    """Return how many singular values are among the first and not zero.

    Those that equal the last of them are kept too: a cut between equal values would keep a part of
    their space that LAPACK happened to choose.
    """
    rank = int(torch.count_nonzero(values > NOISE * setting.unit * norm))
    if count is None or count >= rank or count == 0:
        return rank if count is None else min(count, rank)
    least = values[count - 1] - NOISE * setting.unit * values[0]
    return int(torch.count_nonzero(values[:rank] >= least))


def _lapack(matrix: torch.Tensor) -> Triplets:
    try:
        u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # its stub forgets to say so
        # It did not converge, by bad luck with rounding, which the transpose does not share.
        v, s, u = torch.linalg.svd(matrix.T, full_matrices=False)
        return u.T, s, v.T
    return u, s, v


def _of_gram(
    matrix: torch.Tensor, norm: float, setting: Setting, count: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return left vectors and values as `_svd`, of a float32 matrix with O ≤ I, in float64."""
    rows = matrix.shape[0]
    gram = torch.zeros(rows, rows, dtype=torch.float64, device=matrix.device)
    for chunk in _chunks(matrix):
        exact = chunk.double()
        gram += exact @ exact.T
    return of_gram(gram, norm, setting, count)


def of_gram(
    gram: torch.Tensor, norm: float, setting: Setting, count: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the vectors (n, R) and singular values (R,) of a matrix by its Gram matrix (n, n).

    Float64, of which the upper triangle is read. `norm` and `count` are those of `_svd`.
    """
    squares, vectors = torch.linalg.eigh(gram, UPLO="U")
    values = squares.clamp(min=0).sqrt().flip(0)
    kept = _kept(values, norm, setting, count)
    return vectors.flip(1)[:, :kept], values[:kept]


def _chunks(matrix: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.split(matrix, max(1, _CHUNK_ELEMENTS // max(1, matrix.shape[0])), dim=1)


def _total(taus: Matrices, setting: Setting, count: int | None = None) -> Triplets:
    total: torch.Tensor | None = None
    norm = 0.0
    for tau in taus():
        norm += _norm(tau)
        total = tau.clone() if total is None else total.add_(tau)
    assert total is not None
    return _svd(total, norm, setting, count)


def _joined(kept: Sequence[Triplets]) -> Triplets:
    us, ss, vs = zip(*kept, strict=True)
    return torch.cat(us, dim=1), torch.cat(ss), torch.cat(vs)


def _polar(columns: torch.Tensor, setting: Setting) -> torch.Tensor:
    """Return the polar factor of unit columns: the nearest partial isometry."""
    u, _, v = _svd(columns, _norm(columns), setting)
    return u @ v


def _norm(matrix: torch.Tensor) -> float:
    # In float64: squares of finite float32 values need not be finite in float32.
    return float(torch.linalg.vector_norm(matrix, dtype=torch.float64))

"""A delta as the product of two thin factors: concatenated, compressed, or cut from an SVD.

Pure functions on matrices. Letters: O rows, I columns, R rank, N terms. The best product of rank R
is the one of the R largest singular values (Eckart and Young 1936); its error is the root of the
sum of the other squares. Singular values go half to each side, as √σ: both factors then have
columns of one size, which keeps float16 in its range. For bfloat16 and float32 the split does not
matter, since their rounding is relative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from merger.task_vector import Factors


@dataclass(frozen=True, slots=True)
class Factorised:
    """Left (O, R) and right (R, I), and the share of Σσ² that they hold."""

    left: torch.Tensor
    right: torch.Tensor
    energy: float


def concatenate(pairs: Sequence[Factors], coefficients: Sequence[float]) -> Factors:
    """Return [c₁L₁ … cₙLₙ] and [R₁; …; Rₙ], whose product is Σ cᵢLᵢRᵢ.

    N ≥ 1 pairs (O, Rᵢ), (Rᵢ, I) of one dtype -> (O, ΣRᵢ), (ΣRᵢ, I) in it. Exact but for one
    rounding of each cL; PEFT's weighted sums put √c on both factors, where a sign has no root.
    """
    scaled = [left * c for (left, _), c in zip(pairs, coefficients, strict=True)]
    return torch.cat(scaled, dim=1), torch.cat([right for _, right in pairs], dim=0)


def compress(left: torch.Tensor, right: torch.Tensor, rank: int) -> Factorised:
    """Return the best factors of at most `rank` columns for a product of factors.

    (O, R), (R, I) -> (O, rank), (rank, I) in float64. Two QR decompositions and the SVD of a matrix
    of at most R by R: the product itself is never formed.
    """
    q_left, r_left = torch.linalg.qr(left.double())
    q_right, r_right = torch.linalg.qr(right.double().T)
    core = truncate(r_left @ r_right.T, rank)
    return Factorised(q_left @ core.left, core.right @ q_right.T, core.energy)


def truncate(matrix: torch.Tensor, rank: int) -> Factorised:
    """Return the best factors of at most `rank` columns for a matrix (O, I), in its dtype.

    A full SVD. The largest entry of each left vector is made positive, the first among equals, so
    that the bits do not hang on a sign that LAPACK is free to choose.
    """
    u, s, vh = _svd(matrix)
    squares = s.double().square()
    total = float(squares.sum())
    energy = float(squares[:rank].sum()) / total if total else 1.0
    u, s, vh = u[:, :rank], s[:rank], vh[:rank]
    largest = u.gather(0, u.abs().argmax(dim=0, keepdim=True))
    half = torch.where(largest < 0, -s.sqrt(), s.sqrt())  # (1, rank)
    return Factorised(u * half, half.T * vh, energy)


def _svd(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    try:
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # its stub forgets to say so
        # LAPACK gives up on some large matrices of low rank. In float64, and turned, the rounding
        # is another.
        v, s, uh = torch.linalg.svd(matrix.T.double(), full_matrices=False)
        u, vh = uh.T, v.T
    return u.to(matrix.dtype), s.to(matrix.dtype), vh.to(matrix.dtype)


def pad(left: torch.Tensor, right: torch.Tensor, rank: int) -> Factors:
    """Return the factors with columns and rows of zeros up to `rank`: the same product."""
    missing = rank - left.shape[1]
    return (
        torch.nn.functional.pad(left, (0, missing)),
        torch.nn.functional.pad(right, (0, 0, 0, missing)),
    )

"""TSV-M, Iso-C, Iso-CTS and the parts of KnOTS of tall matrices, read by rows and never held.

Pure functions on float64, on any device. The methods are those of `spectral`, with its letters and
its notion of a singular value that is zero; here O is so much (the rows of a vocabulary) that not
even one matrix should be in memory. Right vectors and singular values come from Gram matrices,
which are sums over rows. Left vectors are never formed either: U = τ V Σ⁻¹ gives some rows of U
from the same rows of τ, so a result is a function of rows. What is in memory are some matrices of
I by I, for KnOTS of N·I by N·I.

Squares cost half of the digits: a singular value is known to about 1e-8 of the largest. That is
less than rounding leaves of a task vector in float32, and too much for one in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import sqrt

import torch

from merger.methods import spectral
from merger.methods.spectral import Setting

Rows = Callable[[Sequence[int]], Iterable[Sequence[torch.Tensor]]]
"""The weighted matrices of the terms asked for, some rows of each at a time, (r, I) each, to be
read again and again; from the first row to the last."""

RowMap = Callable[[Sequence[torch.Tensor]], torch.Tensor]
"""Some rows of a result, (r, K), from the same rows of all terms, (r, I) each."""

_STRIP = 256  # columns of a Gram matrix whose lower triangle is left out together


def tsv_m(rows: Rows, terms: int, setting: Setting) -> RowMap:
    """Return `spectral.tsv_m` of as many terms."""
    kept = []
    for term in range(terms):
        gram = _gram(tau for (tau,) in rows([term]))
        kept.append(spectral.of_gram(gram, _norm(gram), setting, setting.size // setting.terms))
    to_left = [v / s for v, s in kept]

    def lefts(taus: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.cat([tau @ v for tau, v in zip(taus, to_left, strict=True)], dim=1)

    rights, lengths = torch.cat([v for v, _ in kept], dim=1), torch.cat([s for _, s in kept])
    return _orthogonal(lefts, lengths, rights, rows, terms, setting)


def iso_c(rows: Rows, terms: int, setting: Setting) -> RowMap:
    """Return `spectral.iso_c` of as many terms: U Vᵀ is the sum times V Σ⁻¹ Vᵀ."""
    v, s = _total(rows, terms, setting)
    across = (v / s) @ v.T * (s.sum() / setting.size)
    return lambda taus: _sum(taus) @ across


def iso_cts(rows: Rows, terms: int, setting: Setting, common_share: float) -> RowMap:
    """Return `spectral.iso_cts` of as many terms.

    What is left of a term beside the common directions has the Gram matrix τᵀτ - BᵀB, B = U_cᵀτ.
    """
    common, own = spectral.counts(setting, common_share)
    if not own:
        return iso_c(rows, terms, setting)
    v_common, s_common = _total(rows, terms, setting, common)
    to_common = v_common / s_common
    condition = float(s_common[0] / s_common[-1]) if len(s_common) else 1.0
    kept, to_own, in_common = [(v_common, s_common)], [], []
    for term in range(terms):
        within = to_common.T @ _across(rows, term, terms)
        gram = _gram(tau for (tau,) in rows([term]))
        norm = _norm(gram) * condition
        v, s = spectral.of_gram(gram - within.T @ within, norm, setting, own)
        kept.append((v, s))
        to_own.append(v / s)
        in_common.append(within @ (v / s))
    taken = torch.cat(in_common, dim=1)

    def lefts(taus: Sequence[torch.Tensor]) -> torch.Tensor:
        first = _sum(taus) @ to_common
        own_ = torch.cat([tau @ v for tau, v in zip(taus, to_own, strict=True)], dim=1)
        return torch.cat([first, own_ - first @ taken], dim=1)

    rights, lengths = torch.cat([v for v, _ in kept], dim=1), torch.cat([s for _, s in kept])
    mean = (lengths.sum() / setting.size).expand_as(lengths)
    return _orthogonal(lefts, mean, rights, rows, terms, setting)


def shared_parts(
    rows: Rows, terms: int, setting: Setting
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Return V Σ⁻¹, (N·I, R), and the parts Σ Vᵢᵀ, (R, I) each, of U Σ [V₁ᵀ … V_Nᵀ] = [τ₁ … τ_N].

    Rows of [τ₁ … τ_N] times the first are those of `spectral.shared_basis`, in any signs.
    """
    gram = _gram(torch.cat(list(taus), dim=1) for taus in rows(range(terms)))
    v, s = spectral.of_gram(gram, _norm(gram), setting)
    return v / s, torch.split((v * s).T, v.shape[0] // terms, dim=1)


def product(across: torch.Tensor) -> RowMap:
    """Return the rows of [τ₁ … τ_N] times a matrix, (N·I, K)."""
    return lambda taus: torch.cat(list(taus), dim=1) @ across


def _orthogonal(
    lefts: RowMap,
    lengths: torch.Tensor,
    rights: torch.Tensor,
    rows: Rows,
    terms: int,
    setting: Setting,
) -> RowMap:
    """Return U⊥ diag(lengths) V⊥ᵀ of unit columns U and V, (O, K) and (I, K)."""
    left = _inverse_root(_gram(lefts(taus) for taus in rows(range(terms))), setting)
    right = rights @ _inverse_root(_gram([rights]), setting)
    across = left * lengths @ right.T
    return lambda taus: lefts(taus) @ across


def _inverse_root(gram: torch.Tensor, setting: Setting) -> torch.Tensor:
    """Return what makes unit columns of this Gram matrix their polar factor: its root, inverted."""
    v, s = spectral.of_gram(gram, _norm(gram), setting)
    return v / s @ v.T


def _total(
    rows: Rows, terms: int, setting: Setting, count: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    squares = [0.0] * terms

    def sums() -> Iterator[torch.Tensor]:
        for taus in rows(range(terms)):
            for term, tau in enumerate(taus):
                squares[term] += float(torch.linalg.vector_norm(tau)) ** 2
            yield _sum(taus)

    gram = _gram(sums())
    return spectral.of_gram(gram, sum(map(sqrt, squares)), setting, count)


def _gram(strips: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return XᵀX of a matrix given by rows; what is below the diagonal's strips stays zero."""
    gram: torch.Tensor | None = None
    for strip in strips:
        size = strip.shape[1]
        gram = strip.new_zeros(size, size) if gram is None else gram
        for first in range(0, size, _STRIP):
            last = first + _STRIP
            gram[first:last, first:].addmm_(strip[:, first:last].T, strip[:, first:])
    assert gram is not None
    return gram


def _across(rows: Rows, term: int, terms: int) -> torch.Tensor:
    """Return (Σ τⱼ)ᵀ τ of one term, (I, I)."""
    across: torch.Tensor | None = None
    for taus in rows(range(terms)):
        size = taus[term].shape[1]
        across = taus[term].new_zeros(size, size) if across is None else across
        across.addmm_(_sum(taus).T, taus[term])
    assert across is not None
    return across


def _sum(taus: Sequence[torch.Tensor]) -> torch.Tensor:
    total = taus[0]
    for tau in taus[1:]:
        total = total + tau
    return total


def _norm(gram: torch.Tensor) -> float:
    """Return the Frobenius norm of the matrix whose Gram matrix this is."""
    return sqrt(float(gram.diagonal().sum()))

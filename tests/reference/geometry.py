"""Spherical and spectral methods once more: whole tensors in float64 numpy, from the definitions.

Written without a look at the merger, to be held against it. Operands are θ or τ as arrays of one
shape; results are what those operands merge to. Nothing here is low-rank, blockwise or stable for
its own sake.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def angle(first: Array, second: Array) -> float:
    """Return the angle of two vectors, exact for small and for large ones (Kahan)."""
    a, b = first / np.linalg.norm(first), second / np.linalg.norm(second)
    return 2 * math.atan2(float(np.linalg.norm(a - b)), float(np.linalg.norm(a + b)))


def slerp(first: Array, second: Array, t: float, linear_above: float = 0.9995) -> Array:
    """Return slerp of two flat vectors, linear for nearly parallel, opposite or zero ones."""
    if not first.any() or not second.any():
        return (1 - t) * first + t * second
    omega = angle(first, second)
    if abs(math.cos(omega)) > linear_above:
        return (1 - t) * first + t * second
    weights = math.sin((1 - t) * omega), math.sin(t * omega)
    return (weights[0] * first + weights[1] * second) / math.sin(omega)


def spherical_mean(vectors: Sequence[Array], weights: Sequence[float], steps: int) -> Array:
    """Return the mean after so many steps from the normalised mean, with the mean norm."""
    shares = np.array(weights) / math.fsum(weights)
    norms = [float(np.linalg.norm(vector)) for vector in vectors]
    length = math.fsum(share * norm for share, norm in zip(shares, norms, strict=True))
    kept = [index for index, norm in enumerate(norms) if norm > 0]
    pulls = [shares[index] / math.fsum(shares[kept]) for index in kept]
    units = [vectors[index] / norms[index] for index in kept]
    point = sum(pull * unit for pull, unit in zip(pulls, units, strict=True))
    point = point / np.linalg.norm(point)
    for _ in range(steps):
        step = np.zeros_like(point)
        for pull, unit in zip(pulls, units, strict=True):
            across = unit - (unit @ point) * point
            if np.linalg.norm(across) > 0:
                step += pull * angle(point, unit) * across / np.linalg.norm(across)
        length_of_step = float(np.linalg.norm(step))
        if length_of_step == 0:
            break
        point = math.cos(length_of_step) * point + math.sin(length_of_step) * step / length_of_step
    return length * point


def model_stock(taus: Sequence[Array]) -> Array:
    """Return t times the mean of the flat τᵢ."""
    count = len(taus)
    cosines = []
    for first in range(count):
        for second in range(first):
            norms = np.linalg.norm(taus[first]) * np.linalg.norm(taus[second])
            cosines.append(float(taus[first] @ taus[second] / norms) if norms else 0.0)
    mean = math.fsum(cosines) / len(cosines)
    return count * mean / (1 + (count - 1) * mean) * sum(taus) / count


def by_row(function: Callable[..., Array], matrices: Sequence[Array]) -> Array:
    """Return what `function` makes of each row of some matrices."""
    return np.stack([function(*rows) for rows in zip(*matrices, strict=True)])


def tsv_m(taus: Sequence[Array], terms: int) -> Array:
    """Return the merged matrix of weighted τᵢ; vectors of singular values 0 are left out."""
    keep = min(taus[0].shape) // terms
    us, ss, vs = zip(*(_svd(tau, np.linalg.norm(tau)) for tau in taus), strict=True)
    u = np.concatenate([u[:, :keep] for u in us], axis=1)
    v = np.concatenate([v[:keep] for v in vs])
    return (_polar(u) * np.concatenate([s[:keep] for s in ss])) @ _polar(v)


def iso_c(taus: Sequence[Array]) -> Array:
    """Return the sum with its singular values levelled, those of 0 left at 0."""
    u, s, v = _svd(sum(taus), sum(float(np.linalg.norm(tau)) for tau in taus))
    return s.sum() / min(taus[0].shape) * (u @ v)


def iso_cts(taus: Sequence[Array], terms: int, common_share: float) -> Array:
    """Return the levelled common and own directions."""
    size = min(taus[0].shape)
    own = round((size - int(size * common_share)) / terms)
    common = size - own * terms
    norm = sum(float(np.linalg.norm(tau)) for tau in taus)
    u, s, v = _svd(sum(taus), norm)
    us, ss, vs = [u[:, :common]], [s[:common]], [v[:common]]
    for tau in taus:
        found = _svd(tau - us[0] @ us[0].T @ tau, 1e3 * float(np.linalg.norm(tau)))
        us.append(found[0][:, :own])
        ss.append(found[1][:own])
        vs.append(found[2][:own])
    level = np.concatenate(ss).sum() / size
    return level * _polar(np.concatenate(us, axis=1)) @ _polar(np.concatenate(vs))


def shared_parts(taus: Sequence[Array]) -> tuple[Array, list[Array]]:
    """Return KnOTS' basis and what each τᵢ is in it, side by side with largest entries positive."""
    together = np.concatenate(taus, axis=1)
    u, _, v = _svd(together, np.linalg.norm(together))
    u = u * np.sign(v[range(len(v)), np.abs(v).argmax(axis=1)])
    return u, [u.T @ tau for tau in taus]


def _svd(matrix: Array, norm: float) -> tuple[Array, Array, Array]:
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    rank = int((s > 1e-13 * norm).sum())
    return u[:, :rank], s[:rank], v[:rank]


def _polar(matrix: Array) -> Array:
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    rank = int((s > 1e-12).sum())
    return u[:, :rank] @ v[:rank]

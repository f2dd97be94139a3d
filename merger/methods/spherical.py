"""Spherical means: slerp, nuslerp, multislerp, karcher, as coefficients of the operands.

Every one of them is a linear combination Σ cᵢθᵢ whose coefficients depend on norms and angles
only, so on the Gram matrix. Pure functions on numbers in float64; nothing here sees a tensor.
Letters: N operands, K = N (task vectors) or N + 1 (models: the base comes last), G groups.

What lies on the sphere are task vectors τᵢ, or models θᵢ = base + τᵢ. For models the Gram matrix
holds the base and the τᵢ apart: ‖θ₁ - θ₂‖ then comes from the τᵢ, and angles of models that
differ in the fourth digit are as exact as others (1 - cos would have lost half the digits).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

SLERP_LINEAR = 0.9995
"""|cos| above which `slerp` is linear, as in mergekit and most implementations."""

SINGULAR = 1e-4
"""Sines and lengths below which a direction is no longer taken from the data.

Parallel vectors this close differ from their chord by less than float32 can show; opposite ones
would be combined with coefficients above 10⁴, which float32 does not survive.
"""

_ROUNDING = 2.0**-45  # of Σ cᵢ - 1 for up to thousands of operands; far below float32


@dataclass(frozen=True, slots=True)
class Combination:
    """result - base = Σ operandsᵢ·τᵢ + base·base; (N, G) and (G,)."""

    operands: Array
    base: Array


def on_sphere(gram: Array, operands: int) -> Array:
    """Return the Gram matrix (N, N, G) of what lies on the sphere, from that of τ and base."""
    taus = gram[:operands, :operands]
    if len(gram) == operands:
        return taus
    along: Array = gram[:operands, operands]
    models: Array = gram[operands, operands] + (along[:, None] + along[None, :]) + taus
    return models


def slerp(gram: Array, t: float) -> Combination:
    """Return the spherical interpolation of two operands from the first (t = 0) to the second.

    sin((1-t)Ω)/sin Ω · θ₁ + sin(tΩ)/sin Ω · θ₂ (Shoemake 1985): the angle is that of the normalised
    vectors, interpolated are the vectors as they are. Linear if |cos Ω| > 0.9995 or a norm is 0.
    """
    cosine, sine, is_zero = _angle(gram)
    return _interpolate(gram, t, np.arctan2(sine, cosine), is_zero | (abs(cosine) > SLERP_LINEAR))


def nuslerp(gram: Array, shares: Sequence[float]) -> Combination:
    """Return slerp at t = the second operand's share; linear only where sin Ω ≤ 1e-4.

    mergekit's nuslerp with three differences: it is linear only where sin² Ω ≤ 1e-16 in float32;
    a vector of norm 0 makes the result linear here, there it is taken for a right angle; weights
    of sum 0 are refused here, there they mean t = 0.5. Its `nuslerp_row_wise` is our `column`, its
    default without flattening our `row`.
    """
    cosine, sine, is_zero = _angle(gram)
    return _interpolate(gram, shares[1], np.arctan2(sine, cosine), is_zero | (sine <= SINGULAR))


def _angle(gram: Array) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Return cosine and sine of the angle of two operands, and where one is zero; (G,) each."""
    first, second, dot = (on_sphere(gram, 2)[pair] for pair in ((0, 0), (1, 1), (0, 1)))
    apart = np.maximum(gram[0, 0] + gram[1, 1] - 2 * gram[0, 1], 0)  # ‖θ₁ - θ₂‖²
    along = gram[0, 0] - gram[0, 1]  # θ₁·(θ₁ - θ₂)
    if len(gram) > 2:
        along = along + (gram[0, 2] - gram[1, 2])
    area = np.sqrt(np.maximum(first * apart - along * along, 0))
    product = np.sqrt(first) * np.sqrt(second)
    is_zero = product == 0
    product = np.where(is_zero, 1.0, product)
    return dot / product, area / product, is_zero


def _interpolate(
    gram: Array, t: float, angle: Array, is_linear: npt.NDArray[np.bool_]
) -> Combination:
    angle = np.where(is_linear, np.pi / 2, angle)
    sine = np.sin(angle)
    first = np.where(is_linear, 1 - t, np.sin((1 - t) * angle) / sine)
    second = np.where(is_linear, t, np.sin(t * angle) / sine)
    # Σ cᵢ - 1 without the cancellation: exactly 0 at both ends and where the angle is 0.
    more = 2 * np.sin((1 - t) * angle / 2) * np.sin(t * angle / 2) / np.cos(angle / 2)
    base = np.where(is_linear, 0.0, more) if len(gram) > 2 else np.zeros_like(angle)
    return Combination(np.stack([first, second]), base)


def multislerp(gram: Array, shares: Sequence[float]) -> Combination:
    """Return the spherical mean in one step, for G = 1: L · exp_μ(Σ ŵᵢ log_μ(uᵢ)).

    uᵢ = θᵢ/‖θᵢ‖, μ = Σ ŵᵢuᵢ normalised, L = Σ ŵᵢ‖θᵢ‖; `shares` are the ŵᵢ, of sum 1. For two
    operands of equal norm this is slerp. Where mergekit 0.1.5 differs: it takes the projections
    uᵢ - (uᵢ·μ)μ for logarithms, whose weighted sum is 0 by the definition of μ, so its result is
    L·μ; the two agree for equal angles to μ and to third order in the angles. Zero operands and
    zero means are treated as in `karcher`; mergekit refuses a zero mean of more than two operands.
    """
    return _spherical_mean(gram, shares, steps=1, tolerance=0.0)


def karcher(
    gram: Array, shares: Sequence[float], *, max_iterations: int, tolerance: float
) -> Combination:
    """Return L times the point u with the least Σ ŵᵢ ∠(u, uᵢ)², for G = 1 (Karcher 1977).

    Found by steps u ← exp_u(Σ ŵᵢ log_u(uᵢ)) from the normalised Σ ŵᵢuᵢ, until one is shorter than
    `tolerance`. A zero operand has no direction: the others share its weight, L counts it with
    norm 0. An operand opposite to u pulls nowhere. Where Σ ŵᵢuᵢ is zero there is no mean direction
    and the result is Σ ŵᵢθᵢ. mergekit 0.1.5 has equal weights and models only, leaves out norms up
    to its tolerance, and starts from the first operand where the mean is zero.
    """
    return _spherical_mean(gram, shares, steps=max_iterations, tolerance=tolerance)


def _spherical_mean(
    gram: Array, shares: Sequence[float], *, steps: int, tolerance: float
) -> Combination:
    weights = np.array(shares)
    products = on_sphere(gram, len(weights))[..., 0]
    norms = np.sqrt(np.maximum(np.diagonal(products), 0))
    pull = np.where(norms > 0, weights, 0.0)
    if pull.sum() == 0:
        return _combination(weights, gram)
    pull /= math.fsum(pull)
    inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    cosines = products * inverse[:, None] * inverse[None, :]
    length = _norm(pull, cosines)
    if length <= SINGULAR:
        return _combination(weights, gram)
    point = pull / length
    for _ in range(steps):
        step = _pulled(point, cosines, pull)
        angle = _norm(step, cosines)
        if angle < tolerance:
            break
        point = math.cos(angle) * point + (math.sin(angle) / angle if angle else 1.0) * step
        point /= _norm(point, cosines)
    return _combination(math.fsum(weights * norms) * point * inverse, gram)


def _pulled(point: Array, cosines: Array, pull: Array) -> Array:
    """Return Σ ŵᵢ log_u(uᵢ) in the coefficients of the uᵢ, those of u being `point`."""
    dots = np.clip((cosines * point).sum(axis=1), -1.0, 1.0)
    angles = np.arccos(dots)
    sines = np.sqrt((1 - dots) * (1 + dots))
    stretch = np.divide(angles, sines, out=np.ones_like(dots), where=sines > SINGULAR)
    stretch[(sines <= SINGULAR) & (dots < 0)] = 0.0
    pulls = pull * stretch
    step: Array = pulls - math.fsum(pulls * dots) * point
    return step


def _norm(coefficients: Array, cosines: Array) -> float:
    # Plain sums: a BLAS may add in another order with another number of threads.
    square = ((cosines * coefficients).sum(axis=1) * coefficients).sum()
    return math.sqrt(max(float(square), 0.0))


def _combination(coefficients: Array, gram: Array) -> Combination:
    if len(gram) == len(coefficients):
        return Combination(coefficients[:, None], np.zeros(1))
    more = math.fsum([*coefficients, -1.0])
    # What is left of equal models by rounding may not move the base.
    return Combination(coefficients[:, None], np.array([0.0 if abs(more) < _ROUNDING else more]))

"""Model Stock: the mean of the operands, drawn towards the base (Jang et al. 2024, equation 6).

Pure functions on numbers in float64. Letters: N operands, G groups (the tensor, or its rows).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

SINGULAR = 1e-6
"""|1 + (N-1)c| below which nothing is estimated and the base is kept, as in mergekit 0.1.5."""


def factor(gram: Array) -> Array:
    """Return t/N, the coefficient of every τᵢ, (G,), from their Gram matrix (N, N, G), N ≥ 2.

    t = N·c / (1 + (N-1)·c), c the mean cosine of the pairs, each within [-1, 1]; an operand that
    is zero has the cosine 0 with all others (as in mergekit). The paper derives t for c ≥ 0; like
    its followers we go on with the formula below: for -1/(N-1) < c < 0 the result lies on the
    other side of the base, without bound near the pole, and at the pole it is the base.
    """
    count = len(gram)
    norms = np.sqrt(np.diagonal(gram).T)  # (N, G)
    total = np.zeros(gram.shape[2])
    for first in range(count):
        for second in range(first):
            product = norms[first] * norms[second]
            cosine = np.divide(
                gram[first, second], product, out=np.zeros_like(total), where=product > 0
            )
            total += np.clip(cosine, -1.0, 1.0)
    mean = total / (count * (count - 1) / 2)
    below = 1 + (count - 1) * mean
    is_singular = abs(below) < SINGULAR
    stock: Array = np.where(is_singular, 0.0, mean / np.where(is_singular, 1.0, below))
    return stock

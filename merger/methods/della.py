"""DELLA: drop at random, larger magnitudes less often (Deep et al. 2024, "DELLA-Merging").

Here are the keep probabilities; dropping and rescaling is `dare.drop` with one probability per
element. As in the authors' code a row's magnitudes are ranked 0 … C-1 and p rises linearly with
the rank from density - ε to density + ε, what is kept is divided by its own p (mergekit matches L1
norms instead). Where we differ from that code: our ε is half the width of the range, as mergekit's
(`window_size` there is the whole of it); equal magnitudes are ranked by index, there in no order;
a row of one element has p = density, there 0/0; both ends must be probabilities, there a line is
printed; density 1 is no exception. A row is what `merger.blocks` calls one: the first dimension
counts rows, all others are its columns; a vector is a single row, as there.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

Probabilities = npt.NDArray[np.float64]

_INDEX_BITS = 32


def is_range(density: float, epsilon: float) -> bool:
    """Return whether density - ε to density + ε are probabilities to divide by: in (0, 1]."""
    return density - epsilon > 0.0 and density + epsilon <= 1.0


def keep_probabilities(rows_RC: torch.Tensor, density: float, epsilon: float) -> Probabilities:  # noqa: N803 shapes
    """Return the keep probability of every element of R rows of C columns, flat, in binary64.

    p = density + ε·(2·rank/(C - 1) - 1): the ends and the middle are exact.
    """
    magnitudes = rows_RC.abs().cpu().numpy()
    columns = magnitudes.shape[1]
    by_rank = np.full(columns, density)
    if columns > 1:
        by_rank += epsilon * (2.0 * np.arange(columns) / (columns - 1) - 1.0)
    found: Probabilities = np.empty(magnitudes.shape)
    np.put_along_axis(found, _ascending(magnitudes), by_rank[np.newaxis], axis=1)
    return found.reshape(-1)


def _ascending(magnitudes: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Return the columns of each row by magnitude, the lowest index first among equals."""
    if magnitudes.dtype == np.float64:
        return np.argsort(magnitudes, axis=1, kind="stable")
    # The bits of a magnitude have its order; with the index below them a plain sort is stable,
    # and three times as fast as sorting indices.
    keys = magnitudes.view(np.uint32).astype(np.uint64)
    keys <<= np.uint64(_INDEX_BITS)
    keys |= np.arange(magnitudes.shape[1], dtype=np.uint64)
    keys.sort(axis=1)
    keys &= np.uint64(2**_INDEX_BITS - 1)
    return keys.view(np.int64)

"""One byte per element: 1 where something holds, 0 where it does not; or a sign.

Knows no method and no file.

On a CPU a comparison takes torch five times as long as numpy, and arithmetic takes ten times as
long on its bool tensors as on bytes. So tensors in memory are compared by numpy, and marks are
uint8: they can be added, joined by `|` and `&`, and turned into floats cheaply.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

Marks = torch.Tensor
"""uint8, flat (n,)."""

_WORD = 8  # marks that one look takes in


def above(values: torch.Tensor, bound: float = 0.0) -> Marks:
    """Mark the values (n,) above `bound`; one that is no number is not marked."""
    if values.device.type == "cpu":
        return _bytes(np.greater(values.numpy(), bound))
    return (values > bound).view(torch.uint8)


def at_least(values: torch.Tensor, bound: float) -> Marks:
    """Mark the values (n,) of at least `bound`; one that is no number is not marked."""
    if values.device.type == "cpu":
        return _bytes(np.greater_equal(values.numpy(), bound))
    return (values >= bound).view(torch.uint8)


def below(values: torch.Tensor, bound: float = 0.0) -> Marks:
    """Mark the values (n,) below `bound`; one that is no number is not marked."""
    if values.device.type == "cpu":
        return _bytes(np.less(values.numpy(), bound))
    # Against a whole number torch would cut the bound to the bits of counts in bytes.
    return (values < float(bound)).view(torch.uint8)


def signs(values: torch.Tensor) -> torch.Tensor:
    """Return +1, -1, or 0 for zero and what is no number, per value (n,), in int8."""
    return above(values).view(torch.int8) - below(values).view(torch.int8)


def equal(values: torch.Tensor, number: float) -> Marks:
    """Mark the values (n,) that equal `number`; 0.0 and -0.0 are equal."""
    if values.device.type == "cpu":
        return _bytes(np.equal(values.numpy(), number))
    return (values == number).view(torch.uint8)


def count(marks: Marks) -> int:
    """Return how many elements are marked."""
    if marks.device.type == "cpu":
        return int(np.count_nonzero(marks.numpy()))
    return int(torch.count_nonzero(marks))


def count_nonzero(values: torch.Tensor) -> int:
    """Return how many values (n,) are not zero; what is no number is not zero."""
    if values.device.type == "cpu":
        return int(np.count_nonzero(values.numpy() != 0))
    return int(torch.count_nonzero(values))


def count_signs(values: Sequence[torch.Tensor]) -> tuple[int, int]:
    """Count the elements of N ≥ 1 tensors (n,) with any value, and those with both signs."""
    if values[0].device.type == "cpu":
        arrays = [value.numpy() for value in values]
        positive, negative = arrays[0] > 0, arrays[0] < 0
        for array in arrays[1:]:
            positive |= array > 0
            negative |= array < 0
        both = int(np.count_nonzero(positive & negative))
        positive |= negative
        return int(np.count_nonzero(positive)), both
    stacked = torch.stack(list(values))
    is_positive, is_negative = (stacked > 0).any(0), (stacked < 0).any(0)
    return int((is_positive | is_negative).sum()), int((is_positive & is_negative).sum())


def select(values: torch.Tensor, marks: Marks) -> torch.Tensor:
    """Return the marked values in their order, (at most n,)."""
    if marks.device.type == "cpu":
        return torch.from_numpy(_selected(values.numpy(), marks.numpy()))
    return values[marks.view(torch.bool)]


def _selected(
    values: npt.NDArray[np.floating], marks: npt.NDArray[np.uint8]
) -> npt.NDArray[np.floating]:
    """Return the marked values; where few are marked, most are passed over eight at a time."""
    whole = len(marks) // _WORD * _WORD
    rows = np.flatnonzero(marks[:whole].view(np.uint64) != 0)
    few = marks[:whole].reshape(-1, _WORD).take(rows, axis=0).reshape(-1)
    near = values[:whole].reshape(-1, _WORD).take(rows, axis=0).reshape(-1)
    found = near.take(np.flatnonzero(few.view(np.bool_)))
    if whole == len(marks):
        return found
    rest = values[whole:].take(np.flatnonzero(marks[whole:].view(np.bool_)))
    return np.concatenate([found, rest])


def _bytes(found: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Marks:
    return torch.from_numpy(found.view(np.uint8))

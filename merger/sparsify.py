"""Trim: keep the largest magnitudes, exactly as many as asked. Knows no model and no file.

The elements of a scope (one tensor, or a term's whole task vector) come as a stream of blocks that
can be started again, so no flat vector of the scope is ever needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

GATHER_ELEMENTS = 1 << 24
"""Up to this many elements are gathered and partitioned at once (64 MiB in float32)."""

_MOST = 0.9  # share of nonzero elements from which taking the zeros out costs more than it saves
_DIGIT = 16  # bits of one histogram of magnitudes: 65,536 bins

Stream = Callable[[], Iterable[torch.Tensor]]


@dataclass(frozen=True, slots=True)
class Cut:
    """What a trim keeps: magnitudes above `value`, and those equal to it up to a position.

    `through` is the flat index, in the scope, of the last element that is kept among those whose
    magnitude is exactly `value`.
    """

    value: float
    through: int


def kept_count(density: float, elements: int) -> int:
    """Return how many of `elements` a trim keeps: max(1, ⌊density·n⌋), the product in binary64."""
    return max(1, math.floor(density * elements))


def find_cut(stream: Stream, elements: int, keep: int, *, gather: int = GATHER_ELEMENTS) -> Cut:
    """Return the cut that keeps exactly `keep` of a scope's `elements`.

    Zeros count as elements. Among equal magnitudes the lowest index is kept first. Where a value
    is no number some cut is returned; who reads the blocks has to refuse it.
    """
    if keep >= elements:
        return Cut(0.0, elements)
    if elements <= gather:
        found = _partition(_gather(stream, elements), keep)
    else:
        found = _refine(stream, keep, gather)
    needed = keep - found.greater
    if needed == found.equal:
        return Cut(found.value, elements)
    return Cut(found.value, _locate(stream, found.value, needed))


def trim(tau: torch.Tensor, cut: Cut, *, start: int) -> torch.Tensor:
    """Return τ with everything that the cut does not keep set to zero (TIES step 1).

    `tau` is flat (n,), its first element at position `start` of the scope; float32 or float64 in
    and out, not in place. Yadav et al. 2023, section 3; unlike the paper's code, whose threshold
    keeps one more and all equal magnitudes, exactly as many are kept as were asked.
    """
    inside = min(max(cut.through + 1 - start, 0), len(tau))
    if inside == len(tau):
        return _at_least(tau, cut.value)
    if inside == 0:
        return _above(tau, cut.value)
    return torch.cat([_at_least(tau[:inside], cut.value), _above(tau[inside:], cut.value)])


def _above(tau: torch.Tensor, value: float) -> torch.Tensor:
    # hardshrink zeroes |x| <= λ in one pass without a mask.
    return torch.nn.functional.hardshrink(tau, value)


def _at_least(tau: torch.Tensor, value: float) -> torch.Tensor:
    if value == 0.0:
        return tau
    zero = torch.zeros((), dtype=tau.dtype)
    below = torch.nextafter(torch.tensor(value, dtype=tau.dtype), zero)
    return torch.nn.functional.hardshrink(tau, below.item())


@dataclass(frozen=True, slots=True)
class _Found:
    """The smallest kept magnitude, how many are greater, and how many equal it."""

    value: float
    greater: int
    equal: int


def _gather(stream: Stream, elements: int) -> torch.Tensor:
    gathered: torch.Tensor | None = None
    position = 0
    for block in stream():
        if gathered is None:
            gathered = torch.empty(elements, dtype=block.dtype, device=block.device)
        torch.abs(block, out=gathered[position : position + len(block)])
        position += len(block)
    assert gathered is not None
    assert position == elements
    return gathered


def _partition(magnitudes: torch.Tensor, keep: int) -> _Found:
    """Return the `keep`-th largest of some magnitudes; they may be reordered."""
    nonzero = int(torch.count_nonzero(magnitudes))
    if keep > nonzero:
        return _Found(0.0, nonzero, len(magnitudes) - nonzero)
    if nonzero < _MOST * len(magnitudes):
        # What DARE or an untouched embedding leaves is mostly zeros, and introselect takes twenty
        # times as long where most elements are equal.
        magnitudes = magnitudes[magnitudes != 0]
    smaller = len(magnitudes) - keep
    if magnitudes.device.type == "cpu":
        # numpy's introselect is ten times as fast as torch.kthvalue on a CPU.
        array = magnitudes.numpy()
        array.partition(smaller)
        value = magnitudes[smaller]
    else:
        value = torch.kthvalue(magnitudes, smaller + 1).values
    greater = int(torch.count_nonzero(magnitudes > value))
    equal = int(torch.count_nonzero(magnitudes == value))
    return _Found(float(value), greater, equal)


def _refine(stream: Stream, keep: int, gather: int) -> _Found:
    """Find the `keep`-th largest magnitude by histograms of the bits, 16 at a time.

    The bits of a magnitude, read as a whole number, have the order of the magnitudes. As soon as
    few enough candidates are left they are gathered.
    """
    width = 8 * next(iter(stream())).element_size() - 1
    greater, prefix, shift = 0, 0, width
    while True:
        digit = min(_DIGIT, shift)
        histogram: npt.NDArray[np.int64] = np.zeros(1 << _DIGIT, np.int64)
        for block in stream():
            histogram += _digits(_bits(block), prefix, shift, digit)
        shift -= digit
        reached = greater + np.cumsum(histogram[::-1])[::-1]
        chosen = int(np.flatnonzero(reached >= keep)[-1])
        candidates = int(histogram[chosen])
        greater = int(reached[chosen]) - candidates
        prefix = (prefix << digit) | chosen
        if shift == 0:
            return _Found(_value(prefix, width), greater, candidates)
        if candidates <= gather:
            found = _partition(_candidates(stream, prefix, shift, candidates), keep - greater)
            return _Found(found.value, greater + found.greater, found.equal)


def _bits(block: torch.Tensor) -> npt.NDArray[np.integer]:
    magnitudes = torch.abs(block).cpu().numpy()
    bits: npt.NDArray[np.integer] = magnitudes.view(f"i{magnitudes.itemsize}")
    return bits


def _digits(
    bits: npt.NDArray[np.integer], prefix: int, shift: int, digit: int
) -> npt.NDArray[np.int64]:
    """Count the values of the `digit` bits below `shift` among those that start with `prefix`."""
    selected = bits[(bits >> shift) == prefix]
    values = (selected >> (shift - digit)) & ((1 << digit) - 1)
    return np.bincount(values, minlength=1 << _DIGIT)


def _candidates(stream: Stream, prefix: int, shift: int, count: int) -> torch.Tensor:
    found = []
    for block in stream():
        bits = _bits(block)
        selected = bits[(bits >> shift) == prefix]
        found.append(selected.view(f"f{selected.itemsize}"))
    gathered = torch.from_numpy(np.concatenate(found))
    assert len(gathered) == count
    return gathered


def _value(bits: int, width: int) -> float:
    size = (width + 1) // 8
    return float(np.array(bits, f"i{size}").view(f"f{size}"))


def _locate(stream: Stream, value: float, needed: int) -> int:
    """Return the position of the `needed`-th element, from 1, whose magnitude is `value`."""
    position = 0
    for block in stream():
        equal = torch.abs(block) == value
        count = int(torch.count_nonzero(equal))
        if count >= needed:
            return position + int(torch.nonzero(equal)[needed - 1])
        needed -= count
        position += len(block)
    # Only a value that is no number leads here: partitioning counts it, comparing does not.
    return position

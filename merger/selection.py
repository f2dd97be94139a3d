"""The k-th largest magnitude of many values, exactly, without sorting them. Knows no model.

The values come as blocks that can be asked for again, so no flat vector of a scope is ever needed.
A sample tells between which two magnitudes the k-th one should lie; one pass counts what is above
and collects what lies between. Where the sample was wrong, histograms of the bits find it. The
sample decides only how fast the answer is found, never which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from merger import marks

GATHER_ELEMENTS = 1 << 24
"""Up to this many magnitudes are collected and partitioned at once (64 MiB in float32)."""

SAMPLE_ELEMENTS = 1 << 14
"""So many magnitudes are looked at first; a scope of fewer than four times as many is collected."""

_SAMPLED_BLOCKS = 8  # at least, and one in so many more of a large scope:
_BLOCKS_OF_A_SAMPLE = 64
# Between elements of a sample: primes, which divide no usual number of columns, so that all columns
# have their turn.
_STRIDES = (1, 3, 7, 13, 31, 61, 127, 251, 509, 1021)
_DEVIATIONS = 4.0  # on either side of the share that the sample shows; a miss costs more passes
_WIDEST = 0.1  # share of the elements on either side that may be collected
_MOST = 0.9  # share of nonzero elements from which taking the zeros out costs more than it saves
# What is left of a window is narrowed down to so many: a narrow window of rounded values holds few
# different ones, and introselect takes ten times as long then.
_FEW = 1 << 12
_INTERVAL_BITS = 10  # 1024 intervals, counted in no time beside the values
_DIGIT = 16  # bits of one histogram of magnitudes: 65,536 bins

Magnitudes = npt.NDArray[np.floating]


class Blocks(Protocol):
    """The values of a scope in order, as flat blocks; each may be computed anew when asked for."""

    def __len__(self) -> int:
        """Return the number of blocks."""

    def __getitem__(self, index: int, /) -> torch.Tensor:
        """Return a block; it is not written to."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What a trim keeps: magnitudes above `value`, and those equal to it up to a position.

    `through` is the flat index, in the scope, of the last element that is kept among those whose
    magnitude is exactly `value`.
    """

    value: float
    through: int


def find_cut(
    blocks: Blocks,
    elements: int,
    keep: int,
    *,
    gather: int = GATHER_ELEMENTS,
    sample: int = SAMPLE_ELEMENTS,
) -> Cut:
    """Return the cut that keeps exactly `keep` of a scope's `elements`.

    Zeros count as elements. Among equal magnitudes the lowest index is kept first. Where a value
    is no number some cut is returned; who reads the blocks has to refuse it.
    """
    if keep >= elements:
        return Cut(0.0, elements)
    found = None
    if elements <= min(4 * sample, gather):
        found = _partition(_all(blocks), keep)
    elif (window := _look(blocks, keep / elements, sample)) is not None:
        found = _between(blocks, window, keep, min(gather, elements))
    if found is None:
        found = _refine(blocks, keep, gather)
    needed = keep - found.greater
    if needed == found.equal:
        return Cut(found.value, elements)
    return Cut(found.value, _locate(blocks, found, needed))


@dataclass(frozen=True, slots=True)
class _Found:
    """The smallest kept magnitude, how many are greater, and how many equal it.

    `equals` has the size of every block and how many equal it there, or nothing if that is unknown.
    """

    value: float
    greater: int
    equal: int
    equals: tuple[tuple[int, int], ...] = ()


def _magnitudes(block: torch.Tensor) -> Magnitudes:
    found: Magnitudes = torch.abs(block).cpu().numpy()
    return found


def _all(blocks: Blocks) -> Magnitudes:
    return np.concatenate([_magnitudes(blocks[index]) for index in range(len(blocks))])


def _partition(magnitudes: Magnitudes, keep: int) -> _Found:
    """Return the `keep`-th largest of some magnitudes; they may be reordered."""
    nonzero = int(np.count_nonzero(magnitudes != 0))
    if keep > nonzero:
        return _Found(0.0, nonzero, len(magnitudes) - nonzero)
    if nonzero < _MOST * len(magnitudes):
        # What DARE or an untouched embedding leaves is mostly zeros, and introselect takes twenty
        # times as long where most elements are equal.
        magnitudes = magnitudes[magnitudes != 0]
    smaller = len(magnitudes) - keep
    magnitudes.partition(smaller)
    value = magnitudes[smaller]
    greater = int(np.count_nonzero(magnitudes > value))
    return _Found(float(value), greater, int(np.count_nonzero(magnitudes == value)))


def _look(blocks: Blocks, share: float, sample: int) -> tuple[float, float] | None:
    """Return two magnitudes between which the one with `share` of all above it should lie."""
    count = len(blocks)
    looked = min(count, _SAMPLED_BLOCKS + count // _BLOCKS_OF_A_SAMPLE)
    samples = []
    for number in range(looked):
        block = blocks[(2 * number + 1) * count // (2 * looked)]
        wanted = len(block) * looked / sample
        stride = max(s for s in _STRIDES if s == 1 or s <= wanted)
        samples.append(_magnitudes(block[::stride]))
    known = np.concatenate(samples)
    size = len(known)
    middle = _rank(size, share)
    known.partition(middle)
    # Blocks of rows differ more from each other than chance alone would have it.
    shares = [np.count_nonzero(one > known[middle]) / len(one) for one in samples]
    chance = float(np.sqrt(share * (1.0 - share) / size))
    spread = float(np.std(shares) / np.sqrt(len(shares)))
    margin = min(_DEVIATIONS * max(chance, spread) + 1.0 / size, _WIDEST)
    low, high = _rank(size, share + margin), _rank(size, share - margin)
    known.partition((low, high))
    found = (float(known[low]) if low else 0.0, float(known[high]) if high < size - 1 else np.inf)
    return None if np.isnan(found).any() else found


def _rank(size: int, share: float) -> int:
    """Return the index in ascending order of the value with this share of all above it."""
    return min(max(round((1.0 - share) * size) - 1, 0), size - 1)


@dataclass(frozen=True, slots=True)
class _Part:
    """What a window holds of one block: how many equal its ends, and how many lie inside."""

    size: int
    tops: int
    inside: int
    bottoms: int


def _between(blocks: Blocks, window: tuple[float, float], keep: int, gather: int) -> _Found | None:
    """Return the `keep`-th largest magnitude if it lies in the window, ends included."""
    low, high = window
    above, filled, parts = 0, 0, []
    # One array for all: small ones, kept between larger ones that come and go, would leave the
    # heap in pieces. What is not filled takes no memory.
    collected: Magnitudes = np.empty(gather, _magnitudes(blocks[0][:0]).dtype)
    for index in range(len(blocks)):
        magnitudes = torch.abs(blocks[index])
        higher = marks.count(marks.above(magnitudes, high))
        from_top = marks.at_least(magnitudes, high)
        tops = marks.count(from_top) - higher
        above += higher
        bottoms, inside = 0, magnitudes[:0]
        if low < high:
            from_bottom = marks.at_least(magnitudes, low)
            inside = marks.select(magnitudes, marks.above(magnitudes, low) ^ from_top)
            bottoms = marks.count(from_bottom) - len(inside) - tops - higher
        if filled + len(inside) > gather:
            return None
        collected[filled : filled + len(inside)] = inside.cpu().numpy()
        filled += len(inside)
        parts.append(_Part(len(magnitudes), tops, len(inside), bottoms))
    return _chosen(window, parts, collected[:filled], above, keep)


def _chosen(
    window: tuple[float, float],
    parts: Sequence[_Part],
    collected: Magnitudes,
    above: int,
    keep: int,
) -> _Found | None:
    tops = sum(part.tops for part in parts)
    bottoms = sum(part.bottoms for part in parts)
    if above < keep <= above + tops:
        return _Found(window[1], above, tops, tuple((part.size, part.tops) for part in parts))
    above += tops
    if above < keep <= above + len(collected):
        found = _narrow(collected, keep - above)
        return _Found(
            found.value, above + found.greater, found.equal, _equals(parts, collected, found.value)
        )
    above += len(collected)
    if above < keep <= above + bottoms:
        equals = tuple((part.size, part.bottoms) for part in parts)
        return _Found(window[0], above, bottoms, equals)
    return None


def _narrow(magnitudes: Magnitudes, keep: int) -> _Found:
    """Return the `keep`-th largest of magnitudes that lie close together; not in place.

    Their bits, read as whole numbers, have their order: they are counted in equal intervals between
    the least and the largest, again and again within the interval that holds the one looked for.
    """
    greater = 0
    bits: npt.NDArray[np.integer] = magnitudes.view(f"i{magnitudes.itemsize}")
    while len(bits) > _FEW:
        low = int(bits.min())
        shift = max(0, (int(bits.max()) - low).bit_length() - _INTERVAL_BITS)
        intervals = (bits - low) >> shift
        reached = np.cumsum(np.bincount(intervals)[::-1])
        place = int(np.searchsorted(reached, keep - greater))
        greater += int(reached[place - 1]) if place else 0
        bits = bits[intervals == len(reached) - 1 - place]
        if shift == 0:  # they are all equal
            value = bits[:1].view(magnitudes.dtype)
            return _Found(float(value[0]), greater, len(bits))
    found = _partition(bits.view(magnitudes.dtype).copy(), keep - greater)
    return _Found(found.value, greater + found.greater, found.equal)


def _equals(
    parts: Sequence[_Part], collected: Magnitudes, value: float
) -> tuple[tuple[int, int], ...]:
    """Return the size of every block and how many of what was collected there equal `value`."""
    stops = np.cumsum([part.inside for part in parts])
    pieces = np.split(collected, stops[:-1])
    return tuple(
        (part.size, int(np.count_nonzero(piece == value)))
        for part, piece in zip(parts, pieces, strict=True)
    )


def _refine(blocks: Blocks, keep: int, gather: int) -> _Found:
    """Find the `keep`-th largest magnitude by histograms of the bits, 16 at a time.

    The bits of a magnitude, read as a whole number, have the order of the magnitudes. As soon as
    few enough candidates are left they are gathered.
    """
    width = 8 * blocks[0].element_size() - 1
    greater, prefix, shift = 0, 0, width
    while True:
        digit = min(_DIGIT, shift)
        histogram: npt.NDArray[np.int64] = np.zeros(1 << _DIGIT, np.int64)
        for index in range(len(blocks)):
            histogram += _digits(_bits(blocks[index]), prefix, shift, digit)
        shift -= digit
        reached = greater + np.cumsum(histogram[::-1])[::-1]
        chosen = int(np.flatnonzero(reached >= keep)[-1])
        candidates = int(histogram[chosen])
        greater = int(reached[chosen]) - candidates
        prefix = (prefix << digit) | chosen
        if shift == 0:
            return _Found(_value(prefix, width), greater, candidates)
        if candidates <= gather:
            found = _partition(_candidates(blocks, prefix, shift, candidates), keep - greater)
            return _Found(found.value, greater + found.greater, found.equal)


def _bits(block: torch.Tensor) -> npt.NDArray[np.integer]:
    magnitudes = _magnitudes(block)
    bits: npt.NDArray[np.integer] = magnitudes.view(f"i{magnitudes.itemsize}")
    return bits


def _digits(
    bits: npt.NDArray[np.integer], prefix: int, shift: int, digit: int
) -> npt.NDArray[np.int64]:
    """Count the values of the `digit` bits below `shift` among those that start with `prefix`."""
    selected = bits[(bits >> shift) == prefix]
    values = (selected >> (shift - digit)) & ((1 << digit) - 1)
    return np.bincount(values, minlength=1 << _DIGIT)


def _candidates(blocks: Blocks, prefix: int, shift: int, count: int) -> Magnitudes:
    """Return the magnitudes whose bits start with `prefix`, of which there are `count`."""
    found: Magnitudes = np.empty(count, _magnitudes(blocks[0][:0]).dtype)
    filled = 0
    for index in range(len(blocks)):
        bits = _bits(blocks[index])
        selected = bits[(bits >> shift) == prefix]
        found[filled : filled + len(selected)] = selected.view(found.dtype)
        filled += len(selected)
    return found


def _value(bits: int, width: int) -> float:
    size = (width + 1) // 8
    return float(np.array(bits, f"i{size}").view(f"f{size}"))


def _locate(blocks: Blocks, found: _Found, needed: int) -> int:
    """Return the position of the `needed`-th element, from 1, whose magnitude is the one found."""
    position = 0
    for index in range(len(blocks)):
        if found.equals and found.equals[index][1] < needed:
            size, count = found.equals[index]
        else:
            magnitudes = torch.abs(blocks[index])
            is_equal = marks.equal(magnitudes, found.value)
            size, count = len(magnitudes), marks.count(is_equal)
            if count >= needed:
                return position + int(torch.nonzero(is_equal)[needed - 1])
        needed -= count
        position += size
    # Only a value that is no number leads here: partitioning counts it, comparing does not.
    return position

"""Models seen through the rows of a result's vocabulary. Knows neither tokens nor methods.

Whoever lacks a row counts as holding the row that the result starts from: its delta there is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch

from merger.blocks import Block
from merger.checkpoint import DTYPES, Checkpoint, Model
from merger.rounding import is_finite, round_to
from merger.task_vector import Delta, Factors, TaskVector
from merger.vocabulary import LACKS, Vocabulary


def _read_rows(model: Checkpoint, name: str, rows: torch.Tensor) -> torch.Tensor:
    """Return rows (N,) of a tensor as (N, C) in its stored dtype; runs are read in one piece."""
    info = model.tensors[name]
    columns = info.elements // max(1, info.shape[0])
    if rows.numel() == 0:
        return torch.empty(0, columns, dtype=DTYPES[info.dtype])
    breaks = torch.nonzero(rows[1:] != rows[:-1] + 1).flatten() + 1
    starts = [0, *breaks.tolist(), rows.numel()]
    numbers = rows.tolist()
    runs = [(numbers[a], numbers[b - 1] + 1) for a, b in pairwise(starts)]
    pieces = [model.read_block(name, Block(first, last, columns)) for first, last in runs]
    return torch.cat(pieces).reshape(-1, columns)


class ExtendedBase:
    """The base with the rows of added tokens: each the mean of its owners' rows.

    The mean is formed in the compute dtype, in the order of the terms, and rounded once to the
    dtype that the base stores; one owner alone gives its own row.
    """

    __slots__ = ("_base", "_compute", "_owners", "_vocabulary", "label", "tensors")

    def __init__(
        self,
        base: Checkpoint,
        agreed: Vocabulary,
        models: Mapping[int, Checkpoint],
        compute: torch.dtype,
    ) -> None:
        """Look at a base through an agreed vocabulary."""
        self._base = base
        self._vocabulary = agreed
        self._owners = tuple((models[term], place) for term, place in agreed.places.items())
        self._compute = compute
        self.label = base.label
        self.tensors = agreed.widened(base.tensors)

    @property
    def names(self) -> frozenset[str]:
        """Names of all tensors."""
        return frozenset(self.tensors)

    def owner(self, name: str) -> str:
        """Return the model's own label, or that of a term whose added rows are not finite.

        It is asked for when a value is none: the rows that were added are not the base's.
        """
        added = slice(self._vocabulary.added.start, self._vocabulary.added.stop)
        for model, place in self._owners if name in self._vocabulary.tensors else ():
            rows = place[added]
            if not is_finite(_read_rows(model, name, rows[rows != LACKS]).reshape(-1)):
                return model.label
        return self.label

    def is_float(self, name: str) -> bool:
        """Return whether a tensor holds numbers that can be merged."""
        return self._base.is_float(name)

    def read_block(self, name: str, block: Block) -> torch.Tensor:
        """Return the elements of a block in the stored dtype, flat."""
        if name not in self._vocabulary.tensors:
            return self._base.read_block(name, block)
        agreed = self._vocabulary
        last = min(block.last, agreed.base_rows)
        rows = torch.zeros(block.last - block.first, block.columns, dtype=self._dtype(name))
        if block.first < last:
            kept = self._base.read_block(name, Block(block.first, last, block.columns))
            rows[: last - block.first] = kept.reshape(-1, block.columns)
        first, stop = max(block.first, agreed.added.start), min(block.last, agreed.added.stop)
        if first < stop:
            rows[first - block.first : stop - block.first] = self._started(name, first, stop)
        return rows.reshape(-1)

    def _dtype(self, name: str) -> torch.dtype:
        return DTYPES[self.tensors[name].dtype]

    def _started(self, name: str, first: int, stop: int) -> torch.Tensor:
        columns = self.tensors[name].elements // self._vocabulary.rows
        # From -0.0, which adding changes nothing: a lone owner's row stays as it is, bit for bit.
        total = torch.full((stop - first, columns), -0.0, dtype=self._compute)
        count = torch.zeros(stop - first, 1, dtype=self._compute)
        for model, place in self._owners:
            rows = place[first:stop]
            has = rows != LACKS
            total[has] += _read_rows(model, name, rows[has]).to(self._compute)
            count[has] += 1
        return round_to(total / count, self._dtype(name))

    def read_raw(self, name: str) -> torch.Tensor:
        """Return all bytes of a tensor outside the vocabulary as uint8.

        Whoever adds tokens has the vocabulary's tensors, so these are merged, never copied.
        """
        return self._base.read_raw(name)


class Replaced:
    """A model in the rows of the result: its own where it has them, else those of the base."""

    __slots__ = ("_base", "_model", "_place", "_vocabulary", "label", "tensors")

    def __init__(
        self, model: Checkpoint, base: Model, agreed: Vocabulary, place: torch.Tensor
    ) -> None:
        """Look at a model through an agreed vocabulary; `base` has the rows of the result."""
        self._model = model
        self._base = base
        self._vocabulary = agreed
        self._place = place
        self.label = model.label
        self.tensors = agreed.widened(model.tensors)

    @property
    def names(self) -> frozenset[str]:
        """Names of all tensors."""
        return frozenset(self.tensors)

    def owner(self, _name: str) -> str:
        """Return the model's own label."""
        return self.label

    def is_float(self, name: str) -> bool:
        """Return whether a tensor holds numbers that can be merged."""
        return self._model.is_float(name)

    def read_raw(self, name: str) -> torch.Tensor:
        """Return all bytes of a tensor outside the vocabulary as uint8."""
        return self._model.read_raw(name)

    def read_block(self, name: str, block: Block) -> torch.Tensor:
        """Return the elements of a block, flat; of the vocabulary in float32, which holds all."""
        if name not in self._vocabulary.tensors:
            return self._model.read_block(name, block)
        # A copy: what is read may be kept in memory by whoever reads it again.
        read = self._base.read_block(name, block).to(torch.float32, copy=True)
        rows = read.reshape(-1, block.columns)
        place = self._place[block.first : block.last]
        has = place != LACKS
        rows[has] = _read_rows(self._model, name, place[has]).to(torch.float32)
        return rows.reshape(-1)


@dataclass(frozen=True, slots=True)
class _WidenedDelta:
    inner: Delta
    vocabulary: Vocabulary

    def block(self, block: Block) -> torch.Tensor:
        """Return the delta of a block, zero in the rows of added tokens and behind the base's."""
        agreed = self.vocabulary
        last = min(block.last, agreed.base_rows)
        # One row at least, which tells dtype and device where a block has none of the base's.
        known = self.inner.block(Block(min(block.first, last - 1), last, block.columns))
        rows = known.new_zeros(block.last - block.first, block.columns)
        if block.first < last:
            rows[: last - block.first] = known.reshape(-1, block.columns)
        start, stop = max(block.first, agreed.added.start), min(block.last, agreed.added.stop)
        if start < stop:
            rows[start - block.first : stop - block.first] = 0
        return rows.reshape(-1)

    def factors(self) -> Factors | None:
        """Return the factors with as many rows as the result."""
        found = self.inner.factors()
        if found is None:
            return None
        left, right = found
        agreed = self.vocabulary
        wide = left.new_zeros(agreed.rows, left.shape[1])
        wide[: agreed.base_rows] = left
        wide[agreed.added.start : agreed.added.stop] = 0
        return wide, right


@dataclass(frozen=True, slots=True)
class WidenedTaskVector:
    """An adapter's task vector, which has the base's vocabulary, in the rows of the result."""

    inner: TaskVector
    vocabulary: Vocabulary

    @property
    def label(self) -> str:
        """Kind and name of the operand."""
        return self.inner.label

    @property
    def digest(self) -> str:
        """Digest of the operand's bytes."""
        return self.inner.digest

    @property
    def names(self) -> frozenset[str]:
        """Tensors that it has."""
        return self.inner.names

    def module(self, name: str) -> str:
        """Return the adapter's name of the module whose weight a tensor is."""
        return self.inner.module(name)

    def delta(self, name: str) -> Delta:
        """Return the delta of a tensor that it has."""
        found = self.inner.delta(name)
        return _WidenedDelta(found, self.vocabulary) if name in self.vocabulary.tensors else found

    def close(self) -> None:
        """Close its files."""
        self.inner.close()

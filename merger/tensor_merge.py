"""One tensor of the result: deltas, method, base + delta, block by block, or a plain copy.

Knows neither shards nor the order of the tensors. Every value is checked on the way: what is not
finite, in an operand or in the result, stops the build with the tensor's name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from merger.blocks import Block
from merger.checkpoint import DTYPES, Model
from merger.errors import InputError
from merger.methods.bound import Method
from merger.rounding import apply_delta, is_finite, round_to
from merger.statistics import TensorTally
from merger.task_vector import Delta, HeldDelta, TaskVectors
from merger.writer import Entry

HELD_BYTES = 64 << 20
"""Of deltas that a method reads more than once, per tensor; more are computed again instead."""


@dataclass(frozen=True, slots=True)
class Merged:
    """The bytes of a tensor as written, and its figures if a term has it."""

    entry: Entry
    data: memoryview
    tally: TensorTally | None


@dataclass(frozen=True, slots=True)
class Merging:
    """What is needed to make any tensor of the result."""

    base: Model
    vectors: TaskVectors
    method: Method
    compute: torch.dtype
    held_bytes: int = HELD_BYTES

    def make(self, entry: Entry) -> Merged:
        """Return a tensor of the result."""
        return self._merge(entry) if entry.is_touched else self._copy(entry)

    def _copy(self, entry: Entry) -> Merged:
        raw = self.base.read_raw(entry.name)
        stored = self.base.tensors[entry.name].dtype
        if not self.base.is_float(entry.name):
            return Merged(entry, _bytes(raw), None)
        values = raw.view(DTYPES[stored])
        if not is_finite(values):
            owner = self.base.owner(entry.name)
            raise InputError("non-finite value", tensor=entry.name, term=owner)
        if stored != entry.dtype:
            values = round_to(values.to(torch.float32), DTYPES[entry.dtype])
            if not is_finite(values):
                raise _overflow(entry)
        return Merged(entry, _bytes(values), None)

    def _merge(self, entry: Entry) -> Merged:
        dtype = DTYPES[entry.dtype]
        written = torch.empty(self.vectors.elements(entry.name), dtype=dtype)
        values = self.vectors.base(entry.name)

        def add(block: Block, delta: torch.Tensor) -> None:
            base = values.block(block)
            result = apply_delta(base, delta, dtype)
            if not is_finite(result):
                raise self._non_finite(entry, base)
            written[block.start : block.stop] = result

        tally = self.each_block(entry.name, add)
        return Merged(entry, _bytes(written), tally)

    def each_block(self, name: str, use: Callable[[Block, torch.Tensor], None]) -> TensorTally:
        """Hand every block of a tensor's merged delta to `use`, in order; return the figures.

        Raises InputError for a term with a non-finite value, once all blocks were handed out.
        """
        deltas = self.hold(self.vectors.deltas(name), name)
        step = self.method.step(name, self.vectors, deltas)
        tally = self._tally(name, deltas, step.kept)
        for block in self.vectors.blocks(name):
            taus = [delta.block(block) for delta in deltas.values()]
            values = step.values(taus, block)
            delta = step.combine(values, block)
            tally.add(taus, values, delta)
            use(block, delta)
        self._refuse_non_finite_terms(name, deltas, tally)
        return tally

    def hold(self, deltas: dict[int, Delta], name: str) -> dict[int, Delta]:
        """Return the deltas of a tensor, computed once where the method reads them again."""
        size = self.vectors.elements(name) * len(deltas) * self.compute.itemsize
        if self.method.passes == 1 or size > self.held_bytes or size == 0:
            return deltas
        blocks = self.vectors.blocks(name)
        return {term: HeldDelta(delta, blocks) for term, delta in deltas.items()}

    def _tally(
        self, name: str, deltas: Mapping[int, Delta], kept: tuple[int, ...] | None
    ) -> TensorTally:
        terms = tuple(deltas)
        weights = self.method.weights(name)
        elements = self.vectors.elements(name)
        return TensorTally(terms, tuple(weights[term] for term in terms), elements, kept)

    def _non_finite(self, entry: Entry, base: torch.Tensor) -> InputError:
        if not is_finite(base):
            owner = self.base.owner(entry.name)
            return InputError("non-finite value", tensor=entry.name, term=owner)
        for term, delta in self.vectors.deltas(entry.name).items():
            for block in self.vectors.blocks(entry.name):
                if not is_finite(delta.block(block)):
                    label = self.vectors.label(term)
                    return InputError("non-finite value", tensor=entry.name, term=label)
        return _overflow(entry)

    def _refuse_non_finite_terms(
        self, name: str, deltas: Mapping[int, Delta], tally: TensorTally
    ) -> None:
        # ‖τ‖² was needed anyway, and no non-finite value leaves it finite.
        for term, norm in zip(deltas, tally.norms(), strict=True):
            if not math.isfinite(norm):
                label = self.vectors.label(term)
                raise InputError("non-finite value", tensor=name, term=label)


def _bytes(values: torch.Tensor) -> memoryview:
    return values.contiguous().view(torch.uint8).numpy().data


def _overflow(entry: Entry) -> InputError:
    why = f"the result has a value beyond the range of {entry.dtype}"
    return InputError(why, tensor=entry.name, field="output.dtype")

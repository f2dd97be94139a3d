"""One tensor of the result: deltas, method, base + delta, block by block, or a plain copy.

Knows neither shards nor threads, nor the order of the tensors. Every value is checked on the way:
what is not finite, in an operand or in the result, stops the build with the tensor's name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from merger.blocks import Block
from merger.checkpoint import DTYPES, Model
from merger.errors import InputError
from merger.methods.bound import Method, Step
from merger.pools import CPU, wait_for
from merger.rounding import add_delta, fits, is_finite, round_into, round_to
from merger.statistics import TensorTally
from merger.task_vector import Delta, HeldDelta, TaskVectors

HELD_BYTES = 128 << 20
"""Of deltas that a method reads more than once, over all tensors; more are computed again instead,
which costs little more than to fetch them from memory."""


@dataclass(frozen=True, slots=True)
class Merged:
    """Bytes of a tensor as written, and their figures if a term has it."""

    data: memoryview
    tally: TensorTally | None


@dataclass(frozen=True, slots=True)
class Prepared:
    """The deltas of a tensor and the method at it, after all passes that it needs beforehand."""

    name: str
    deltas: Mapping[int, Delta]
    step: Step


@dataclass(frozen=True, slots=True)
class Merging:
    """What is needed to make any tensor of the result."""

    base: Model
    vectors: TaskVectors
    method: Method
    compute: torch.dtype
    held_bytes: int = 0
    device: torch.device = CPU

    def blocks(self, name: str) -> tuple[Block, ...]:
        """Return the blocks of a tensor; those of one that is only copied as a whole are none."""
        return self.vectors.blocks(name) if self.base.is_float(name) else ()

    def prepare(self, name: str) -> Prepared:
        """Return what is needed to merge any block of a tensor that some term has."""
        deltas = self.hold(self.vectors.deltas(name), name)
        step = self.method.step(name, self.vectors, deltas)
        wait_for(self.device)
        return Prepared(name, deltas, step)

    def merge(self, prepared: Prepared, blocks: Sequence[Block], dtype: str) -> Merged:
        """Return the elements of some blocks of the result, one after another.

        Raises InputError for a value that is not finite, in a term, the base or the result.
        """
        written = self._empty(blocks, DTYPES[dtype])
        start = blocks[0].start if blocks else 0
        base = self.vectors.base(prepared.name)

        def add(block: Block, delta: torch.Tensor) -> None:
            result = add_delta(base.block(block), delta)
            if not fits(result, written.dtype):
                raise self.non_finite(prepared.name, dtype)
            round_into(result, written[block.start - start : block.stop - start])

        tally = self._each(prepared, blocks, add)
        wait_for(self.device)
        return Merged(_bytes(written), tally)

    def copy(self, name: str, blocks: Sequence[Block], dtype: str) -> Merged:
        """Return the elements of some blocks of a tensor of the base that no term has.

        Raises InputError for a value that is not finite, in its own dtype or in `dtype`.
        """
        if not self.base.is_float(name):
            return Merged(_bytes(self.base.read_raw(name)), None)
        written = self._empty(blocks, DTYPES[dtype])
        start = blocks[0].start if blocks else 0
        for block in blocks:
            values = self.base.read_block(name, block)
            if values.dtype != written.dtype:
                values = round_to(values.to(torch.float32), written.dtype)
            if not is_finite(values):
                raise self.non_finite(name, dtype)
            written[block.start - start : block.stop - start] = values
        return Merged(_bytes(written), None)

    def each_block(self, name: str, use: Callable[[Block, torch.Tensor], None]) -> TensorTally:
        """Hand every block of a tensor's merged delta to `use`, in order; return the figures.

        Raises InputError for a term with a non-finite value, once all blocks were handed out.
        """
        return self._each(self.prepare(name), self.vectors.blocks(name), use)

    def _empty(self, blocks: Sequence[Block], dtype: torch.dtype) -> torch.Tensor:
        size = blocks[-1].stop - blocks[0].start if blocks else 0
        # What a GPU computes comes back into pinned memory, without a stop in between.
        return torch.empty(size, dtype=dtype, pin_memory=self.device.type == "cuda")

    def _each(
        self,
        prepared: Prepared,
        blocks: Sequence[Block],
        use: Callable[[Block, torch.Tensor], None],
    ) -> TensorTally:
        deltas, step = prepared.deltas, prepared.step
        tally = self._tally(prepared.name, deltas, step.kept)
        for block in blocks:
            taus = [delta.block(block) for delta in deltas.values()]
            values = step.values(taus, block)
            delta = step.combine(values, block)
            tally.add(taus, values, delta)
            use(block, delta)
        self._refuse_non_finite_terms(prepared.name, deltas, tally)
        return tally

    def non_finite(self, name: str, dtype: str) -> InputError:
        """Return who is to blame for a value of a tensor that is not finite.

        The whole tensor is looked at, so it does not matter in which block that showed first: the
        base is to blame before the terms, whose deltas are made with it, and they in their order.
        """
        blocks = self.vectors.blocks(name)
        if not all(is_finite(self.base.read_block(name, block)) for block in blocks):
            return InputError("non-finite value", tensor=name, term=self.base.owner(name))
        for term, delta in self.vectors.deltas(name).items():
            if not all(is_finite(delta.block(block)) for block in blocks):
                label = self.vectors.label(term)
                return InputError("non-finite value", tensor=name, term=label)
        return _overflow(name, dtype)

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


def _overflow(name: str, dtype: str) -> InputError:
    why = f"the result has a value beyond the range of {dtype}"
    return InputError(why, tensor=name, field="output.dtype")

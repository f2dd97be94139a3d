"""What every operand of a merge gives: one delta per tensor that it has, block by block.

Knows neither files nor methods.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol, TypeVar

import torch

from merger.blocks import Block, split

Factors = tuple[torch.Tensor, torch.Tensor]
"""Left (O, R) and right (R, I): a delta as their product, in the compute dtype."""


class Delta(Protocol):
    """τ of one tensor."""

    def block(self, block: Block) -> torch.Tensor:
        """Return the elements of a block, flat, in the compute dtype; they are not written to."""

    def factors(self) -> Factors | None:
        """Return the two factors whose product it is, None if it is not known as a product."""


class TaskVector(Protocol):
    """τ of one operand: its deltas by the base's tensor names."""

    @property
    def label(self) -> str:
        """Kind and name of the operand, as in `adapter sql@1`."""

    @property
    def digest(self) -> str:
        """Digest of the operand's bytes, as the request pins them."""

    @property
    def names(self) -> frozenset[str]:
        """Tensors that it has; all others are a zero delta."""

    def delta(self, name: str) -> Delta:
        """Return the delta of a tensor that it has."""

    def module(self, name: str) -> str:
        """Return its name of the module whose weight a tensor is; empty if it knows none."""

    def close(self) -> None:
        """Close its files."""


_ALIGNED_BYTES = 64  # as torch aligns what it allocates


class HeldDelta:
    """A delta computed once and kept, with the bits of computing it again.

    BLAS adds up a dot product in an order that depends on where its vectors lie. So every block
    lies as if it had been allocated alone, whatever the number of columns.
    """

    __slots__ = ("_factors", "_places", "_values")

    def __init__(self, delta: Delta, blocks: Sequence[Block]) -> None:
        """Compute all blocks of `delta`, one at least; only these can be read."""
        self._factors = delta.factors()
        self._places: dict[int, int] = {}
        self._values = self._filled(delta, blocks)

    def _filled(self, delta: Delta, blocks: Sequence[Block]) -> torch.Tensor:
        first = delta.block(blocks[0])
        step = _ALIGNED_BYTES // first.element_size()
        size = 0
        for block in blocks:
            self._places[block.start] = size
            size += -(-block.elements // step) * step
        values = first.new_empty(size)
        for block in blocks:
            start = self._places[block.start]
            found = first if block is blocks[0] else delta.block(block)
            values[start : start + block.elements] = found
        return values

    def block(self, block: Block) -> torch.Tensor:
        """Return the elements of a block."""
        start = self._places[block.start]
        return self._values[start : start + block.elements]

    def factors(self) -> Factors | None:
        """Return the factors of the delta that is held."""
        return self._factors


@dataclass(frozen=True, slots=True)
class DeltaBlocks:
    """A delta as the sequence of its blocks, each computed when it is asked for."""

    delta: Delta
    blocks: Sequence[Block]

    def __len__(self) -> int:
        """Return the number of blocks."""
        return len(self.blocks)

    def __getitem__(self, index: int) -> torch.Tensor:
        """Return the elements of a block, flat."""
        return self.delta.block(self.blocks[index])


Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Question:
    """What a method finds out about some terms' deltas of a tensor before it merges them.

    `given` are the numbers that the answer depends on beside the deltas; `tensor` is empty for the
    whole task vectors. `nbytes` is what the answer takes, where that is much.
    """

    what: str
    terms: tuple[int, ...]
    tensor: str
    given: Hashable
    nbytes: int = 0


class TaskVectors:
    """All terms of a recipe against one base: who has which tensor, in the order of the terms."""

    __slots__ = ("_base", "_vectors", "shapes")

    def __init__(
        self,
        vectors: Sequence[TaskVector],
        shapes: Mapping[str, tuple[int, ...]],
        base: Callable[[str], Delta],
    ) -> None:
        """Take the terms' task vectors, the shape of every tensor of the base, and its values."""
        self._vectors = tuple(vectors)
        self.shapes = shapes
        self._base = base

    def __len__(self) -> int:
        """Return the number of terms of the recipe."""
        return len(self._vectors)

    def __getitem__(self, term: int) -> TaskVector:
        """Return the task vector of a term."""
        return self._vectors[term]

    @property
    def touched(self) -> tuple[str, ...]:
        """Tensors that at least one term has, in byte order."""
        return tuple(sorted(frozenset().union(*(vector.names for vector in self._vectors))))

    def label(self, term: int) -> str:
        """Return kind and name of a term's operand."""
        return self._vectors[term].label

    def module(self, name: str) -> str:
        """Return the name in a running model of the module whose weight a tensor is.

        Files may leave out a part of it; adapters, which are made from running models, tell.
        """
        known = (vector.module(name) for vector in self._vectors if name in vector.names)
        return next(filter(None, known), name.removesuffix(".weight"))

    def names(self, term: int) -> tuple[str, ...]:
        """Return the tensors that a term has, in byte order."""
        return tuple(sorted(self._vectors[term].names))

    def elements(self, name: str) -> int:
        """Return the number of elements of a tensor."""
        return prod(self.shapes[name])

    def blocks(self, name: str) -> tuple[Block, ...]:
        """Return the blocks of a tensor."""
        return split(self.shapes[name])

    def base(self, name: str) -> Delta:
        """Return the base's own values of a tensor, in the compute dtype, block by block."""
        return self._base(name)

    def digest(self, term: int) -> str:
        """Return the digest of a term's operand, as its request pins it."""
        return self._vectors[term].digest

    def delta(self, term: int, name: str) -> Delta:
        """Return a term's delta of a tensor that it has."""
        return self._vectors[term].delta(name)

    def deltas(self, name: str) -> dict[int, Delta]:
        """Return the deltas of a tensor by the index of the term, for the terms that have it."""
        return {
            term: self.delta(term, name)
            for term, vector in enumerate(self._vectors)
            if name in vector.names
        }

    def recall(self, _question: Question, find: Callable[[], Answer]) -> Answer:
        """Return what `find` finds; who is merged again and again may know it (`resident`)."""
        return find()

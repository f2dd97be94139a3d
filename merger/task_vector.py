"""What every operand of a merge gives: one delta per tensor that it has, block by block.

Knows neither files nor methods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Protocol

import torch

from merger.blocks import Block, split


class Delta(Protocol):
    """τ of one tensor."""

    def block(self, block: Block) -> torch.Tensor:
        """Return the elements of a block, flat, in the compute dtype; they are not written to."""


class TaskVector(Protocol):
    """τ of one operand: its deltas by the base's tensor names."""

    @property
    def label(self) -> str:
        """Kind and name of the operand, as in `adapter sql@1`."""

    @property
    def names(self) -> frozenset[str]:
        """Tensors that it has; all others are a zero delta."""

    def delta(self, name: str) -> Delta:
        """Return the delta of a tensor that it has."""

    def close(self) -> None:
        """Close its files."""


class HeldDelta:
    """A delta computed once and kept, with the bits of computing it again."""

    __slots__ = ("_values",)

    def __init__(self, delta: Delta, blocks: Sequence[Block]) -> None:
        """Compute all blocks of `delta`."""
        self._values = torch.cat([delta.block(block) for block in blocks])

    def block(self, block: Block) -> torch.Tensor:
        """Return the elements of a block."""
        return self._values[block.start : block.stop]


class TaskVectors:
    """All terms of a recipe against one base: who has which tensor, in the order of the terms."""

    __slots__ = ("_vectors", "shapes")

    def __init__(
        self, vectors: Sequence[TaskVector], shapes: Mapping[str, tuple[int, ...]]
    ) -> None:
        """Take the terms' task vectors and the shape of every tensor of the base."""
        self._vectors = tuple(vectors)
        self.shapes = shapes

    def __len__(self) -> int:
        """Return the number of terms of the recipe."""
        return len(self._vectors)

    @property
    def touched(self) -> tuple[str, ...]:
        """Tensors that at least one term has, in byte order."""
        return tuple(sorted(frozenset().union(*(vector.names for vector in self._vectors))))

    def label(self, term: int) -> str:
        """Return kind and name of a term's operand."""
        return self._vectors[term].label

    def names(self, term: int) -> tuple[str, ...]:
        """Return the tensors that a term has, in byte order."""
        return tuple(sorted(self._vectors[term].names))

    def elements(self, name: str) -> int:
        """Return the number of elements of a tensor."""
        return prod(self.shapes[name])

    def blocks(self, name: str) -> tuple[Block, ...]:
        """Return the blocks of a tensor."""
        return split(self.shapes[name])

    def delta(self, term: int, name: str) -> Delta:
        """Return a term's delta of a tensor that it has."""
        return self._vectors[term].delta(name)

    def deltas(self, name: str) -> dict[int, Delta]:
        """Return the deltas of a tensor by the index of the term, for the terms that have it."""
        return {
            term: vector.delta(name)
            for term, vector in enumerate(self._vectors)
            if name in vector.names
        }

"""Methods that sparsify every delta and leave the rest to another method: DARE, DELLA, Breadcrumbs.

A family gives one sparsifier per term and tensor, from numbers and, where magnitudes matter, a
look at the delta. The method behind it reads sparsified deltas wherever it reads deltas, so cuts,
majorities and scopes see what is left. Knows no file and no device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from merger.blocks import Block
from merger.methods.bound import Additive, Method, Run, Step
from merger.methods.bound_ties import Ties
from merger.request import Recipe
from merger.task_vector import Delta, TaskVectors


class Sparsifier(Protocol):
    """What becomes of one delta of one term."""

    @property
    def kept(self) -> int:
        """Elements that it keeps; the expected number, rounded, if that is left to chance."""

    def apply(self, tau: torch.Tensor, block: Block) -> torch.Tensor:
        """Return the block of τ with what is not kept set to zero, flat, in its dtype."""


class Family(Protocol):
    """A way to sparsify, with the numbers of one recipe."""

    @property
    def passes(self) -> int:
        """How often the deltas of one tensor are read to make a sparsifier, at most."""

    def check(self, name: str, term: int) -> None:
        """Raise InputError where a term's numbers at a tensor have no meaning."""

    def sparsifier(self, vectors: TaskVectors, term: int, name: str, delta: Delta) -> Sparsifier:
        """Return the sparsifier of a delta."""


@dataclass(frozen=True, slots=True)
class SparseDelta:
    """A delta as its sparsifier leaves it."""

    delta: Delta
    sparsifier: Sparsifier

    def block(self, block: Block) -> torch.Tensor:
        """Return the sparsified elements of a block."""
        return self.sparsifier.apply(self.delta.block(block), block)

    def factors(self) -> None:
        """Know no factors: what is left of a product is none."""


@dataclass(frozen=True, slots=True)
class SparseVector:
    """A term's task vector whose deltas are sparsified."""

    vectors: TaskVectors
    term: int
    family: Family

    @property
    def label(self) -> str:
        """Kind and name of the operand."""
        return self.vectors.label(self.term)

    @property
    def digest(self) -> str:
        """Digest of the operand."""
        return self.vectors.digest(self.term)

    @property
    def names(self) -> frozenset[str]:
        """Tensors that it has."""
        return frozenset(self.vectors.names(self.term))

    def delta(self, name: str) -> SparseDelta:
        """Return the sparsified delta of a tensor."""
        delta = self.vectors.delta(self.term, name)
        return SparseDelta(delta, self.family.sparsifier(self.vectors, self.term, name, delta))

    def close(self) -> None:
        """Leave the files to the task vector that is sparsified."""


@dataclass(frozen=True, slots=True)
class SparseStep:
    """A step on sparsified values."""

    step: Step
    sparsifiers: tuple[Sparsifier, ...]

    @property
    def kept(self) -> tuple[int, ...]:
        """Elements that each term keeps, as far as they are not left to chance."""
        kept = tuple(sparsifier.kept for sparsifier in self.sparsifiers)
        trimmed = self.step.kept
        return kept if trimmed is None else tuple(map(min, kept, trimmed))

    def values(self, taus: Sequence[torch.Tensor], block: Block) -> list[torch.Tensor]:
        """Return the values of the step behind, for sparsified τ."""
        pairs = zip(self.sparsifiers, taus, strict=True)
        return self.step.values([one.apply(tau, block) for one, tau in pairs], block)

    def combine(self, values: Sequence[torch.Tensor], block: Block) -> torch.Tensor:
        """Return the delta of the step behind."""
        return self.step.combine(values, block)


class Sparse:
    """A family in front of the method that combines what is left."""

    __slots__ = ("_family", "_inner", "_kept", "_terms")

    def __init__(self, family: Family, inner: Method, terms: int) -> None:
        """Bind `family` to `inner`, both of the same recipe with so many terms."""
        self._family = family
        self._inner = inner
        self._terms = terms
        self._kept: tuple[int, ...] | None = None

    @property
    def passes(self) -> int:
        """How often the deltas of one tensor are read, at most."""
        return self._family.passes + self._inner.passes

    def check(self, names: Iterable[str]) -> None:
        """Raise InputError where the numbers of the family or of the method have no meaning."""
        names = tuple(names)
        for name in names:
            for term in range(self._terms):
                self._family.check(name, term)
        self._inner.check(names)

    def survey(self, vectors: TaskVectors, run: Run) -> None:
        """Let the method look at the sparsified task vectors."""
        sparse = self._sparse(vectors)
        self._inner.survey(sparse, run)
        trimmed = self._inner.kept()
        if trimmed is not None:
            kept = run(lambda term: _all_kept(sparse, term), range(self._terms))
            self._kept = tuple(map(min, kept, trimmed))

    def step(self, name: str, vectors: TaskVectors, deltas: Mapping[int, Delta]) -> SparseStep:
        """Return the method at one tensor, behind a sparsifier per term."""
        sparse = {
            term: SparseDelta(delta, self._family.sparsifier(vectors, term, name, delta))
            for term, delta in deltas.items()
        }
        step = self._inner.step(name, self._sparse(vectors), sparse)
        return SparseStep(step, tuple(delta.sparsifier for delta in sparse.values()))

    def weights(self, name: str) -> tuple[float, ...]:
        """Return the weights of all terms at a tensor."""
        return self._inner.weights(name)

    def kept(self) -> tuple[int, ...] | None:
        """Return the elements that each term keeps in all, None if `Step.kept` tells."""
        return self._kept

    def _sparse(self, vectors: TaskVectors) -> TaskVectors:
        terms = [SparseVector(vectors, term, self._family) for term in range(len(vectors))]
        return TaskVectors(terms, vectors.shapes, vectors.base)


def _all_kept(sparse: TaskVectors, term: int) -> int:
    deltas = (sparse.delta(term, name) for name in sparse.names(term))
    return sum(delta.sparsifier.kept for delta in deltas if isinstance(delta, SparseDelta))


Binding = Callable[[Recipe, int], Method]


def before_sum(family: Callable[[Recipe, int], Family]) -> Binding:
    """Return the binding of a family in front of a weighted sum."""

    def bind(recipe: Recipe, layers: int) -> Method:
        return Sparse(family(recipe, layers), Additive(recipe, layers), len(recipe.terms))

    return bind


def before_ties(family: Callable[[Recipe, int], Family], share: str | None = None) -> Binding:
    """Return the binding of a family in front of TIES that trims to the parameter `share`."""

    def bind(recipe: Recipe, layers: int) -> Method:
        return Sparse(family(recipe, layers), Ties(recipe, layers, share), len(recipe.terms))

    return bind

"""A recipe's method bound to its numbers: what the engine asks for, tensor by tensor.

Here schedules become numbers and scopes become passes over a task vector; the arithmetic is in the
method's own file. Knows no file and no device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from merger.blocks import Block
from merger.errors import InputError
from merger.methods import averages, task_arithmetic, ties
from merger.request import Recipe
from merger.sparsify import Cut, find_cut, kept_count, trim
from merger.task_vector import Delta, TaskVectors
from schemas.schedule import value_at

Run = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""Map a function over items on several threads, results in the order of the items."""


class Step(Protocol):
    """A method at one tensor, for the terms that have it, in their order."""

    @property
    def kept(self) -> tuple[int, ...] | None:
        """Elements that each of these terms keeps, None if nothing is trimmed tensor by tensor."""

    def values(self, taus: Sequence[torch.Tensor], block: Block) -> list[torch.Tensor]:
        """Return the weighted (and trimmed) values of a block, flat."""

    def combine(self, values: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the delta of a block from its values, flat."""


class Method(Protocol):
    """A method with the numbers of one recipe."""

    @property
    def passes(self) -> int:
        """How often the deltas of one tensor are read, at most."""

    def check(self, names: Iterable[str]) -> None:
        """Raise InputError where the numbers have no meaning, before a tensor is read."""

    def survey(self, vectors: TaskVectors, run: Run) -> None:
        """Look at the whole task vectors, where the method needs it, before the first step."""

    def step(self, name: str, vectors: TaskVectors, deltas: Mapping[int, Delta]) -> Step:
        """Return the method at one tensor."""

    def weights(self, name: str) -> tuple[float, ...]:
        """Return the weights of all terms at a tensor, as the recipe has them."""

    def kept(self) -> tuple[int, ...] | None:
        """Return the elements that each term keeps in all, None if `Step.kept` tells."""


class Numbers:
    """The recipe's numbers at a tensor: schedules resolved, overrides of terms applied."""

    __slots__ = ("_layers", "_recipe")

    def __init__(self, recipe: Recipe, layers: int) -> None:
        """Take a recipe and the number of layers of its base."""
        self._recipe = recipe
        self._layers = layers

    def weights(self, name: str) -> tuple[float, ...]:
        """Return the weights of all terms at a tensor."""
        return tuple(value_at(term.weight, name, self._layers) for term in self._recipe.terms)

    def number(self, parameter: str, name: str, term: int | None = None) -> float:
        """Return a numeric parameter at a tensor, for a term if it may differ there."""
        value = self._recipe.parameters[parameter]
        if term is not None:
            value = self._recipe.terms[term].parameters.get(parameter, value)
        return value_at(value, name, self._layers)

    def choice(self, parameter: str) -> Any:
        """Return a parameter that is no number."""
        return self._recipe.parameters[parameter]


@dataclass(frozen=True, slots=True)
class WeightedSum:
    """Step of the methods that add weighted deltas."""

    factors: tuple[float, ...]
    kept: None = None

    def values(self, taus: Sequence[torch.Tensor], _block: Block) -> list[torch.Tensor]:
        """Return cᵢ·τᵢ."""
        return task_arithmetic.weigh(taus, self.factors)

    def combine(self, values: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return Σ cᵢ·τᵢ."""
        return task_arithmetic.total(values)


class Additive:
    """linear and task_arithmetic: a sum with one coefficient per term and tensor."""

    __slots__ = ("_is_linear", "_numbers")
    passes = 1

    def __init__(self, recipe: Recipe, layers: int) -> None:
        """Bind the recipe."""
        self._is_linear = recipe.method == "linear"
        self._numbers = Numbers(recipe, layers)

    def coefficients(self, name: str) -> tuple[float, ...]:
        """Return the coefficient of every term of the recipe at a tensor."""
        weights = self._numbers.weights(name)
        try:
            if self._is_linear:
                return averages.coefficients(weights)
            return task_arithmetic.coefficients(
                weights,
                lambda_=self._numbers.number("lambda", name),
                normalize=self._numbers.choice("normalize"),
            )
        except task_arithmetic.WeightError as error:
            field = "recipe.terms" if self._is_linear else "recipe.parameters.normalize"
            raise InputError(str(error), tensor=name, field=field) from error

    def check(self, names: Iterable[str]) -> None:
        """Raise InputError for weights that cannot be divided by their sum."""
        for name in names:
            self.coefficients(name)

    def survey(self, vectors: TaskVectors, run: Run) -> None:
        """Need nothing."""

    def step(self, name: str, _vectors: TaskVectors, deltas: Mapping[int, Delta]) -> WeightedSum:
        """Return the sum at one tensor."""
        factors = self.coefficients(name)
        return WeightedSum(tuple(factors[term] for term in deltas))

    def weights(self, name: str) -> tuple[float, ...]:
        """Return the weights of all terms at a tensor."""
        return self._numbers.weights(name)

    def kept(self) -> None:
        """Trim nothing."""


@dataclass(frozen=True, slots=True)
class TiesNumbers:
    """What TIES needs at one tensor; weights and cuts are those of the terms that have it."""

    weights: tuple[float, ...]
    cuts: tuple[Cut, ...]
    starts: tuple[int, ...]
    election: str
    tie: str
    agreeing: int
    combine: str
    lambda_: float


@dataclass(frozen=True, slots=True)
class TiesStep:
    """TIES at one tensor; `majority` is the sum of all elected signs of the scope."""

    numbers: TiesNumbers
    majority: float = 0.0
    kept: tuple[int, ...] | None = None

    def values(self, taus: Sequence[torch.Tensor], block: Block) -> list[torch.Tensor]:
        """Return wᵢ·trim(τᵢ)."""
        numbers = self.numbers
        trimmed = [
            trim(tau, cut, start=start + block.start)
            for tau, cut, start in zip(taus, numbers.cuts, numbers.starts, strict=True)
        ]
        return task_arithmetic.weigh(trimmed, numbers.weights)

    def combine(self, values: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return λ times the disjoint merge."""
        numbers = self.numbers
        counted = ties.tally(values)
        elected = ties.elect(counted, numbers.election)
        sign = ties.break_ties(elected, values, tie=numbers.tie, majority=self.majority)
        merged = ties.merge(
            counted, sign, values, combine=numbers.combine, agreeing=numbers.agreeing
        )
        return merged if numbers.lambda_ == 1.0 else merged * numbers.lambda_

    def elected_sum(self, deltas: Sequence[Delta], blocks: Sequence[Block]) -> float:
        """Return the sum of the elected signs of a tensor, ties counted as 0."""
        found = 0.0
        for block in blocks:
            values = self.values([delta.block(block) for delta in deltas], block)
            elected = ties.elect(ties.tally(values), self.numbers.election)
            # Whole numbers of at most 2**53 in float64: exact in any order.
            found += float(elected.sum(dtype=torch.float64))
        return found


@dataclass(slots=True)
class _ModelScope:
    """What `scope: model` finds out before the first step."""

    cuts: tuple[Cut, ...] = ()
    kept: tuple[int, ...] = ()
    starts: tuple[Mapping[str, int], ...] = ()
    majority: float = 0.0


@dataclass(slots=True)
class Ties:
    """TIES with the numbers of one recipe."""

    recipe: Recipe
    layers: int
    passes: int = 3
    _scope: _ModelScope = field(default_factory=_ModelScope)

    @property
    def _numbers(self) -> Numbers:
        return Numbers(self.recipe, self.layers)

    @property
    def _is_model_scope(self) -> bool:
        return bool(self.recipe.parameters["scope"] == "model")

    def check(self, names: Iterable[str]) -> None:
        """Accept all numbers that the schema accepts."""

    def survey(self, vectors: TaskVectors, run: Run) -> None:
        """Find the cut of every term, and the majority if it is asked, for `scope: model`."""
        if not self._is_model_scope:
            return
        scope = self._scope
        scope.starts = tuple(_starts(vectors, term) for term in range(len(vectors)))
        found = tuple(run(lambda term: self._model_cut(vectors, term), range(len(vectors))))
        scope.cuts = tuple(cut for cut, _ in found)
        scope.kept = tuple(keep for _, keep in found)
        if self.recipe.parameters["tie"] == "majority":
            scope.majority = sum(
                run(lambda name: self._elected_sum(vectors, name), vectors.touched)
            )

    def step(self, name: str, vectors: TaskVectors, deltas: Mapping[int, Delta]) -> TiesStep:
        """Return TIES at one tensor, after the passes that trimming and majority need."""
        if self._is_model_scope:
            return TiesStep(self._at(name, deltas, self._scope.cuts), self._scope.majority)
        blocks = vectors.blocks(name)
        elements = vectors.elements(name)
        cuts: dict[int, Cut] = {}
        kept: list[int] = []
        for term, delta in deltas.items():
            keep = kept_count(self._numbers.number("density", name, term), elements)
            cuts[term] = find_cut(_TensorStream(delta, blocks), elements, keep)
            kept.append(keep)
        step = TiesStep(self._at(name, deltas, cuts), kept=tuple(kept))
        if self.recipe.parameters["tie"] != "majority":
            return step
        majority = step.elected_sum(tuple(deltas.values()), blocks)
        return TiesStep(step.numbers, majority, step.kept)

    def weights(self, name: str) -> tuple[float, ...]:
        """Return the weights of all terms at a tensor."""
        return self._numbers.weights(name)

    def kept(self) -> tuple[int, ...] | None:
        """Return the elements that each term keeps with `scope: model`."""
        return self._scope.kept if self._is_model_scope else None

    def _model_cut(self, vectors: TaskVectors, term: int) -> tuple[Cut, int]:
        names = vectors.names(term)
        elements = sum(vectors.elements(name) for name in names)
        keep = kept_count(self._numbers.number("density", names[0], term), elements)
        return find_cut(_TermStream(vectors, term), elements, keep), keep

    def _elected_sum(self, vectors: TaskVectors, name: str) -> float:
        deltas = vectors.deltas(name)
        step = TiesStep(self._at(name, deltas, self._scope.cuts))
        return step.elected_sum(tuple(deltas.values()), vectors.blocks(name))

    def _at(
        self, name: str, terms: Iterable[int], cuts: Sequence[Cut] | Mapping[int, Cut]
    ) -> TiesNumbers:
        numbers, terms = self._numbers, tuple(terms)
        weights = numbers.weights(name)
        starts = self._scope.starts
        return TiesNumbers(
            weights=tuple(weights[term] for term in terms),
            cuts=tuple(cuts[term] for term in terms),
            starts=tuple(starts[term][name] if starts else 0 for term in terms),
            election=numbers.choice("election"),
            tie=numbers.choice("tie"),
            agreeing=ties.agreeing_count(numbers.number("min_agreement", name), len(weights)),
            combine=numbers.choice("combine"),
            lambda_=numbers.number("lambda", name),
        )


@dataclass(frozen=True, slots=True)
class _TensorStream:
    """The blocks of one delta, again and again."""

    delta: Delta
    blocks: Sequence[Block]

    def __call__(self) -> Iterator[torch.Tensor]:
        return (self.delta.block(block) for block in self.blocks)


@dataclass(frozen=True, slots=True)
class _TermStream:
    """The blocks of a term's whole task vector, tensors in byte order of their names."""

    vectors: TaskVectors
    term: int

    def __call__(self) -> Iterator[torch.Tensor]:
        for name in self.vectors.names(self.term):
            delta = self.vectors.delta(self.term, name)
            for block in self.vectors.blocks(name):
                yield delta.block(block)


def _starts(vectors: TaskVectors, term: int) -> dict[str, int]:
    """Return the position of the first element of each tensor in the term's task vector."""
    starts: dict[str, int] = {}
    position = 0
    for name in vectors.names(term):
        starts[name] = position
        position += vectors.elements(name)
    return starts


METHODS: Mapping[str, Callable[[Recipe, int], Method]] = {
    "linear": Additive,
    "task_arithmetic": Additive,
    "ties": Ties,
}
"""Name in a recipe to the method that is bound to it."""

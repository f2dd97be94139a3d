"""TIES bound to the numbers of one recipe: cuts and majorities found before the merge.

`scope: tensor` needs passes over one tensor's deltas, `scope: model` over whole task vectors. The
arithmetic is in `ties` and `sparsify`. Knows no file and no device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from merger.blocks import Block
from merger.errors import InputError
from merger.methods import averages, task_arithmetic, ties
from merger.methods.bound import Numbers, Run
from merger.request import Recipe
from merger.selection import Cut, find_cut
from merger.sparsify import kept_count, trim
from merger.task_vector import Delta, DeltaBlocks, Question, TaskVectors


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

    @property
    def _is_weighted(self) -> bool:
        return not self.numbers.election.startswith(ties.UNWEIGHTED)

    def values(self, taus: Sequence[torch.Tensor], block: Block) -> list[torch.Tensor]:
        """Return what signs are elected from: wᵢ·trim(τᵢ), or trim(τᵢ) before the weights."""
        numbers = self.numbers
        trimmed = [
            trim(tau, cut, start=start + block.start)
            for tau, cut, start in zip(taus, numbers.cuts, numbers.starts, strict=True)
        ]
        return task_arithmetic.weigh(trimmed, numbers.weights) if self._is_weighted else trimmed

    def combine(self, values: Sequence[torch.Tensor], _block: Block) -> torch.Tensor:
        """Return λ times the disjoint merge."""
        numbers = self.numbers
        counted = ties.tally(values)
        elected = ties.elect(counted, numbers.election)
        sign = ties.break_ties(elected, values, tie=numbers.tie, majority=self.majority)
        merged = ties.merge(
            counted,
            sign,
            values,
            combine=numbers.combine,
            agreeing=numbers.agreeing,
            weights=numbers.weights,
            is_weighted=self._is_weighted,
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
    """TIES with the numbers of one recipe; `share` is the parameter that trims, None if none."""

    recipe: Recipe
    layers: int
    share: str | None = "density"
    passes: int = 3
    _scope: _ModelScope = field(default_factory=_ModelScope)

    @property
    def _numbers(self) -> Numbers:
        return Numbers(self.recipe, self.layers)

    @property
    def _is_model_scope(self) -> bool:
        # Methods that do not trim have no scope: each tensor is one.
        return bool(self.recipe.parameters.get("scope") == "model")

    def check(self, names: Iterable[str]) -> None:
        """Raise InputError for weights that `weighted_mean` cannot divide by their sum."""
        if self.recipe.parameters["combine"] != "weighted_mean":
            return
        for name in names:
            try:
                averages.coefficients(self._numbers.weights(name))
            except task_arithmetic.WeightError as error:
                field = "recipe.parameters.combine"
                raise InputError(str(error), tensor=name, field=field) from error

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
            keep = self._kept_count(name, term, elements)
            cuts[term] = vectors.recall(
                Question("cut", (term,), name, keep),
                partial(find_cut, DeltaBlocks(delta, blocks), elements, keep),
            )
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
        keep = self._kept_count(names[0], term, elements)
        found = vectors.recall(
            Question("cut", (term,), "", keep),
            partial(find_cut, _TermBlocks(vectors, term), elements, keep),
        )
        return found, keep

    def _kept_count(self, name: str, term: int, elements: int) -> int:
        if self.share is None:
            return elements
        return kept_count(self._numbers.number(self.share, name, term), elements)

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


class _TermBlocks:
    """The blocks of a term's whole task vector, tensors in byte order of their names."""

    __slots__ = ("_last", "_places", "_term", "_vectors")

    def __init__(self, vectors: TaskVectors, term: int) -> None:
        self._vectors = vectors
        self._term = term
        names = vectors.names(term)
        self._places = [(name, block) for name in names for block in vectors.blocks(name)]
        self._last: tuple[str, Delta] | None = None

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> torch.Tensor:
        name, block = self._places[index]
        if self._last is None or self._last[0] != name:
            # Asked for once per tensor: an adapter reads its factors for it.
            self._last = name, self._vectors.delta(self._term, name)
        return self._last[1].block(block)


def _starts(vectors: TaskVectors, term: int) -> dict[str, int]:
    """Return the position of the first element of each tensor in the term's task vector."""
    starts: dict[str, int] = {}
    position = 0
    for name in vectors.names(term):
        starts[name] = position
        position += vectors.elements(name)
    return starts

"""TSV-M, Iso-C, Iso-CTS and KnOTS bound to the numbers of one recipe.

A tensor of two dimensions is a matrix; all others are averaged, λ Σ wᵢτᵢ / N, as in the papers'
code. If all terms that have a matrix know it as a product of low rank, and the ranks add up to
less than min(O, I), everything happens in their common basis and no whole matrix is ever formed,
neither of an operand nor of the result. Nor is it in float32 if they have more rows than columns
(than those of all terms side by side for KnOTS), as the matrices of a vocabulary have: see `tall`.
Otherwise a step holds whole matrices of one tensor, in the compute dtype: all N for KnOTS, else one
or two, and the singular vectors of as many. Knows no file and no device.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from merger.blocks import Block
from merger.methods import spectral, tall, task_arithmetic
from merger.methods.bound import Numbers, Run, Step, WeightedSum
from merger.methods.bound_ties import Ties
from merger.methods.spectral import Frame, Setting
from merger.request import Recipe
from merger.rounding import is_finite
from merger.task_vector import Delta, Factors, TaskVectors


@dataclass(frozen=True, slots=True)
class ProductStep:
    """A merged delta as two factors, (O, R) and (R, I) in the compute dtype."""

    weights: tuple[float, ...]
    left: torch.Tensor
    right: torch.Tensor
    kept: None = None

    def values(self, taus: Sequence[torch.Tensor], _block: Block) -> list[torch.Tensor]:
        """Return wᵢ·τᵢ."""
        return task_arithmetic.weigh(taus, self.weights)

    def combine(self, _values: Sequence[torch.Tensor], block: Block) -> torch.Tensor:
        """Return the rows of a block of the product."""
        return torch.mm(self.left[block.first : block.last], self.right).reshape(-1)


@dataclass(frozen=True, slots=True)
class RowStep:
    """A merged delta whose rows follow from the same rows of the terms, λ·`merge` of `rows`.

    `rows` are in float64, and not the values that a step is given: KnOTS wants them unweighted.
    """

    weights: tuple[float, ...]
    rows: Callable[[Block], Sequence[torch.Tensor]]
    merge: tall.RowMap
    lambda_: float
    compute: torch.dtype
    kept: None = None

    def values(self, taus: Sequence[torch.Tensor], _block: Block) -> list[torch.Tensor]:
        """Return wᵢ·τᵢ."""
        return task_arithmetic.weigh(taus, self.weights)

    def combine(self, _values: Sequence[torch.Tensor], block: Block) -> torch.Tensor:
        """Return the rows of a block."""
        return (self.merge(self.rows(block)) * self.lambda_).to(self.compute).reshape(-1)


class Spectral:
    """tsv_m, iso_c, iso_cts, knots."""

    __slots__ = ("_numbers", "_recipe", "_ties", "_unit")
    # Deltas are read twice without a frame, thrice by iso_cts; a second read is nothing beside a
    # singular value decomposition, and holding them would form whole matrices with a frame too.
    passes = 1

    def __init__(self, recipe: Recipe, layers: int) -> None:
        """Bind the recipe."""
        self._recipe = recipe
        self._numbers = Numbers(recipe, layers)
        self._unit = torch.finfo(getattr(torch, recipe.compute)).eps
        in_basis = {**recipe.parameters, "scope": "tensor"}
        self._ties = Ties(dataclasses.replace(recipe, parameters=in_basis), layers)

    def check(self, names: Iterable[str]) -> None:
        """Raise InputError where TIES would."""
        if self._recipe.method == "knots":
            self._ties.check(names)

    def survey(self, vectors: TaskVectors, run: Run) -> None:
        """Need nothing."""

    def step(self, name: str, vectors: TaskVectors, deltas: Mapping[int, Delta]) -> Step:
        """Return the merged factors of a matrix, the mean of anything else."""
        shape = vectors.shapes[name]
        weights = self._numbers.weights(name)
        own = tuple(weights[term] for term in deltas)
        if len(shape) != 2 or vectors.elements(name) == 0:
            lambda_ = self._numbers.number("lambda", name)
            return WeightedSum(tuple(lambda_ * weight / len(weights) for weight in own))
        compute = getattr(torch, self._recipe.compute)
        try:
            frame = _frame(tuple(deltas.values()), min(shape))
            if frame is None and self._is_tall(shape, len(deltas)):
                return self._by_rows(name, vectors, deltas, own)
            left, right = self._factors(name, vectors, deltas, frame)
        except _NotFiniteError:
            # The engine finds out whose value it is when it meets the result.
            left, right = torch.full((shape[0], 1), torch.nan), torch.zeros(1, shape[1])
        return ProductStep(own, left.to(compute), right.to(compute))

    def weights(self, name: str) -> tuple[float, ...]:
        """Return the weights of all terms at a tensor."""
        return self._numbers.weights(name)

    def kept(self) -> None:
        """Trim no tensor: KnOTS trims in another basis."""

    def _is_tall(self, shape: tuple[int, ...], terms: int) -> bool:
        # The Gram matrices of `tall` lose digits that float64 would have.
        beside = terms if self._recipe.method == "knots" else 1
        return self._recipe.compute == "float32" and shape[0] > beside * shape[1]

    def _setting(self, shape: tuple[int, ...]) -> Setting:
        return Setting(min(shape), len(self._recipe.terms), self._unit)

    def _by_rows(
        self,
        name: str,
        vectors: TaskVectors,
        deltas: Mapping[int, Delta],
        weights: tuple[float, ...],
    ) -> RowStep:
        method, terms = self._recipe.method, len(deltas)
        setting = self._setting(vectors.shapes[name])
        factors = (1.0,) * terms if method == "knots" else weights
        of_block = functools.partial(_rows, tuple(deltas.values()), factors)

        def rows(wanted: Sequence[int]) -> Iterator[list[torch.Tensor]]:
            return (of_block(wanted, block) for block in vectors.blocks(name))

        merge: tall.RowMap
        if method == "tsv_m":
            merge = tall.tsv_m(rows, terms, setting)
        elif method == "iso_c":
            merge = tall.iso_c(rows, terms, setting)
        elif method == "iso_cts":
            share = self._numbers.number("common_share", name)
            merge = tall.iso_cts(rows, terms, setting, share)
        else:
            to_basis, parts = tall.shared_parts(rows, terms, setting)
            signs, merged = self._merge_parts(name, vectors, dict(zip(deltas, parts, strict=True)))
            merge = tall.product(to_basis * signs @ merged.double())
        lambda_ = 1.0 if method == "knots" else self._numbers.number("lambda", name)
        compute = getattr(torch, self._recipe.compute)
        return RowStep(weights, functools.partial(of_block, range(terms)), merge, lambda_, compute)

    def _factors(
        self,
        name: str,
        vectors: TaskVectors,
        deltas: Mapping[int, Delta],
        frame: Frame | None,
    ) -> Factors:
        setting = self._setting(vectors.shapes[name])
        if self._recipe.method == "knots":
            taus = dict(zip(deltas, _matrices(name, vectors, deltas, frame), strict=True))
            return self._knots(name, vectors, taus, frame, setting)
        weights = self._numbers.weights(name)

        def weighted() -> Iterator[torch.Tensor]:
            found = _matrices(name, vectors, deltas, frame)
            for term, tau in zip(deltas, found, strict=True):
                yield from _finite(task_arithmetic.weigh([tau], [weights[term]]))

        if self._recipe.method == "tsv_m":
            left, right = spectral.tsv_m(weighted, setting)
        elif self._recipe.method == "iso_c":
            left, right = spectral.iso_c(weighted, setting)
        else:
            share = self._numbers.number("common_share", name)
            left, right = spectral.iso_cts(weighted, setting, share)
        left = left * self._numbers.number("lambda", name)
        return (left, right) if frame is None else (frame.left @ left, right @ frame.right)

    def _knots(
        self,
        name: str,
        vectors: TaskVectors,
        taus: Mapping[int, torch.Tensor],
        frame: Frame | None,
        setting: Setting,
    ) -> Factors:
        basis = spectral.shared_basis(tuple(taus.values()), setting)
        parts = {}
        for term, tau in taus.items():
            part = basis.T @ tau
            parts[term] = part if frame is None else part @ frame.right
        left = basis if frame is None else frame.left @ basis
        signs, merged = self._merge_parts(name, vectors, parts)
        return left * signs, merged

    def _merge_parts(
        self, name: str, vectors: TaskVectors, parts: Mapping[int, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Merge the parts ΣVᵢᵀ = Uᵀτᵢ, (R, I), by TIES: the signs of the basis, (R,), and (R, I).

        The basis is that of the τᵢ without their weights, which multiply the trimmed parts as in
        TIES. Density is a share of the R·I elements of a part, each part trimmed by itself (the
        paper's code trims all tensors of a term at once). TIES depends on the basis: signs are
        fixed (they decide ties), but among equal singular values the basis is LAPACK's.
        """
        compute = getattr(torch, self._recipe.compute)
        signs = spectral.row_signs(tuple(parts.values()))
        signed: dict[int, Delta] = {
            term: _Part((part * signs[:, None]).to(compute).reshape(-1))
            for term, part in parts.items()
        }
        shape = (len(signs), vectors.shapes[name][1])
        within = TaskVectors((), {name: shape}, vectors.base)
        step = self._ties.step(name, within, signed)
        merged = signs.new_zeros(shape)
        for block in within.blocks(name):
            values = step.values([part.block(block) for part in signed.values()], block)
            merged.view(-1)[block.start : block.stop] = step.combine(values, block)
        return signs, merged


@dataclass(frozen=True, slots=True)
class _Part:
    """What a term is in the shared basis, flat."""

    values: torch.Tensor

    def block(self, block: Block) -> torch.Tensor:
        return self.values[block.start : block.stop]

    def factors(self) -> None:
        return None


class _NotFiniteError(ArithmeticError):
    """A value is no number, so no singular value can be."""


def _frame(deltas: Sequence[Delta], size: int) -> Frame | None:
    """Return the common basis of low-rank deltas, None if one is not or the sum of ranks is not."""
    factors = [found for found in (delta.factors() for delta in deltas) if found is not None]
    if len(factors) < len(deltas) or sum(left.shape[1] for left, _ in factors) >= size:
        return None
    for pair in factors:
        _finite(pair)
    return spectral.frame(factors)


def _rows(
    deltas: Sequence[Delta], factors: Sequence[float], wanted: Sequence[int], block: Block
) -> list[torch.Tensor]:
    """Return the rows of a block of some of the matrices, each times its factor, in float64."""
    taus = [deltas[term].block(block) for term in wanted]
    weighted = _finite(task_arithmetic.weigh(taus, [factors[term] for term in wanted]))
    return [tau.reshape(-1, block.columns).double() for tau in weighted]


def _matrices(
    name: str, vectors: TaskVectors, deltas: Mapping[int, Delta], frame: Frame | None
) -> Iterator[torch.Tensor]:
    """Yield the matrices of the terms: small ones in the frame, whole ones without."""
    if frame is not None:
        yield from _finite(frame.cores)
        return
    for delta in deltas.values():
        values = torch.cat([delta.block(block) for block in vectors.blocks(name)])
        yield from _finite([values.reshape(vectors.shapes[name])])


def _finite(tensors: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    """Return the tensors; _NotFiniteError if one holds what is no number, maybe by its weight."""
    if not all(is_finite(tensor.reshape(-1)) for tensor in tensors):
        raise _NotFiniteError
    return tensors

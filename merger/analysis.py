"""Look at the terms of a merge without making it: one pass over the tensors that they touch.

What the figures mean stands in `interference`. With a recipe, the result's delta is made block by
block by the code that builds, so a merge can be looked at before it was ever built; nothing is
written. Tensors that no term has are not read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from merger import interference, pools
from merger.analysis_request import AnalysisRequest
from merger.blocks import Block
from merger.engine import Limits, Progress, open_merging
from merger.errors import InputError
from merger.interference import Sums, TensorSums
from merger.methods.bound import Numbers, Step
from merger.request import Recipe
from merger.tensor_merge import Merging
from schemas.schedule import count_layers, in_order, part_of

_DROPPING = ("dare_linear", "dare_ties")
"""Methods that drop each element with the same chance, so the conflict left can be expected."""


def analyze(
    request: AnalysisRequest, inputs: Mapping[str, Path], *, limits: Limits, progress: Progress
) -> dict[str, Any]:
    """Return the figures of the terms, in all and per part of the model, as plain data.

    Raises InputError for an input that does not fit the request, as a build does.
    """
    build = request.build
    with ExitStack() as stack:
        _, merging = open_merging(stack, build, inputs, limits)
        vectors, layers = merging.vectors, count_layers(merging.base.tensors)
        pool = stack.enter_context(pools.threads(limits.threads, limits.device))
        if request.has_recipe:
            merging.method.survey(vectors, pool.map)
        densities = _Densities(build.recipe, layers, request.density)
        look = _Look(merging, densities, has_recipe=request.has_recipe)
        names = vectors.touched
        found = {}
        for done, (name, sums) in enumerate(zip(names, pool.map(look.at, names), strict=True), 1):
            found[name] = sums
            progress(done, len(names), "tensors")
    return _report(request, found, has_masks=look.has_masks)


@dataclass(frozen=True, slots=True)
class _Densities:
    """How much of each term is kept at random: by the recipe where it drops, else as asked."""

    recipe: Recipe
    layers: int
    asked: float

    @property
    def are_the_recipes(self) -> bool:
        return self.recipe.method in _DROPPING

    def at(self, name: str, terms: tuple[int, ...]) -> tuple[float, ...]:
        if not self.are_the_recipes:
            return (self.asked,) * len(terms)
        numbers = Numbers(self.recipe, self.layers)
        return tuple(numbers.number("density", name, term) for term in terms)


@dataclass(frozen=True, slots=True)
class _Look:
    """What is needed to sum over any tensor."""

    merging: Merging
    densities: _Densities
    has_recipe: bool

    @property
    def has_masks(self) -> bool:
        return self.has_recipe and self.densities.are_the_recipes

    def at(self, name: str) -> Sums:
        """Return the sums over a tensor."""
        vectors, method = self.merging.vectors, self.merging.method
        deltas = vectors.deltas(name)
        if self.has_recipe:
            deltas = self.merging.hold(deltas, name)
        terms = tuple(deltas)
        weights = method.weights(name)
        step = method.step(name, vectors, deltas) if self.has_recipe else None
        sums = TensorSums(
            terms, tuple(weights[term] for term in terms), self.densities.at(name, terms)
        )
        for block in vectors.blocks(name):
            self._add(sums, [delta.block(block) for delta in deltas.values()], step, block)
        for term, norm in zip(terms, sums.norms(), strict=True):
            if not math.isfinite(norm):
                raise InputError("non-finite value", tensor=name, term=vectors.label(term))
        return sums.total(len(vectors), vectors.elements(name))

    def _add(
        self, sums: TensorSums, taus: list[torch.Tensor], step: Step | None, block: Block
    ) -> None:
        seen = sums.add(taus)
        if step is None:
            return
        values = step.values(taus, block)
        sums.add_result(seen, step.combine(values, block))
        if self.has_masks:
            sums.add_left(seen, values)


def _report(
    request: AnalysisRequest, found: Mapping[str, Sums], *, has_masks: bool
) -> dict[str, Any]:
    recipe = request.build.recipe
    whole = Sums.of(len(recipe.terms))
    parts: dict[str, Sums] = {}
    for name, sums in sorted(found.items()):
        whole.add(sums)
        parts.setdefault(part_of(name), Sums.of(len(recipe.terms))).add(sums)
    shown = {"has_masks": has_masks, "has_result": request.has_recipe}
    return {
        "terms": [term.label for term in recipe.terms],
        "density": None if has_masks else request.density,
        "total": interference.figures(whole, **shown),
        "parts": [
            {"part": part, **interference.figures(parts[part], **shown)} for part in in_order(parts)
        ],
    }

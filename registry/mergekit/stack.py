"""mergekit's passthrough in slices of ours: layers copied from one model each.

Both take what stands before the layers from the first slice and what stands behind them from the
last. mergekit can also multiply a tensor (`scale`); ours copies.
"""

from __future__ import annotations

from typing import Any

from registry.mergekit.merge import Merge, Recipe
from registry.mergekit.models import Operand
from registry.mergekit.reading import Input
from schemas.schedule import count_layers, numbers_of

_WHOLE = "write slices, each with one source and its layer_range"


def translate(merge: Merge) -> Recipe | None:
    """Return the recipe of passthrough, one slice per input."""
    inputs = merge.config.inputs
    if any(one.layers is None for one in inputs) and len(inputs) > 1:
        message = f"passthrough takes one model, found {len(inputs)}"
        merge.findings.problem(("merge_method",), message, _WHOLE)
        return None
    slices = []
    for one in inputs:
        _refuse_scale(merge, one)
        operand = merge.operands[one.reference]
        layers = None if operand is None else _layers(merge, one, operand)
        if operand is not None and layers is not None:
            slices.append(_slice(operand, layers))
    return Recipe("passthrough", {}, (), tuple(slices))


def _slice(operand: Operand, layers: tuple[int, int]) -> dict[str, Any]:
    named = {} if operand.kind == "base" else operand.as_term()
    return {**named, "layers": list(layers)}


def _refuse_scale(merge: Merge, one: Input) -> None:
    scale = merge.settings.number((*one.scopes, *merge.config.shared), "scale", 1.0, one.path)
    others = [] if scale is None else [number for number in numbers_of(scale) if number != 1]
    if others:
        message = f"scale multiplies what passthrough here copies: found {others[0]:g}"
        merge.findings.problem(merge.place("scale", one), message, "no recipe scales a tensor")


def _layers(merge: Merge, one: Input, operand: Operand) -> tuple[int, int] | None:
    """Return the layers of a slice; None, with a problem, where they are not those of a model."""
    count = count_layers(merge.settings.names)
    if one.layers is None:
        if count and operand.kind != "merge":
            return 0, count
        message = "expected layer_range, found a model whose number of layers is not known here"
        merge.findings.problem(one.path, message, _WHOLE)
        return None
    first, last = one.layers
    # A merge may be a stack itself: of its layers the catalog tells, when the spec is validated.
    most = count if count and operand.kind != "merge" else last
    if not 0 <= first < last <= most:
        path = (*one.path[:-1], "layer_range")
        within = f"within [0, {count}]" if most == count else "[first, last] with first < last"
        merge.findings.problem(path, f"expected layers {within}, found [{first}, {last}]")
        return None
    return one.layers

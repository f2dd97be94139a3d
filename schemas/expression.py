"""A recipe as a line that people read: `base + 1·sql@1 − 0.5·shout@1`. From plain data alone.

The model card, MLflow and every report show this line, so it is written in one place. The card is
part of the artifact: what changes here changes artifact digests (`numerics`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from schemas.schedule import Scheduled


def mean_weight(weight: Scheduled) -> float:
    """Return the number that stands for a weight: itself, or the mean of a schedule's layers."""
    if isinstance(weight, Mapping):
        layers = weight["layers"]
        return float(sum(layers) / len(layers))
    return float(weight)


def number(value: float) -> str:
    """Return a number as people write it: `1`, `0.5`, `-0.25`."""
    return f"{value:.6g}"


def reference(thing: Mapping[str, Any]) -> str:
    """Return `sql@1`, or the name alone for what has no version."""
    version = thing.get("version")
    return f"{thing['name']}" if version is None else f"{thing['name']}@{version}"


def expression(base: str, recipe: Mapping[str, Any]) -> str:
    """Return the line for a resolved recipe, as a build request holds it.

    Task arithmetic is written as the sum that it is, passthrough as the layers that it stacks, the
    other methods as a function of the base and the weighted terms. A schedule is shown as
    `[first…last]`.
    """
    if recipe.get("slices"):
        return _stack(base, recipe)
    # Additions first: people read what a model is before what was taken away.
    terms = sorted(recipe["terms"], key=lambda term: (_is_negative(term), reference(term["input"])))
    method = recipe["method"]
    if method != "task_arithmetic":
        operands = ", ".join(_weighted(term) for term in terms)
        return f"{method}({base}; {operands})"
    signed = _signed_sum(terms)
    factor = recipe["parameters"]["lambda"]
    if factor != 1 or recipe["parameters"]["normalize"]:
        divisor = " / Σw" if recipe["parameters"]["normalize"] else ""
        return f"{base} + {_amount(factor)}·({signed.removeprefix('+ ')}){divisor}"
    return f"{base} {signed}"


def _stack(base: str, recipe: Mapping[str, Any]) -> str:
    names = [reference(term["input"]) for term in recipe["terms"]]
    parts = []
    for one in recipe["slices"]:
        name = base if one["term"] is None else names[one["term"]]
        first, last = one["layers"]
        parts.append(f"{name}[{first}:{last}]")
    return f"{recipe['method']}({', '.join(parts)})"


def _signed_sum(terms: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for term in terms:
        sign, weight = ("−", -term["weight"]) if _is_negative(term) else ("+", term["weight"])
        parts.append(f"{sign} {_amount(weight)}·{reference(term['input'])}")
    return " ".join(parts)


def _is_negative(term: Mapping[str, Any]) -> bool:
    return not isinstance(term["weight"], Mapping) and term["weight"] < 0


def _weighted(term: Mapping[str, Any]) -> str:
    weight = term["weight"]
    amount = _amount(weight).replace("-", "−")
    return f"{amount}·{reference(term['input'])}"


def _amount(weight: Scheduled) -> str:
    if isinstance(weight, Mapping):
        layers = weight["layers"]
        ends = (
            number(layers[0]) if len(layers) == 1 else f"{number(layers[0])}…{number(layers[-1])}"
        )
        return f"[{ends}]"
    return number(weight)

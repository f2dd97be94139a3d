"""An advice as a merge spec that validates, reasons as comments; facts from an analysis. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from math import sqrt
from typing import Any

import schemas
from registry.recommendation import Advice, Facts
from registry.spec import IngredientId
from schemas.expression import number

_WIDTH = 98
_NAME_LETTERS = 63


def facts_of(
    figures: Mapping[str, Any],
    operands: Sequence[IngredientId],
    ranks: Sequence[int | None],
    subtracted: int,
) -> Facts:
    """Return the facts of an analysis of these operands, those that are subtracted last."""
    total = figures["total"]
    terms = total["terms"]
    return Facts(
        kinds=tuple(kind for kind, _, _ in operands),
        norms=tuple(term["norm"] for term in terms),
        deviations=tuple(term["norm"] / sqrt(max(1, term["elements"])) for term in terms),
        ranks=tuple(ranks),
        cosines=tuple(total["cosines"][a][b] for a, b in combinations(range(len(terms)), 2)),
        sign_conflict=total["sign_conflict"],
        subtracted=subtracted,
    )


def spec(
    advice: Advice,
    facts: Facts,
    *,
    name: str,
    base: str,
    operands: Sequence[IngredientId],
    suites: Iterable[str],
) -> str:
    """Return the text of a merge spec with the reasons as comments."""
    return "\n".join(
        (
            "# yaml-language-server: $schema=../../schemas/merge.schema.json",
            *_comments(advice, facts, name, sorted(suites)),
            "kind: merge",
            f"name: {name}",
            f"base: {base}",
            "recipe:",
            f"  method: {advice.method}",
            *([f"  parameters: {{{_pairs(advice.parameters)}}}"] if advice.parameters else []),
            "  terms:",
            *_terms(advice, operands),
        )
    )


def _comments(advice: Advice, facts: Facts, name: str, suites: Sequence[str]) -> Iterator[str]:
    yield from _wrapped("A starting point, not a result: only measuring tells.")
    yield from _wrapped(f"Found: {facts_text(facts)}.")
    yield from _wrapped(f"Why {advice.method}: {advice.reason}.")
    yield from _wrapped(f"Rests on: {advice.source}.")
    yield from _wrapped(f"Then vary {advice.vary}.")
    yield from _wrapped(f"Save as catalog/merges/{name}.yaml and measure it:")
    if suites:
        others = f"   # or {', '.join(suites[1:])}" if suites[1:] else ""
        yield f"#   evaluation: {{suite: {suites[0]}}}{others}"
    yield f"#   registry sync {name} && registry show {name}"


def facts_text(facts: Facts) -> str:
    """Return what was measured on one line."""
    noun = "term" if facts.count == 1 else "terms"
    parts = [f"{facts.count} {noun}", f"norms {_span(facts.norms)}"]
    if facts.cosines:
        parts.append(f"cosines {_span(facts.cosines)}")
        parts.append(f"signs conflict at {100 * facts.sign_conflict:.3g} % of the elements")
    return ", ".join(parts)


def _span(values: Sequence[float]) -> str:
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if low == high else f"{low} to {high}"


def _wrapped(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH - 2, break_on_hyphens=False)]


def _pairs(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {number(value)}" for name, value in parameters.items())


def _terms(advice: Advice, operands: Sequence[IngredientId]) -> Iterator[str]:
    has_weights = schemas.methods()[advice.method]["x-weights"]
    for (kind, name, version), weight in zip(operands, advice.weights, strict=True):
        shown = f", weight: {number(weight)}" if has_weights else ""
        yield f"    - {{{kind}: {name}, version: {version}{shown}}}"


def free_name(operands: Sequence[IngredientId], subtracted: int, taken: Collection[str]) -> str:
    """Return a name for the merge that no merge has: `sql-json`, `sql-not-shout`, `sql-json-2`."""
    names = [name for _, name, _ in operands]
    parts = [
        name if names.count(name) == 1 else f"{name}-{version}" for _, name, version in operands
    ]
    added = len(parts) - subtracted
    whole = "-".join(parts[:added] + [f"not-{part}" for part in parts[added:]])
    candidates = (
        f"{whole[: _NAME_LETTERS - len(end)].rstrip('-')}{end}"
        for end in ("", *(f"-{count}" for count in range(2, len(taken) + 3)))
    )
    return next(name for name in candidates if name not in taken)


def as_data(
    advice: Advice, facts: Facts, *, base: str, labels: Sequence[str], text: str
) -> dict[str, Any]:
    """Return the advice as plain data, with the spec's text."""
    return {
        "base": base,
        "operands": list(labels),
        "facts": asdict(facts),
        "advice": {
            **asdict(advice),
            "parameters": dict(advice.parameters),
            "weights": list(advice.weights)
            if schemas.methods()[advice.method]["x-weights"]
            else None,
        },
        "spec": text,
    }

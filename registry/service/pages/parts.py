"""Ways from a model down to what is in it, as cells of tables; from plain data. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from registry import page, spec
from registry.graph_picture import signed
from registry.lineage_report import sign_word
from registry.report import factor_text
from registry.service.pages import frame, words


def label(one: Mapping[str, Any]) -> str:
    """Return how texts name a part: `adapter sql@1`."""
    return spec.label(one["kind"], one["name"], one.get("version"))


def unknown(lines: Iterable[str]) -> str:
    """Return what cannot be told of live models, a paragraph each."""
    return "".join(page.text(f"Not known: {words.sentence(line)}") for line in lines)


def revoked(one: Mapping[str, Any]) -> str:
    """Return whether a part was taken back, and why."""
    if reason := one.get("revoked"):
        return f"{frame.state('revoked')}: {frame.long(' '.join(reason.split()))}"
    return "no"


def cells(way: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return sign, weight and way; the weight of what is direct and plain is as it was written."""
    weights, factors = way["weights"], way["lambdas"]
    is_plain = len(weights) == 1 and factors[0] == 1
    weight = weights[0] if is_plain else way["weight"]
    steps = _steps(way) if len(weights) > 1 else "directly"
    return sign_word(way["sign"]), f"<span>{escape(signed(weight)) or '–'}</span>", steps


def _steps(way: Mapping[str, Any]) -> str:
    steps = []
    for name, weight, factor in zip(way["names"][1:], way["weights"], way["lambdas"], strict=True):
        numbers = [] if weight is None else [factor_text(factor), signed(weight)]
        told = " · ".join(one for one in numbers if one)
        steps.append(f"<span>{escape(f'{told} {name}'.strip())}</span>")
    return " &gt; ".join(steps)

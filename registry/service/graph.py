"""What a model is made of, and what is made of an ingredient, as plain data for HTTP. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from registry import lineage
from registry.service.view import Requests


def up(model: str, known: Requests) -> dict[str, Any]:
    """Return the ingredients of a model at any depth; KeyError for a model without a request."""
    return lineage.ingredients(model, known.requests, known.digests).as_data()


def down(kind: str, name: str, version: int | None, known: Requests) -> list[dict[str, Any]]:
    """Return every model that contains an ingredient, at any depth, by name.

    `weight` is that of the ingredient in the model itself, None where it is only inside another
    merge, which `through` names.
    """
    rows = {model: list(_uses(request)) for model, request in known.requests.items()}
    found: dict[str, dict[str, Any]] = {}
    waiting: list[tuple[str, str, int | None]] = [(kind, name, version)]
    while waiting:
        wanted = waiting.pop(0)
        is_first = wanted[:2] == (kind, name)
        for model, uses in rows.items():
            weight = _weight_of(uses, wanted)
            if weight is _ABSENT or model in found:
                continue
            through = None if is_first else wanted[1]
            own = weight if is_first else None
            found[model] = {"model": model, "weight": own, "through": through}
            waiting.append(("merge", model, None))
    return [found[model] for model in sorted(found)]


_ABSENT = object()
_Use = tuple[str, str, int | None, Any]


def _uses(request: Mapping[str, Any]) -> Iterator[_Use]:
    base = request["base"]
    yield base["kind"], base["name"], None, None
    for term in request["recipe"]["terms"]:
        source = term["input"]
        yield source["kind"], source["name"], source.get("version"), term["weight"]


def _weight_of(uses: list[_Use], wanted: tuple[str, str, int | None]) -> Any:
    kind, name, version = wanted
    for one_kind, one_name, one_version, weight in uses:
        if (one_kind, one_name) == (kind, name) and version in (None, one_version):
            return weight
    return _ABSENT

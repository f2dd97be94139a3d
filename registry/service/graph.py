"""Which models are made of an ingredient, as plain data for HTTP. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def down(
    kind: str, name: str, version: int | None, requests: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return every model that contains an ingredient, at any depth, by name.

    `requests` are build requests by model. `weight` is that of the ingredient in the model itself,
    None where it is only inside another merge, which `through` names.
    """
    users: dict[tuple[str, str], list[_Use]] = {}
    for model, request in requests.items():
        for source, weight in _inputs(request):
            one = (model, source.get("version"), weight)
            users.setdefault((source["kind"], source["name"]), []).append(one)
    found = {
        model: {"model": model, "weight": weight, "through": None}
        for model, its_version, weight in users.get((kind, name), ())
        if version in (None, its_version)
    }
    waiting = list(found)
    for merge in waiting:  # grows while it is walked
        for model, _, _ in users.get(("merge", merge), ()):
            if model not in found:
                found[model] = {"model": model, "weight": None, "through": merge}
                waiting.append(model)
    return [found[model] for model in sorted(found)]


_Use = tuple[str, int | None, Any]


def _inputs(request: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Any]]:
    yield request["base"], None
    for term in request["recipe"]["terms"]:
        yield term["input"], term.get("weight")

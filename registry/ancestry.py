"""What is known of models when their lineage is asked for: as declared, and as they were built.

Reads the store's index, and `recipe.json` of an earlier build where a live model still contains it;
draws no conclusion.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from registry import keys
from registry.lineage import Known, Node, Request
from registry.record import BuildRecord, UnreadableRecord
from registry.request import Declaration, key_of
from registry.spec import Catalog, IngredientId

_RECIPE = "recipe.json"


def declared(declarations: Iterable[Declaration], catalog: Catalog) -> Known:
    """Return what the merge specs say."""
    return Known({one.model: one.request for one in declarations}, revoked=_revoked(catalog))


def given(catalog: Catalog) -> list[Node]:
    """Return everything of a catalog that is no merge, used or not."""
    return [
        Node(one.kind, one.name, one.version, one.digest, revoked=one.revoked)
        for one in catalog.ingredients.values()
    ]


def live(
    recorded: Mapping[str, BuildRecord | UnreadableRecord],
    catalog: Catalog,
    cache: Path,
    models: Collection[str] | None = None,
) -> Known:
    """Return what the records say of what is built.

    Where one of `models` (all without) was built of a merge that has been built anew since, the
    earlier request is taken from the store in `cache`, if it is still there.
    """
    built = {
        name: one.built
        for name, one in recorded.items()
        if isinstance(one, BuildRecord) and one.built
    }
    requests = {name: one.request for name, one in built.items()}
    digests = {name: one.model_digest for name, one in built.items()}
    unread = tuple(name for name, one in recorded.items() if isinstance(one, UnreadableRecord))
    known = Known(requests, digests, {}, _revoked(catalog), unread)
    asked: set[str] = set()
    # An earlier build may have been made of earlier builds in turn.
    while missing := _missing(known, requests if models is None else models) - asked:
        known = replace(known, older={**known.older, **_stored(cache, missing)})
        asked |= missing
    return known


def _revoked(catalog: Catalog) -> dict[IngredientId, str]:
    return {name: one.revoked for name, one in catalog.ingredients.items() if one.revoked}


def _missing(known: Known, models: Iterable[str]) -> set[str]:
    """Return the digests of merges in live models of which the request is not known."""
    missing = set()
    seen: set[tuple[str, str]] = set()
    todo = [(model, known.digests[model]) for model in models if model in known.digests]
    while todo:
        merge = todo.pop()
        if merge in seen:
            continue
        seen.add(merge)
        request = known.request_of(*merge)
        if request is None:
            missing.add(merge[1])
        else:
            inputs = [term["input"] for term in request["recipe"]["terms"]]
            todo += [(one["name"], one["digest"]) for one in inputs if one["kind"] == "merge"]
    return missing


def _stored(cache: Path, digests: set[str]) -> dict[str, Request]:
    """Return the requests under which the store has models of these digests."""
    found: dict[str, Request] = {}
    for path in sorted((cache / "registry/keys").glob("*/*.json")):
        artifact = keys.read(cache, f"sha256:{path.stem}")
        if artifact and artifact.model_digest in digests and _RECIPE in artifact.files:
            request = _request(keys.object_path(cache, artifact.files[_RECIPE].md5))
            if request and key_of(request) == artifact.key:
                found[artifact.model_digest] = request
    return found


def _request(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None

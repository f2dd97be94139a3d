"""What is known of models when their lineage is asked for: as declared, and as they were built.

Reads the store's index, and `recipe.json` of an earlier build where a live model still contains it;
draws no conclusion.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from registry import keys
from registry.lineage import Known, Request
from registry.record import BuildRecord, UnreadableRecord
from registry.request import Declaration, key_of
from registry.spec import Catalog, IngredientId

_RECIPE = "recipe.json"


def declared(declarations: Iterable[Declaration], catalog: Catalog) -> Known:
    """Return what the merge specs say."""
    return Known({one.model: one.request for one in declarations}, revoked=_revoked(catalog))


def live(
    recorded: Mapping[str, BuildRecord | UnreadableRecord], catalog: Catalog, cache: Path
) -> Known:
    """Return what the records say of what is built.

    Where a model was built of a merge that has been built anew since, the earlier request is taken
    from the store in `cache`, if it is still there.
    """
    built = {
        name: one.built
        for name, one in recorded.items()
        if isinstance(one, BuildRecord) and one.built
    }
    requests = {name: one.request for name, one in built.items()}
    digests = {name: one.model_digest for name, one in built.items()}
    older: dict[str, Request] = {}
    wanted = set(_moved_on(requests.values(), digests, older))
    while wanted:
        found = _stored(cache, wanted)
        older |= found
        # An earlier build may have been made of earlier builds in turn.
        wanted = set(_moved_on(found.values(), digests, older))
    return Known(requests, digests, older, _revoked(catalog))


def _revoked(catalog: Catalog) -> dict[IngredientId, str]:
    return {name: one.revoked for name, one in catalog.ingredients.items() if one.revoked}


def _moved_on(
    requests: Iterable[Request], digests: Mapping[str, str], older: Mapping[str, Request]
) -> Iterator[str]:
    """Yield the digests of merges inside, of which the live build is another by now."""
    for request in requests:
        for term in request["recipe"]["terms"]:
            source = term["input"]
            digest = source.get("digest", "")
            is_merge = source["kind"] == "merge"
            if is_merge and digests.get(source["name"]) != digest and digest not in older:
                yield digest


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

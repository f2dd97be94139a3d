"""What MLflow should show of every model: made from records, journal, store and Git's history.

Asks MLflow nothing; compares nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

from registry import chain, git, keys, logbook
from registry.chain import Chain
from registry.keys import Artifact
from registry.projection import Expectations, Known
from registry.record import BuildRecord, Built
from registry.tracked import BuildLog, Operand
from registry.world import World


def collect(
    world: World, recorded: Mapping[str, BuildRecord], found: Chain, store: str
) -> Expectations:
    """Return what MLflow should show, by records, journal and store."""
    history: dict[str, list[str | None]] = {}
    commits: dict[str, dict[str, list[str]]] = {}
    for entry in found.entries:
        if entry.result == "repaired":  # of an ingredient, too
            continue
        told = history.setdefault(entry.model, [])
        if entry.result in {"live", "unpublished"}:
            told.append(entry.key if entry.result == "live" else None)
        if entry.result in {"live", "logged"}:
            commits.setdefault(entry.model, {}).setdefault(entry.key, []).append(entry.commit)
    models = {}
    operands: dict[Operand, None] = {}
    for name in sorted(recorded.keys() | history.keys()):
        one = recorded.get(name, BuildRecord(name))
        build = logbook.identity(world, one, recorded) if one.built else None
        if build:
            parts = (build.base, *build.operands)
            operands |= {part: None for part in parts if part.kind != "merge"}
        models[name] = Known(
            build=build,
            logged=one.mlflow if one.mlflow and one.mlflow.store == store else None,
            rejected=_rejected(one),
            history=tuple(history.get(name, ())),
            commits={key: tuple(at) for key, at in commits.get(name, {}).items()},
            is_declared=name in world.catalog.merges,
            is_whole=_is_whole(one, recorded),
        )
    bare = dict.fromkeys(replace(one, weight=None, schedule=None) for one in operands)
    entries = found.digests | _elsewhere(world)
    return Expectations(
        models=models,
        operands=tuple(bare),
        entries=entries,
        build_of=partial(_build_of, world),
        keys_of_git=cache(partial(_keys_of_git, world)),
    )


def _keys_of_git(world: World) -> frozenset[str]:
    """Return every build key that a record of any commit names."""
    files = git.versions(world.root, None, "catalog/builds")
    ids = {one for path, ids in files.items() if path.endswith(".json") for one in ids}
    blobs = git.read_blobs(world.root, sorted(ids))
    return frozenset(key for one in blobs.values() for key in keys.named_in(one))


def _elsewhere(world: World) -> set[str]:
    """Return the digests of entries that only other branches have: MLflow saw their syncs too."""
    here = set(chain.files(world.root))
    ids = set[str]()
    for path, versions in git.versions(world.root, None, chain.FOLDER).items():
        ids |= versions if path not in here else set()
    blobs = git.read_blobs(world.root, sorted(ids))
    return {digest for content in blobs.values() for digest in chain.digests_in(content)}


def _rejected(one: BuildRecord) -> str:
    verdicts = one.rejected.verdicts if one.rejected else ()
    return "; ".join(verdict["text"] for verdict in verdicts if not verdict["passed"])


def _is_whole(one: BuildRecord, recorded: Mapping[str, BuildRecord]) -> bool:
    """Return whether every merge inside is recorded as it was when this one was built."""
    terms = one.built.request["recipe"]["terms"] if one.built else ()
    for term in terms:
        source = term["input"]
        if source["kind"] == "merge":
            inner = recorded.get(source["name"])
            if inner is None or inner.built is None or inner.built.model_digest != source["digest"]:
                return False
            if not _is_whole(inner, recorded):
                return False
    return True


def _build_of(world: World, model: str, key: str) -> BuildLog | None:
    """Return what tags of an earlier build are made of, from its artifact in the store."""
    if not keys.is_key(key):  # a tag may hold anything
        return None
    artifact = keys.read(world.store.cache, key)
    request = _recipe(world, artifact) if artifact else None
    if artifact is None or request is None:
        return None
    digest = {"digest": artifact.artifact_digest, "files": {}}
    built = Built(key, request, artifact.model_digest, digest, {}, "", 0.0, 0)
    return logbook.identity(world, BuildRecord(model, built))


def _recipe(world: World, artifact: Artifact) -> dict[str, Any] | None:
    file = artifact.files["recipe.json"]
    try:
        content = keys.object_path(world.store.cache, file.md5).read_bytes()
    except OSError:
        return None
    if keys.bytes_digest(content) != artifact.key:
        return None
    data: dict[str, Any] = json.loads(content)
    return data

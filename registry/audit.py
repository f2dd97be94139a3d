"""The whole audit: what is expected of MLflow, store, records and journal, and their repair.

Composes `audit_files` and `projection`; repairs what can be repaired without losing anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from registry import audit_files, chain, git, keys, logbook, projection, record, verification
from registry.chain import Chain
from registry.differences import NOTHING, Cure, Difference
from registry.keys import Artifact
from registry.projection import Expectations, Known
from registry.record import BuildRecord, Built
from registry.tracked import BuildLog, Operand
from registry.tracking import Tracker
from registry.verification import Finding
from registry.world import World

_ROUNDS = 4
"""A repair may show what it hid: a version logged anew has aliases and descriptions."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one look found: the differences, the journal, and what MLflow should show."""

    differences: tuple[Difference, ...]
    journal: Chain
    wanted: Expectations | None


def verify(world: World, *, deep: bool) -> list[Finding]:
    """Return what the store has of every published model."""
    return [verification.check(world.store, one, deep=deep) for one in _published(world).values()]


def _published(world: World) -> dict[str, BuildRecord]:
    known = record.read_all(world.root)
    return {name: one for name, one in known.items() if isinstance(one, BuildRecord) and one.built}


def find(world: World, tracker: Tracker, stored: Sequence[Finding]) -> Found:
    """Return every difference, those of files first; `stored` is what `verify` found.

    Raises NotNow if MLflow cannot be asked.
    """
    auditor = tracker.auditor()
    recorded = record.read_all(world.root)
    journal = chain.read(world.root)
    differences = [
        *audit_files.compare_records(world.root, world.store, recorded),
        *audit_files.compare_store(recorded, stored),
        *audit_files.compare_journal(
            world.root, world.store, recorded, journal, list(world.declared)
        ),
    ]
    if auditor is None:
        differences += [_unlogged(one) for one in _published(world).values()]
        return Found(tuple(differences), journal, None)
    readable = {name: one for name, one in recorded.items() if isinstance(one, BuildRecord)}
    wanted = expectations(world, readable, journal, tracker.store_id())
    differences += projection.compare(auditor, wanted)
    return Found(tuple(differences), journal, wanted)


def _unlogged(one: BuildRecord) -> Difference:
    assert one.built is not None
    cure = Cure("log", one.model)
    return Difference(one.model, "MLflow", "version", f"one of {one.built.key}", NOTHING, cure)


def expectations(
    world: World, recorded: Mapping[str, BuildRecord], found: Chain, store: str
) -> Expectations:
    """Return what MLflow should show, by records, journal and store."""
    history: dict[str, list[str | None]] = {}
    commits: dict[str, dict[str, list[str]]] = {}
    for entry in found.entries:
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
    return Expectations(models, tuple(bare), entries, partial(_build_of, world))


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


def repair(
    world: World, tracker: Tracker, stored: Sequence[Finding]
) -> tuple[Found, list[Difference]]:
    """Set right what can be; return what is left, and what was repaired.

    The caller holds the lock. Every model that something was done to gets an entry in the journal.
    """
    world.journal.open()
    done: dict[tuple[str, str, str], Difference] = {}
    for _ in range(_ROUNDS):
        found = find(world, tracker, stored)
        todo = [one for one in found.differences if one.cure]
        logged = {one.model for one in todo if one.cure and one.cure.kind == "log"}
        for one in todo:
            assert one.cure is not None
            # Logging it anew may set the rest right, and changes what is right.
            if one.model in logged and one.cure.kind not in {"log", "adopt", "pointer"}:
                continue
            _cure(world, tracker, one.cure, found.wanted)
            done.setdefault((one.model, one.where, one.field), one)
        if not todo:
            break
    _enter(world, done.values())
    return find(world, tracker, stored), list(done.values())


def _cure(world: World, tracker: Tracker, cure: Cure, wanted: Expectations | None) -> None:
    if cure.kind == "log":
        _log(world, tracker, cure.name)
    elif cure.kind == "unpublish":
        tracker.unpublish(cure.name)
    elif cure.kind == "adopt":
        _adopt(world, cure.name)
    elif cure.kind == "pointer":
        _point(world, cure.name)
    else:
        auditor = tracker.auditor()
        assert auditor is not None, "it found the difference"
        if cure.kind == "ingredient":
            assert wanted is not None, "it named the ingredient"
            auditor.enter(wanted.operands[int(cure.target)])
        else:
            auditor.cure(cure)


def _log(world: World, tracker: Tracker, model: str) -> None:
    """Log a model again, and write into its record where."""
    one = _published(world)[model]
    ends = " ".join(world.journal.open())
    logged = tracker.log(replace(logbook.build_log(world, one), journal=ends))
    if logged != one.mlflow:
        assert one.built is not None
        _enter_state(world, model, "logged", one.built)
        record.write(world.root, replace(one, mlflow=logged))


def _adopt(world: World, model: str) -> None:
    """Enter what a record says and no sync has entered: Git may have changed it by itself."""
    one = _published(world).get(model)
    if one is None:
        _enter_state(world, model, "unpublished", None)
    else:
        _enter_state(world, model, "live", one.built)


def _enter_state(world: World, model: str, result: str, built: Built | None) -> None:
    world.journal.enter(
        {
            "action": "audit",
            "commit": world.commit,
            "model": model,
            "key": built.key if built else "",
            "model_digest": built.model_digest if built else "",
            "result": result,
            "reason": "as recorded; no sync had entered it" if result != "logged" else "not-logged",
        }
    )


def _enter(world: World, done: Iterable[Difference]) -> None:
    """Enter the repairs of each model that are not states entered already."""
    fields: dict[str, list[str]] = {}
    for one in done:
        if one.cure and one.cure.kind not in {"adopt", "log"}:
            fields.setdefault(one.model, []).append(f"{one.where}: {one.field}")
    for model, told in sorted(fields.items()):
        facts = {"action": "audit", "commit": world.commit, "model": model}
        world.journal.enter({**facts, "result": "repaired", "reason": "; ".join(told)})


def _point(world: World, model: str) -> None:
    built = _published(world)[model].built
    artifact = keys.read(world.store.cache, built.key) if built else None
    assert artifact is not None, "it named the oid"
    world.store.write_pointer(record.folder(world.root) / f"{model}.dvc", model, artifact)

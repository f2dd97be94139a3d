"""The whole audit: what is expected of MLflow, store, records and journal, and their repair.

Composes `audit_files` and `projection`; repairs what can be repaired without losing anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from registry import (
    audit_files,
    chain,
    expectation,
    keys,
    logbook,
    projection,
    record,
    verification,
)
from registry.chain import Chain
from registry.differences import NOTHING, Cure, Difference
from registry.projection import Expectations
from registry.record import BuildRecord, Built
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
    """Return the records of published models that can be believed."""
    recorded = record.read_all(world.root)
    bad = audit_files.unsound(recorded)
    return {
        name: one
        for name, one in recorded.items()
        if name not in bad and isinstance(one, BuildRecord) and one.built
    }


def find(world: World, tracker: Tracker, stored: Sequence[Finding]) -> Found:
    """Return every difference, those of files first; `stored` is what `verify` found.

    Raises NotNow if MLflow cannot be asked.
    """
    auditor = tracker.auditor()
    every = record.read_all(world.root)
    bad = audit_files.unsound(every)
    recorded = {
        name: one for name, one in every.items() if name not in bad and isinstance(one, BuildRecord)
    }
    journal = chain.read(world.root)
    root, store, declared = world.root, world.store, world.declared
    differences = [
        *(row for rows in bad.values() for row in rows),
        *audit_files.compare_pointers(root, store, recorded),
        *audit_files.compare_store(recorded, stored),
        *audit_files.compare_journal(root, store, recorded, journal, {*declared, *bad}),
    ]
    if auditor is None:
        differences += [_unlogged(one) for one in recorded.values() if one.built]
        return Found(tuple(differences), journal, None)
    wanted = expectation.collect(world, recorded, journal, tracker.store_id())
    differences += projection.compare(auditor, replace(wanted, unsure=frozenset(bad)))
    return Found(tuple(differences), journal, wanted)


def _unlogged(one: BuildRecord) -> Difference:
    assert one.built is not None
    cure = Cure("log", one.model)
    return Difference(one.model, "MLflow", "version", f"one of {one.built.key}", NOTHING, cure)


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
    logged = tracker.log(logbook.build_log(world, one, world.journal.open()))
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

"""Make a declared artifact and put it into the store: from the remote, or by a worker.

Nothing here is published: that is `publish`'s business, once the bytes are safe.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from registry import evaluation, form, git, journal, keys, objects, provenance, publish, shards
from registry.errors import NotNow, VerificationFailed
from registry.keys import Artifact, StoredFile
from registry.plan import Action, Change
from registry.publish import Outcome
from registry.record import BuildRecord
from registry.request import Declaration, key_of
from registry.world import World
from schemas.digest import FileHash, model_digest, tree_digest

_REPORT_BYTES = 1 << 20  # of a large model, for the message of a full disk


def build(world: World, change: Change) -> Outcome:
    """Build a model, or fetch it from the remote, and publish it."""
    one = world.declared[change.model]
    request = _pinned(world, one)
    assert key_of(request) == change.key, "the plan was made from the same digests"
    if artifact := _from_remote(world, change):
        restored = replace(change, action=Action.RESTORE)
        return publish.publish(world, one, request, artifact, restored, "from the remote")
    assert change.key is not None
    # Before the build, which must not link what is altered.
    _drop_altered(world, change.key)
    scratch = world.store.staging()
    started = journal.now()
    try:
        anew = _is_asked_for(change)
        report = evaluation.build_folder(world, one.model, request, scratch, anew=anew)
        world.observer.stage(one.model, "check")
        files = _checked(world, request, report, scratch / "model")
        _compare_with_record(publish.recorded(world, one.model), change, report)
        facts = {name: report[name] for name in ("versions", "device_class", "seconds")}
        facts["peak_bytes"] = report["peak_bytes"]
        world.observer.stage(one.model, "store")
        with objects.writing(_REPORT_BYTES, world.store.cache):
            keys.write_report(world.store.cache, change.key, report)
            statement = provenance.statement(
                request,
                report,
                report_digest=keys.report_digest(world.store.cache, change.key),
                commit=world.commit,
                source=git.address(world.root),
                times=(started, journal.now()),
            )
            keys.write_provenance(world.store.cache, change.key, statement)
        artifact = world.store.publish(
            scratch / "model",
            key=change.key,
            model_digest=report["model_digest"],
            artifact_digest=report["artifact_digest"],
            files=files,
            facts=facts,
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    cache, base, untouched = world.store.cache, request["base"]["digest"], report["shards"]
    shards.remember(cache, base, untouched, artifact.files)
    outcome = publish.publish(world, one, request, artifact, change)
    shards.settle(cache, base, untouched.values())
    return outcome


def restore(world: World, change: Change) -> Outcome:
    """Publish what the store has under the declared key; build it if its bytes are altered."""
    assert change.key is not None
    artifact = keys.read(world.store.cache, change.key)
    assert artifact is not None, "the plan saw it"
    if bad := world.store.verify(artifact, deep=True):
        world.observer.warn(f"{change.model}: {bad[0]} is altered in the store; building again")
        world.store.drop_altered(artifact)
        return build(world, replace(change, action=Action.BUILD))
    one = world.declared[change.model]
    return publish.publish(world, one, _pinned(world, one), artifact, change)


def _pinned(world: World, one: Declaration) -> dict[str, Any]:
    """Return the request with the digests of what is published under the upstream names."""
    digests = {}
    for name in one.upstream:
        built = publish.recorded(world, name).built
        assert built is not None, "the plan orders a model after what it is made of"
        digests[name] = built.model_digest
    return one.pin(digests)


def _is_asked_for(change: Change) -> bool:
    """Return whether a model is to be built again although it is there."""
    return any(reason.kind == "rebuild-requested" for reason in change.reasons)


def _from_remote(world: World, change: Change) -> Artifact | None:
    """Return what the remote has under this key, fetched; None if it has nothing or is away."""
    if _is_asked_for(change):
        return None
    assert change.key is not None
    try:
        found = world.store.find_remote_key(change.key)
        if found is not None and _is_of(found.files, change.key) and world.store.fetch(found):
            world.store.fetch_provenance(found)
            return found
    except NotNow as error:
        world.observer.warn(f"remote: {error.message}; building instead")
    return None


def _checked(
    world: World, request: Mapping[str, Any], report: Mapping[str, Any], folder: Path
) -> dict[str, StoredFile]:
    """Return the artifact's files after comparing names, shapes and digests with what was asked."""
    files = {path: StoredFile(**hashes) for path, hashes in report["files"].items()}
    hashes = {path: FileHash(file.sha256, file.size) for path, file in files.items()}
    if (model_digest(hashes), tree_digest(hashes)) != (
        report["model_digest"],
        report["artifact_digest"],
    ):
        msg = "the worker's digests are not those of the files it reports"
        raise VerificationFailed(msg)
    if not _is_of(files, key_of(request)):
        msg = "the recipe.json that the worker wrote is not the request"
        raise VerificationFailed(msg)
    base = world.catalog.base(request["base"]["name"])
    form.check(request, folder, world.root / base.folder)
    return files


def _is_of(files: Mapping[str, StoredFile], key: str) -> bool:
    """Return whether an artifact carries the recipe whose digest is this build key."""
    recipe = files.get("recipe.json")
    return recipe is not None and f"sha256:{recipe.sha256}" == key


def _compare_with_record(known: BuildRecord, change: Change, report: Mapping[str, Any]) -> None:
    """Raise VerificationFailed if the same request gave other bytes on the same device class."""
    built = known.built
    if built is None or built.key != change.key or built.device_class != report["device_class"]:
        return
    if built.model_digest != report["model_digest"]:
        msg = f"not reproduced: expected {built.model_digest}, built {report['model_digest']}"
        hint = "the recorded model stays; compare versions in the record, or remove the record"
        raise VerificationFailed(msg, hint)


def _drop_altered(world: World, key: str) -> None:
    if known := keys.read(world.store.cache, key):
        world.store.drop_altered(known)

"""Compare what is stored with what is recorded: sizes, every byte, or a build from scratch."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry import evaluation, keys, observation, provenance, shards
from registry.errors import RegistryError
from registry.keys import Artifact
from registry.record import BuildRecord
from registry.store import Store
from registry.world import World


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one model; `altered` is the artifact digest that no longer holds."""

    model: str
    text: str
    is_intact: bool
    altered: str = ""
    files: tuple[str, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """Return the plain data of `verify --format json`."""
        files = list(self.files)
        return {"model": self.model, "ok": self.is_intact, "found": self.text, "files": files}


def check(store: Store, one: BuildRecord, *, deep: bool) -> Finding:
    """Return whether the stored bytes of a published model are those recorded."""
    assert one.built is not None
    digest = str(one.built.artifact["digest"])
    artifact = keys.read(store.cache, one.built.key)
    if artifact is None:
        return Finding(one.model, "its bytes are not in the store", is_intact=False)
    if artifact.artifact_digest != digest:
        text = f"expected {digest}, found {artifact.artifact_digest} under its build key"
        return Finding(one.model, text, is_intact=False, altered=digest)
    bad = store.verify(artifact, deep=deep)
    if bad:
        shards.forget(
            store.cache, {artifact.files[path].md5 for path in bad if path in artifact.files}
        )
        text = f"missing or altered: {', '.join(bad)}"
        return Finding(one.model, text, is_intact=False, altered=digest, files=tuple(bad))
    if told := _provenance_problem(store, one.built.key, artifact):
        return Finding(one.model, told, is_intact=False, files=("provenance.json",))
    looked = "every byte" if deep else "names and sizes (--deep reads every byte)"
    return Finding(one.model, f"intact, {looked}", is_intact=True)


def _provenance_problem(store: Store, key: str, artifact: Artifact) -> str | None:
    """Return what is wrong with an artifact's provenance; None if it fits, or none is kept."""
    content = keys.provenance_bytes(store.cache, key)
    if content is None:
        return None  # built before there was any, or fetched from a remote that has none
    files = {path: file.sha256 for path, file in artifact.files.items()}
    wrong = provenance.misfit(content, files, key)
    return wrong and f"its provenance does not fit: {wrong}"


def remember(root: Path, found: Iterable[Finding]) -> None:
    """Keep what is altered, so that the next plan builds it again; forget what is intact."""
    altered = observation.read_altered(root)
    for one in found:
        if one.altered:
            altered[one.model] = one.altered
        elif one.is_intact:
            altered.pop(one.model, None)
    observation.write_altered(root, altered)


def rebuild(world: World, one: BuildRecord) -> Finding:
    """Build a model again from its recorded request and compare; nothing is published."""
    assert one.built is not None
    scratch = world.store.staging()
    try:
        with world.turn:
            request = one.built.request
            report = evaluation.build_folder(world, one.model, request, scratch, anew=True)
    except RegistryError as error:
        return Finding(one.model, f"not rebuilt: {error.message}", is_intact=False)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    here, there = report["device_class"], one.built.device_class
    is_equal = report["model_digest"] == one.built.model_digest
    if is_equal:
        return Finding(one.model, f"rebuilt bit for bit on {here}", is_intact=True)
    if here != there:
        text = f"rebuilt on {here}, recorded on {there}: other bits, which is allowed there"
        return Finding(one.model, text, is_intact=True)
    text = f"rebuilt as {report['model_digest']}, recorded {one.built.model_digest}"
    return Finding(one.model, text, is_intact=False)

"""What of records, pointers, store and journal does not agree: everything that is files.

Reads only. Knows no MLflow; that what is declared differs from what is built is the plan's matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from registry import chain, git, keys, record
from registry.chain import Chain, Entry
from registry.differences import NOTHING, Cure, Difference
from registry.record import BuildRecord, UnreadableRecord
from registry.request import key_of
from registry.store import Store
from registry.verification import Finding
from schemas.digest import FileHash, model_digest, tree_digest

Records = Mapping[str, BuildRecord | UnreadableRecord]


def compare_records(root: Path, store: Store, recorded: Records) -> Iterator[Difference]:
    """Yield records that contradict themselves, and pointers that do not fit their record."""
    for model, one in recorded.items():
        if isinstance(one, UnreadableRecord):
            advice = "git checkout brings it back; registry sync writes it anew"
            found = "something else"
            yield Difference(model, "record", "file", "a build record", found, advice=advice)
        elif one.built is not None:
            yield from _record(model, one)
            yield from _pointer(root, store, model, one)
    folder = record.folder(root)
    for path in sorted(folder.glob("*.dvc")):
        model = path.name.removesuffix(".dvc")
        if _is_empty(recorded.get(model)):
            advice = "registry sync writes the record again; remove the pointer if it is not wanted"
            yield Difference(
                model, "record", "file", "one beside the pointer", NOTHING, advice=advice
            )


def _record(model: str, one: BuildRecord) -> Iterator[Difference]:
    built = one.built
    assert built is not None
    files = {
        path: FileHash(file["sha256"], file["size"])
        for path, file in built.artifact["files"].items()
    }
    rows = (
        ("model", model, one.model),
        ("key", key_of(built.request), built.key),
        ("artifact.digest", tree_digest(files), str(built.artifact["digest"])),
        ("model_digest", model_digest(files), built.model_digest),
    )
    for field, expected, found in rows:
        if expected != found:
            advice = "the record was edited: git checkout brings it back"
            yield Difference(model, "record", field, expected, found, advice=advice)


def _pointer(root: Path, store: Store, model: str, one: BuildRecord) -> Iterator[Difference]:
    assert one.built is not None
    artifact = keys.read(store.cache, one.built.key)
    if artifact is None:
        return  # what is not in the store is told of the store
    path = record.folder(root) / f"{model}.dvc"
    try:
        text = path.read_text("utf-8", "replace")
    except FileNotFoundError:
        text = ""
    if f"md5: {artifact.oid}\n" not in text:
        found = "another oid" if text else NOTHING
        yield Difference(model, "pointer", "md5", artifact.oid, found, Cure("pointer", model))


def compare_store(recorded: Records, findings: Iterable[Finding]) -> Iterator[Difference]:
    """Yield what `verification` found, a line for each file."""
    for found in findings:
        one = recorded.get(found.model)
        if found.is_intact or not isinstance(one, BuildRecord) or one.built is None:
            continue
        advice = "registry sync builds it again" if found.altered else "registry sync restores it"
        if found.files == ("provenance.json",):
            advice = f"registry sync --rebuild {found.model} writes a new one"
        for path in found.files or ("artifact",):
            told = "missing or altered" if found.altered and found.files else found.text
            digest = one.built.artifact["files"].get(path, {}).get("sha256")
            expected = f"sha256:{digest}" if digest else str(one.built.artifact["digest"])
            yield Difference(found.model, "store", path, expected, told, advice=advice)


def compare_journal(
    root: Path, store: Store, recorded: Records, found: Chain, declared: Sequence[str]
) -> Iterator[Difference]:
    """Yield where the journal does not hold, and where it and the records disagree."""
    for flaw in found.flaws:
        yield Difference("-", flaw.place, flaw.field, flaw.expected, flaw.found, advice=_EDITED)
    yield from _committed(root)
    yield from _live(recorded, found, declared)
    yield from _provenance(store, recorded, found.entries)


_EDITED = "nobody can mend it: git log -- journal tells when it changed"


def _committed(root: Path) -> Iterator[Difference]:
    """Yield the files of the journal that a commit has, and that are gone or other ones now."""
    head = git.head(root)
    if head is None:
        return
    for path, ids in sorted(
        git.versions(root, git.with_upstream(root, head), chain.FOLDER).items()
    ):
        file = root / path
        is_file = file.is_file() and not file.is_symlink()
        content = file.read_bytes() if is_file else None
        others = ids - {_blob_id(content, len(head))} if content is not None else ids
        # A file committed while its sync ran has grown since.
        blobs = git.read_blobs(root, others)
        if content is None or not all(content.startswith(blob) for blob in blobs.values()):
            found = "other lines" if content is not None else NOTHING
            yield Difference("-", path, "file", "what was committed", found, advice=_EDITED)


def _blob_id(content: bytes, digits: int) -> str:
    data = b"blob %d\0" % len(content) + content
    hashed = hashlib.sha256(data) if digits == 64 else hashlib.sha1(data, usedforsecurity=False)
    return hashed.hexdigest()


def _live(recorded: Records, found: Chain, declared: Sequence[str]) -> Iterator[Difference]:
    """Yield models that are live by their record and not by the journal, or the other way."""
    live = chain.live(found.entries)
    for model, one in recorded.items():
        if not isinstance(one, BuildRecord) or one.built is None:
            continue
        entry = live.get(model)
        if entry is None or (entry.key, entry.model_digest) != (
            one.built.key,
            one.built.model_digest,
        ):
            told = entry.key if entry else NOTHING
            cure = Cure("adopt", model)
            yield Difference(model, "journal", "live", one.built.key, told, cure)
    for model, entry in live.items():
        if _is_empty(recorded.get(model)):
            is_wanted = model in declared
            adopt = None if is_wanted else Cure("adopt", model)
            advice = "registry sync restores it" if is_wanted else ""
            yield Difference(model, "record", "live", entry.key, NOTHING, adopt, advice)


def _is_empty(one: BuildRecord | UnreadableRecord | None) -> bool:
    """Return whether nothing is published by a record, or there is none."""
    return one is None or (isinstance(one, BuildRecord) and one.built is None)


def _provenance(store: Store, recorded: Records, entries: Sequence[Entry]) -> Iterator[Difference]:
    """Yield statements of provenance that are not those that their build wrote."""
    written = {one.key: one.provenance for one in entries if one.provenance}
    for model, one in recorded.items():
        if not isinstance(one, BuildRecord) or one.built is None:
            continue
        expected = written.get(one.built.key)
        found = keys.provenance_digest(store.cache, one.built.key)
        if expected is not None and found != expected:
            advice = f"registry sync --rebuild {model} writes a new one"
            told = found or NOTHING
            yield Difference(model, "store", "provenance.json", expected, told, advice=advice)

"""What of records, pointers, store and journal does not agree: everything that is files.

Reads only. Knows no MLflow; that what is declared differs from what is built is the plan's matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from registry import chain, git, keys, record
from registry.chain import Chain, Entry
from registry.differences import NOTHING, Cure, Difference
from registry.record import BuildRecord, UnreadableRecord
from registry.store import Store
from registry.verification import Finding
from schemas.digest import FileHash, model_digest, tree_digest

Records = Mapping[str, BuildRecord | UnreadableRecord]


def unsound(recorded: Records) -> dict[str, list[Difference]]:
    """Return the records that are none or contradict themselves, with what is wrong with them.

    Nothing else is compared with what these say.
    """
    found = {}
    for model, one in recorded.items():
        try:
            wrong = list(_record(model, one))
        except (KeyError, TypeError, ValueError, AttributeError):
            wrong = [Difference(model, "record", "file", "a build record", "other data")]
        if wrong:
            found[model] = [replace(row, advice=_RESTORE) for row in wrong]
    return found


_RESTORE = "git checkout brings it back; without it registry sync writes it anew"


def compare_pointers(root: Path, store: Store, recorded: Records) -> Iterator[Difference]:
    """Yield pointers that do not fit their record, or have none."""
    for model, one in recorded.items():
        if isinstance(one, BuildRecord) and one.built is not None:
            yield from _pointer(root, store, model, one.built.key)
    folder = record.folder(root)
    for path in sorted(folder.glob("*.dvc")):
        model = path.name.removesuffix(".dvc")
        is_there = (folder / f"{model}.json").exists()
        if not is_there or (model in recorded and _is_empty(recorded[model])):
            advice = "registry sync writes the record again; remove the pointer if it is not wanted"
            yield Difference(
                model, "record", "file", "one beside the pointer", NOTHING, advice=advice
            )


def _record(model: str, one: BuildRecord | UnreadableRecord) -> Iterator[Difference]:
    if isinstance(one, UnreadableRecord):
        yield Difference(model, "record", one.field, one.expected, one.found)
        return
    if (built := one.built) is None:
        return
    files = {
        path: FileHash(file["sha256"], file["size"])
        for path, file in built.artifact["files"].items()
    }
    for field, expected, found in (
        ("artifact.digest", tree_digest(files), built.artifact["digest"]),
        ("model_digest", model_digest(files), built.model_digest),
    ):
        if expected != found:
            yield Difference(model, "record", field, expected, str(found))


def _pointer(root: Path, store: Store, model: str, key: str) -> Iterator[Difference]:
    artifact = keys.read(store.cache, key)
    if artifact is None:
        return  # what is not in the store is told of the store
    try:
        text = (record.folder(root) / f"{model}.dvc").read_text("utf-8", "replace")
    except OSError:
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
    root: Path, store: Store, recorded: Records, found: Chain, wanted: Collection[str]
) -> Iterator[Difference]:
    """Yield where the journal does not hold, and where it and the records disagree.

    `wanted` are the models whose record a sync would write again if it is gone.
    """
    for flaw in found.flaws:
        yield Difference("-", flaw.place, flaw.field, flaw.expected, flaw.found, advice=_EDITED)
    yield from _committed(root)
    yield from _live(recorded, found, wanted)
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
        content = _content(file)
        others = ids - {_blob_id(content, len(head))} if content is not None else ids
        # A file committed while its sync ran has grown since.
        blobs = git.read_blobs(root, others)
        if content is None or not all(content.startswith(blob) for blob in blobs.values()):
            found = "other lines" if content is not None else NOTHING
            place = chain.plain(path)
            yield Difference("-", place, "file", "what was committed", found, advice=_EDITED)


def _content(file: Path) -> bytes | None:
    try:
        return None if file.is_symlink() else file.read_bytes()
    except OSError:
        return None


def _blob_id(content: bytes, digits: int) -> str:
    data = b"blob %d\0" % len(content) + content
    hashed = hashlib.sha256(data) if digits == 64 else hashlib.sha1(data, usedforsecurity=False)
    return hashed.hexdigest()


def _live(recorded: Records, found: Chain, wanted: Collection[str]) -> Iterator[Difference]:
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
            is_wanted = model in wanted
            adopt = None if is_wanted else Cure("adopt", model)
            advice = "registry sync restores it" if is_wanted else ""
            yield Difference(model, "record", "live", entry.key, NOTHING, adopt, advice)


def _is_empty(one: BuildRecord | UnreadableRecord | None) -> bool:
    """Return whether nothing is published by a record, or there is none."""
    return one is None or (isinstance(one, BuildRecord) and one.built is None)


def _provenance(store: Store, recorded: Records, entries: Sequence[Entry]) -> Iterator[Difference]:
    """Yield statements of provenance that no build of that key wrote."""
    written: dict[str, list[str]] = {}
    for entry in entries:
        if entry.provenance:
            written.setdefault(entry.key, []).append(entry.provenance)
    for model, one in recorded.items():
        if not isinstance(one, BuildRecord) or one.built is None:
            continue
        # After a rebuild the remote may still have that of the build before: of the same bytes.
        expected = written.get(one.built.key)
        found = keys.provenance_digest(store.cache, one.built.key)
        if expected and found not in expected:
            advice = f"registry sync --rebuild {model} writes a new one"
            told = found or NOTHING
            yield Difference(model, "store", "provenance.json", expected[-1], told, advice=advice)

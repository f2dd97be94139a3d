"""Artifact bytes in DVC's cache on this machine: published, verified, brought out.

A directory in DVC's cache is plain files under known names, so nothing here imports DVC. DVC takes
every read-only object for verified, and names objects by md5: what counts is the sha256 of each
file. Knows no remote, no spec and no plan.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from registry import keys, objects
from registry.errors import VerificationFailed
from registry.keys import Artifact, StoredFile

_PLAIN = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})


class LocalStore:
    """The content store of one repository as far as this machine goes."""

    def __init__(self, root: Path, remote: str | None = None) -> None:
        """Take the repository's root, and the name of the remote that pointers shall carry."""
        self.root = root
        self.cache = keys.cache_folder(root)
        self._named = remote
        self._scratch = objects.Scratch(self.cache / "registry" / "tmp")

    def staging(self) -> Path:
        """Return a new temporary folder on the file system of the cache."""
        with objects.writing(0, self.cache):
            return self._scratch.new()

    def sweep(self) -> None:
        """Remove temporary folders of dead runs."""
        self._scratch.sweep()

    def publish(
        self,
        folder: Path,
        *,
        key: str,
        model_digest: str,
        artifact_digest: str,
        files: Mapping[str, StoredFile],
        facts: Mapping[str, Any],
    ) -> Artifact:
        """Put a finished folder into the cache, its index entry last.

        The hashes in `files` are trusted: they were computed while writing. The files of `folder`
        become read-only and share their inodes with the cache; the caller removes the folder.
        """
        artifact = Artifact(
            key=key,
            model_digest=model_digest,
            artifact_digest=artifact_digest,
            oid=keys.listing_oid(files),
            files=dict(files),
            facts=dict(facts),
        )
        if keys.parse(keys.as_data(artifact), key) is None:
            msg = f"{key}: the digests are not those of the files"
            raise VerificationFailed(msg)
        objects.require_exactly(folder, files)
        with objects.writing(artifact.size, self.cache):
            self._enter(artifact, folder, set(files))
        return artifact

    def _enter(self, artifact: Artifact, folder: Path, paths: set[str]) -> None:
        scratch = self.staging()
        try:
            for path in sorted(paths):
                file = artifact.files[path]
                objects.place(folder / path, self._object(file), file, scratch)
            self._place_listing(artifact)
            keys.write(self.cache, artifact)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _object(self, file: StoredFile) -> Path:
        return keys.object_path(self.cache, file.md5)

    def _listing(self, artifact: Artifact) -> Path:
        return keys.object_path(self.cache, artifact.oid)

    def _place_listing(self, artifact: Artifact) -> None:
        objects.place_bytes(keys.listing(artifact.files), self._listing(artifact))

    def write_pointer(self, path: Path, out_name: str, artifact: Artifact) -> None:
        """Write the DVC pointer to an artifact, atomically; equal artifacts give equal bytes."""
        with objects.writing(1, path.parent):
            keys.replace_file(path, pointer(out_name, artifact, self._named))

    def verify(self, artifact: Artifact, *, deep: bool) -> list[str]:
        """Return what is missing or altered; without `deep` only sizes are looked at.

        Files are told by their path, DVC's directory object by its oid.
        """
        is_good = objects.is_intact if deep else _has_recorded_size
        bad = [
            path
            for path, file in sorted(artifact.files.items())
            if not is_good(self._object(file), file)
        ]
        if not objects.holds(self._listing(artifact), keys.listing(artifact.files)):
            bad.append(artifact.oid)
        return bad

    def materialize(self, artifact: Artifact, folder: Path, *, link: bool) -> None:
        """Bring an artifact out into an absent or empty folder, every byte verified.

        With `link` the files may be the cache's own, to be read only; otherwise they are copies.
        Raises VerificationFailed naming the file, and then leaves no folder.
        """
        with objects.writing(artifact.size, folder), objects.appearing(folder) as beside:
            for path, file in sorted(artifact.files.items()):
                self._bring_out(path, file, beside / path, link=link)

    def _bring_out(self, path: str, file: StoredFile, target: Path, *, link: bool) -> None:
        try:
            sha256 = objects.copy_out(self._object(file), target, share=link)
        except FileNotFoundError:
            msg = f"{path}: missing from the store"
            raise VerificationFailed(msg, "run registry sync to restore it") from None
        if sha256 != file.sha256:
            msg = f"{path}: expected sha256 {file.sha256}, found {sha256}"
            raise VerificationFailed(msg, "run registry verify, then registry sync to restore it")

    def drop_altered(self, artifact: Artifact) -> None:
        """Remove the artifact's altered objects, so that they can be restored; never a good one."""
        for path in self.verify(artifact, deep=True):
            file = artifact.files.get(path)
            target = self._object(file) if file else self._listing(artifact)
            target.unlink(missing_ok=True)


def pointer(out_name: str, artifact: Artifact, remote: str | None = None) -> bytes:
    """Return the bytes of the DVC pointer to an artifact."""
    lines = [
        "outs:",
        f"- md5: {artifact.oid}",
        f"  size: {artifact.size}",
        f"  nfiles: {len(artifact.files)}",
        "  hash: md5",
        f"  path: {_scalar(out_name)}",
    ]
    if remote:
        lines.append(f"  remote: {_scalar(remote)}")
    return "".join(f"{line}\n" for line in lines).encode()


def _has_recorded_size(path: Path, file: StoredFile) -> bool:
    return keys.has_size(path, file.size)


def _scalar(text: str) -> str:
    # Quoted where YAML would read a number, a date or a truth value.
    return (
        text
        if _PLAIN.fullmatch(text) and text not in _WORDS
        else f"'{text.replace(chr(39), chr(39) * 2)}'"
    )

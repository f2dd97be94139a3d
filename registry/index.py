"""What was read last time, so that a command reads only what changed since. Knows no meaning.

A sealed file of JSON in `.registry/` for each kind of results, read at the first question about
it. Each may be deleted at any time: an unreadable one counts as empty, one written by other schemas
or another version of our readers too.

An entry is trusted while size, modification time, change time and inode of its files are what they
were, and never if a file had changed within 2 s before it was looked at: a second change in the
same tick of the file system's clock would not show.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

from registry import sealed
from schemas.digest import FileHash, hash_file, list_files, tree_digest

FILE = "index"
SETTLING_NS = 2 * 10**9
# Objects of Git never change, so nothing else would ever remove their entries.
MOST_ENTRIES = 20_000

Signature = list[Any]
"""Plain data that changes whenever what was computed from might have."""


Identity = os.stat_result | tuple[int, int, int, int] | str
"""What tells a file's content apart: its stat, its (size, mtime_ns, ctime_ns, inode), or the id of
an object of Git."""


def signature(identity: Identity) -> Signature | None:
    """Return an identity as plain data, None if the file changed too recently to rely on it."""
    if isinstance(identity, str):
        return [identity]
    if isinstance(identity, os.stat_result):
        stat = identity
        identity = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    if time.time_ns() - max(identity[1], identity[2]) < SETTLING_NS:
        return None
    return list(identity)


class Index:
    """Remembered results by kind and key; `save` writes them if there are new ones."""

    def __init__(self, root: Path) -> None:
        """Take the index of the repository at `root`."""
        self._root = root
        self._tables: dict[str, dict[str, list[Any]]] = {}
        self._used: set[tuple[str, str]] = set()
        self._changed: set[str] = set()

    @cached_property
    def _version(self) -> str:
        return _version()

    def _table(self, kind: str) -> dict[str, list[Any]]:
        if kind not in self._tables:
            content = sealed.read(self._root, f"{FILE}-{kind}", self._version)
            self._tables[kind] = {} if content is None else json.loads(content)
        return self._tables[kind]

    def get_document(self, file: str, identity: Identity) -> Any | None:
        """Return the data of a document that had no problems, None if it must be read again."""
        return self._get(*_document_key(file, identity), signature(identity))

    def put_document(self, file: str, identity: Identity, data: Any) -> None:
        """Remember the data of a document without problems.

        `identity` was taken before the file was read.
        """
        self._put(*_document_key(file, identity), signature(identity), data)

    def cached(
        self, kind: str, key: str, facts: Signature | None, compute: Callable[[], Any]
    ) -> Any:
        """Return what `compute` returned for the same facts before, or now.

        Results are plain data. None is not remembered, and nothing is if `facts` is None.
        """
        known = self._get(kind, key, facts)
        if known is not None:
            return known
        value = compute()
        self._put(kind, key, facts, value)
        return value

    def folder_signature(self, folder: Path) -> Signature | None:
        """Return the facts about all files of a folder, None if one changed too recently.

        Raises TreeError for what has no digest: a symlink, a Git LFS pointer, a device.
        """
        facts = blake2b(digest_size=16)
        for path in list_files(folder):
            one = signature((folder / path).lstat())
            if one is None:
                return None
            facts.update(f"{path}\0{one}\0".encode("utf-8", "surrogateescape"))
        return [facts.hexdigest()]

    def folder_digest(self, folder: Path) -> str:
        """Return the tree digest of a folder; only files that changed are read again.

        Raises TreeError for what has no digest: a symlink, a Git LFS pointer, a device.
        """
        key = self._relative(folder)
        facts = self.folder_signature(folder)
        known = self._get("folder", key, facts)
        if known is not None:
            return str(known)
        digest = tree_digest({path: self._hash(folder / path) for path in list_files(folder)})
        self._put("folder", key, facts, digest)
        return digest

    def _hash(self, path: Path) -> FileHash:
        key = self._relative(path)
        facts = signature(path.lstat())
        known = self._get("file", key, facts)
        if known is not None:
            return FileHash(known[0], known[1])
        found = hash_file(path)
        self._put("file", key, facts, [found.sha256, found.size])
        return found

    def _relative(self, path: Path) -> str:
        return os.path.relpath(path, self._root)

    def _get(self, kind: str, key: str, facts: Signature | None) -> Any | None:
        entry = self._table(kind).get(key)
        if entry is None or facts is None or entry[0] != facts:
            return None
        self._used.add((kind, key))
        return entry[1]

    def _put(self, kind: str, key: str, facts: Signature | None, value: Any) -> None:
        if facts is None or value is None:
            return
        entry = [facts, value]
        if self._table(kind).get(key) == entry:
            return
        self._table(kind)[key] = entry
        self._used.add((kind, key))
        self._changed.add(kind)

    def save(self) -> None:
        """Write the index if anything is new; that it cannot be written is no error."""
        for kind in sorted(self._changed):
            try:
                table = json.dumps(self._kept(kind, self._tables[kind]), separators=(",", ":"))
                sealed.write(self._root, f"{FILE}-{kind}", self._version, table.encode())
            except (OSError, ValueError):  # read-only, full, or data that JSON does not have
                continue
            self._changed.discard(kind)

    def _kept(self, kind: str, table: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        is_of_paths = kind in ("spec", "document", "file", "folder")
        root = str(self._root)
        kept = {
            key: entry
            for key, entry in table.items()
            if (kind, key) in self._used or not is_of_paths or os.path.lexists(f"{root}/{key}")
        }
        return kept if is_of_paths else dict(list(kept.items())[-MOST_ENTRIES:])


def _document_key(file: str, identity: Identity) -> tuple[str, str]:
    # One path has many objects in the history and one file in the working tree.
    if isinstance(identity, str):
        return "blob", f"{identity}:{file}"
    # Specs are many, and most commands need only some other documents.
    return "spec" if file.startswith("catalog/merges/") else "document", file


def _version() -> str:
    """Return what tells apart the readers that made an index."""
    return sealed.code_version()

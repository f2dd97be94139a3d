"""Where a catalog's files come from: the working tree or a Git revision. Knows no meaning."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from registry import git


@dataclass(frozen=True, slots=True)
class Entry:
    """One file below `catalog/`: its path from the root, and what identifies its bytes.

    `identity` is the Git object id, or (size, mtime_ns, ctime_ns, inode) of a working file.
    """

    path: str
    identity: str | tuple[int, int, int, int]
    is_link: bool = False


class Tree(Protocol):
    """A source of catalog files."""

    @property
    def root(self) -> Path:
        """The repository's root."""

    def entries(self) -> tuple[Entry, ...]:
        """Return all files below `catalog/` but those in `weights/`, sorted by path."""

    def read(self, path: str) -> bytes:
        """Return the bytes of one of the entries."""


@dataclass(frozen=True, slots=True)
class WorkingTree:
    """The files as they lie there now, but those below the folders in `leave`."""

    root: Path
    leave: tuple[str, ...] = ()

    def entries(self) -> tuple[Entry, ...]:
        """Return all files below `catalog/`, sorted by path."""
        found = walk(self.root, "catalog", leave=self.leave)
        return tuple(sorted(found, key=lambda entry: entry.path))

    def read(self, path: str) -> bytes:
        """Return the bytes of a file."""
        return (self.root / path).read_bytes()


def walk(root: Path, folder: str, *, leave: Collection[str] = ()) -> Iterator[Entry]:
    """Yield all files below a folder of the working tree but those below the folders in `leave`."""
    try:
        found = list(os.scandir(root / folder))
    except FileNotFoundError:
        return
    for item in found:
        yield from entries_of(root, f"{folder}/{item.name}", item, leave=leave)


def entries_of(
    root: Path, path: str, item: os.DirEntry[str], *, leave: Collection[str] = ()
) -> Iterator[Entry]:
    """Yield the entry of a file that a folder lists, or all below a folder as `walk` does."""
    facts = stat_of(item)
    if facts is None:
        return
    if stat.S_ISLNK(facts.st_mode):
        yield Entry(path, "", is_link=True)
    elif not stat.S_ISDIR(facts.st_mode):
        yield Entry(path, signature(facts))
    elif not is_opaque(path) and path not in leave:
        yield from walk(root, path, leave=leave)


def stat_of(item: os.DirEntry[str]) -> os.stat_result | None:
    """Return the stat of what a folder lists, None if it is gone: a sync renames its files."""
    try:
        return item.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None


def signature(facts: os.stat_result) -> tuple[int, int, int, int]:
    """Return what changes when a file changes: size, mtime, ctime (ns) and inode."""
    return (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino)


def is_opaque(folder: str) -> bool:
    """Return whether a folder's content is bytes known by digest, no documents."""
    parts = folder.split("/")
    name = parts[-1]
    is_weights = name == "weights" and parts[1] in ("bases", "adapters", "checkpoints")
    is_artifact = len(parts) == 3 and parts[1] == "builds"
    return is_weights or is_artifact or name.startswith(".")


class RevisionTree:
    """The files as a Git revision has them."""

    def __init__(self, root: Path, revision: str) -> None:
        """Read the list of files of `revision`; UsageError if it is unknown."""
        self.root = root
        self.commit = git.resolve(root, revision)
        self._files = {
            path: (mode, oid)
            for path, (mode, oid) in git.tree_files(root, self.commit, "catalog").items()
            if not any(is_opaque(parent) for parent in _parents(path))
        }
        self._blobs: dict[str, bytes] = {}

    def entries(self) -> tuple[Entry, ...]:
        """Return all files below `catalog/`, sorted by path."""
        return tuple(
            Entry(path, oid, is_link=mode in ("120000", "160000"))
            for path, (mode, oid) in sorted(self._files.items())
        )

    def read(self, path: str) -> bytes:
        """Return the bytes of a file; all documents are read in one call at the first question."""
        oid = self._files[path][1]
        if oid not in self._blobs:
            self._blobs = git.read_blobs(self.root, sorted(self._documents() | {oid}))
        return self._blobs[oid]

    def _documents(self) -> set[str]:
        # Build records are as many as merges, larger, and asked for by nobody here.
        return {
            oid
            for path, (mode, oid) in self._files.items()
            if mode != "160000" and not path.startswith("catalog/builds/")
        }


@dataclass(frozen=True, slots=True)
class ChosenTree:
    """Some files of a tree."""

    tree: Tree
    chosen: tuple[Entry, ...]

    @property
    def root(self) -> Path:
        """The repository's root."""
        return self.tree.root

    def entries(self) -> tuple[Entry, ...]:
        """Return the chosen files, sorted by path."""
        return self.chosen

    def read(self, path: str) -> bytes:
        """Return the bytes of one of them."""
        return self.tree.read(path)


def _parents(path: str) -> Iterator[str]:
    parts = path.split("/")
    return ("/".join(parts[:end]) for end in range(2, len(parts)))


@dataclass(frozen=True, slots=True)
class EditedTree:
    """A tree in which some files have other bytes than they have."""

    tree: Tree
    edits: Mapping[str, bytes]

    @property
    def root(self) -> Path:
        """The repository's root."""
        return self.tree.root

    def entries(self) -> tuple[Entry, ...]:
        """Return the same files, the edited ones known by their new bytes."""
        return tuple(
            Entry(one.path, f"edited {sha256(self.edits[one.path]).hexdigest()}")
            if one.path in self.edits
            else one
            for one in self.tree.entries()
        )

    def read(self, path: str) -> bytes:
        """Return the bytes of a file."""
        return self.edits[path] if path in self.edits else self.tree.read(path)

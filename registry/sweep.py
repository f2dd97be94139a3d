"""One look at all files of a catalog, by their stats: what there is, and what may have changed.

Specs and records are many, so each is a name and 32 bytes; everything else is an entry of the tree.
Reads no file. Knows no meaning.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from registry import index
from registry.tree import Entry, entries_of, stat_of, walk

SPECS = "catalog/merges"
RECORDS = "catalog/builds"
Facts = tuple[int, int, int, int]
_PACK = struct.Struct("<QqqQ")


@dataclass(frozen=True, slots=True)
class Sweep:
    """The files of the working tree, each with what changes when it changes.

    `specs` and `records` are by name of the model. `others` has no pointers of artifacts, which
    nothing reads and whose names alone are looked at. `looked_ns` is when the look began.
    """

    looked_ns: int

    specs: Mapping[str, bytes]
    records: Mapping[str, bytes]
    others: tuple[Entry, ...]

    def spec(self, model: str) -> Entry:
        """Return the entry of a model's spec."""
        return Entry(f"{SPECS}/{model}.yaml", facts(self.specs[model]))


def look(root: Path) -> Sweep:
    """Return what there is now."""
    now = time.time_ns()
    others = list(walk(root, "catalog", leave=(SPECS, RECORDS)))
    specs = _stats(root, SPECS, ".yaml", others)
    records = _stats(root, RECORDS, ".json", others, passed_over=".dvc")
    return Sweep(now, specs, records, tuple(sorted(others, key=lambda entry: entry.path)))


@contextmanager
def _opened(root: Path, folder: str) -> Iterator[list[os.DirEntry[str]]]:
    """Yield what is in a folder; while it is open, a stat walks down no path: a third faster."""
    try:
        descriptor = os.open(root / folder, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        yield []
        return
    try:
        yield list(os.scandir(descriptor))
    finally:
        os.close(descriptor)


def _stats(
    root: Path, folder: str, suffix: str, others: list[Entry], *, passed_over: str | None = None
) -> dict[str, bytes]:
    """Return the packed stats of a folder's regular files with a suffix, by name without it.

    All else in the folder goes to `others`, but for regular files that end in `passed_over`.
    """
    found = {}
    end = -len(suffix)
    with _opened(root, folder) as items:
        for item in items:
            name = item.name
            is_file = item.is_file(follow_symlinks=False)
            if is_file and name.endswith(suffix):
                if (stat := stat_of(item)) is not None:
                    found[name[:end]] = packed(stat)
            elif not (is_file and passed_over and name.endswith(passed_over)):
                others += entries_of(root, f"{folder}/{name}", item)
    return found


def packed(stat: os.stat_result) -> bytes:
    """Return size, modification time, change time (ns) and inode in 32 bytes."""
    return _PACK.pack(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


def facts(pack: bytes) -> Facts:
    """Return the numbers in 32 bytes."""
    size, modified, changed, inode = _PACK.unpack(pack)
    return size, modified, changed, inode


def is_at_rest(pack: bytes, looked_ns: int) -> bool:
    """Return whether a file that is read after `looked_ns` shows its next change in its stat."""
    if len(pack) != _PACK.size:
        return False
    _, modified, changed, _ = facts(pack)
    return looked_ns - max(modified, changed) >= index.SETTLING_NS


@dataclass(frozen=True, slots=True)
class SweptTree:
    """The working tree as a sweep found it; `entries` leaves out specs and records."""

    root: Path
    found: Sweep

    def entries(self) -> tuple[Entry, ...]:
        """Return all files that are neither specs nor records, sorted by path."""
        return self.found.others

    def read(self, path: str) -> bytes:
        """Return the bytes of a file."""
        return (self.root / path).read_bytes()

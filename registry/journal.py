"""The journal: what syncs did, by whom, at which commit, in `journal/`, to be committed with Git.

Each sync that does something writes a file of its own, `journal/<year-month>/<time>-<hash>.jsonl`:
a line of canonical JSON per entry, fsynced before the record that the entry tells of. A line names
the digest of the line before; the first of a file names all ends that the journal had, so branches
and clones that synced side by side are joined by the next sync, and Git never has to merge a file.
No file is ever written again. It lies beside `catalog/`, not in it: a `git revert` of records must
not take away what was done. Knows no MLflow, no store and no plan.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

from registry import chain, keys, objects
from registry.chain import FOLDER, Entry
from registry.errors import RegistryError
from schemas import canonical

_ENTRY_BYTES = 8000  # of a long one, for the message of a full disk


def now() -> str:
    """Return the time as entries have it: UTC, in seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Journal:
    """Writes one file of the journal; made for one sync, whose lock the caller holds."""

    def __init__(self, root: Path, who: Callable[[], str], clock: Callable[[], str] = now) -> None:
        """Take the repository's root, who acts, and the clock; nothing is read yet."""
        self._root = root
        self._ask_who = who
        self._clock = clock
        self._who = ""
        self._seq = 0
        self._heads: tuple[str, ...] | None = None
        self._file: Path | None = None
        self._one_at_a_time = Lock()

    def open(self) -> tuple[str, ...]:
        """Return the digests of the ends of the journal; RegistryError if it cannot be written."""
        with self._one_at_a_time:
            return self._open()

    def _open(self) -> tuple[str, ...]:
        if self._heads is None:
            folder = self._root / FOLDER
            _refuse_links(folder)
            with objects.writing(_ENTRY_BYTES, folder):
                folder.mkdir(exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):
                msg = f"{FOLDER}/ cannot be written to"
                raise RegistryError(msg, "nothing is done that the journal cannot tell")
            found = chain.read(self._root)
            self._seq = max((one.seq for one in found.entries), default=0)
            self._heads = found.heads
            self._who = chain.plain(self._ask_who(), 200)
        return self._heads

    def enter(self, facts: Mapping[str, str]) -> Entry:
        """Write one entry and wait until the disk has it; RegistryError or NotNow if it cannot be.

        `facts` are the texts of `Entry` by name; those that are absent are empty.
        """
        with self._one_at_a_time:
            previous = self._open()
            entry = chain.made(
                {name: chain.plain(text) for name, text in facts.items()}
                | {"time": self._clock(), "who": self._who},
                seq=self._seq + 1,
                previous=previous,
            )
            line = canonical.canonical(entry.as_data()) + b"\n"
            self._append(entry, line)
            self._seq, self._heads = entry.seq, (entry.digest,)
            return entry

    def _append(self, entry: Entry, line: bytes) -> None:
        folder = self._root / FOLDER / entry.time[:7]
        if self._file is None:
            _refuse_links(folder)
            self._file = folder / f"{entry.time.replace(':', '')}-{entry.digest[7:19]}.jsonl"
        with objects.writing(_ENTRY_BYTES, folder):
            folder.mkdir(exist_ok=True)
            # Unbuffered: a buffer would write the rest of a refused line after all, at its end.
            with self._file.open("ab", buffering=0) as file:
                start = file.tell()
                try:
                    written = 0
                    while written < len(line):
                        written += file.write(line[written:])
                    os.fsync(file.fileno())
                except OSError:
                    os.truncate(self._file, start)  # half a line would spoil the next one
                    raise
            if start == 0:
                keys.sync_folder(folder)
                keys.sync_folder(folder.parent)


def _refuse_links(path: Path) -> None:
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        msg = f"{path}: expected a folder, found something else"
        raise RegistryError(msg, "the journal is a folder of the repository; remove what is there")

"""An artifact's files: reserved, written in order, hashed while they are written.

Knows neither tensors nor methods.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from merger import libc
from merger.errors import DiskError, InputError
from schemas.digest import FileHash

_CHUNK_BYTES = 4 << 20
_COPY_BYTES = 8 << 20
_WAITING_CHUNKS = 16  # handed to the hashing threads and not done: bounds the memory held
_OTHER_FILES_BYTES = 1 << 20  # recipe, card and index, in the estimate of the space needed


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """Hashes and size of a file as it was written: sha256 for digests, md5 as DVC's oid."""

    sha256: str
    md5: str
    size: int

    @property
    def content(self) -> FileHash:
        """What tree digests are made of."""
        return FileHash(self.sha256, self.size)


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file elsewhere whose hashes are known, as long as its stat says what is expected."""

    path: Path
    content: WrittenFile
    mtime_ns: int
    inode: int

    def is_unaltered(self, found: os.stat_result) -> bool:
        """Return whether a stat is that of the file whose hashes are known."""
        expected = (self.content.size, self.mtime_ns, self.inode)
        return (found.st_size, found.st_mtime_ns, found.st_ino) == expected


def read_chunks(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file that is copied, piece by piece."""
    with path.open("rb") as file:
        while chunk := file.read(_COPY_BYTES):
            yield chunk


class ArtifactWriter:
    """Writes files into one folder and hashes them on two threads of its own.

    Leaving the context after an error removes every file written.
    """

    __slots__ = ("_hashing", "_needed", "files", "folder")

    def __init__(self, folder: Path) -> None:
        """Create the folder if it is absent.

        Raises InputError if it is not empty: it would mix two artifacts.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InputError("expected an empty folder, found files in it", field="output")
        self.folder = folder
        self.files: dict[str, WrittenFile] = {}
        self._needed = 0
        self._hashing = (ThreadPoolExecutor(1), ThreadPoolExecutor(1))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pool in self._hashing:
            pool.shutdown()
        if error is not None:
            for path in self.folder.iterdir():
                path.unlink()

    def reserve(self, bytes_needed: int) -> None:
        """Raise DiskError if the folder's file system has no room for so many bytes."""
        free = shutil.disk_usage(self.folder).free
        self._needed = bytes_needed + _OTHER_FILES_BYTES
        if free < self._needed:
            raise DiskError(self._needed, free)

    def write(self, name: str, chunks: Iterable[memoryview | bytes], size: int = 0) -> None:
        """Write one file from pieces, in order; its blocks are reserved if its size is known.

        Raises DiskError when the disk turns out to be full: others write to it too.
        """
        try:
            with (self.folder / name).open("xb", buffering=0) as file:
                libc.preallocate(file.fileno(), size)
                hashed = _HashedFile(file, self._hashing)
                for chunk in chunks:
                    hashed.write(memoryview(chunk))
                written = self.files[name] = hashed.finish()
                assert size in (0, written.size), "reserved is what is written"
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            free = shutil.disk_usage(self.folder).free
            raise DiskError(self._needed, free) from error

    def adopt(self, name: str, known: KnownFile) -> bool:
        """Make a file that lies elsewhere part of the artifact, unread; False if it cannot be.

        The two are one inode where the file system allows it, so neither may be written into.
        Whatever goes wrong (it is gone, altered, too large for the disk) leaves nothing behind:
        the file is written like any other then, and trouble is told by that.
        """
        target = self.folder / name
        try:
            is_known = known.is_unaltered(_link_or_copy(known.path, target))
        except OSError:
            is_known = False
        if is_known:
            self.files[name] = known.content
        else:
            target.unlink(missing_ok=True)
        return is_known


def _link_or_copy(source: Path, target: Path) -> os.stat_result:
    """Bring a file to `target`; return its stat, taken when its bytes were there."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or a file of somebody else's
        with source.open("rb") as reader, target.open("xb") as writer:
            _copy(reader.fileno(), writer.fileno())
            return os.fstat(reader.fileno())
    return target.stat()


def _copy(source: int, target: int) -> None:
    """Copy all bytes inside the kernel; where the file system can, it shares the blocks."""
    try:
        while os.copy_file_range(source, target, _COPY_BYTES):
            pass
    except OSError:  # not between these two file systems; goes on where that stopped
        while os.sendfile(target, source, None, _COPY_BYTES):
            pass


class _HashedFile:
    __slots__ = ("_file", "_hashes", "_pools", "_size", "_waiting")

    def __init__(self, file: BinaryIO | Any, pools: tuple[ThreadPoolExecutor, ...]) -> None:
        self._file = file
        self._pools = pools
        # md5 names the file in DVC's cache; nothing relies on it against an attacker.
        self._hashes = (hashlib.sha256(), hashlib.md5(usedforsecurity=False))
        self._waiting: deque[Future[None]] = deque()
        self._size = 0

    def write(self, data: memoryview) -> None:
        for start in range(0, len(data), _CHUNK_BYTES):
            chunk = data[start : start + _CHUNK_BYTES]
            for pool, content in zip(self._pools, self._hashes, strict=True):
                self._waiting.append(pool.submit(content.update, chunk))
            while len(self._waiting) > _WAITING_CHUNKS:
                self._waiting.popleft().result()
            written = 0
            while written < len(chunk):
                written += self._file.write(chunk[written:])
            self._size += len(chunk)

    def finish(self) -> WrittenFile:
        for waiting in self._waiting:
            waiting.result()
        sha256, md5 = (content.hexdigest() for content in self._hashes)
        return WrittenFile(sha256, md5, self._size)

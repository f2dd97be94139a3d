"""An artifact's files: a layout known before a tensor is read, hashes while writing.

Knows no method. The layout depends on the base's headers, on which tensors are touched, on the
dtype and on the largest shard; never on a number. Tensors that no term has lie in shards of their
own, after the others, so their bytes (and names) are the same for every merge that touches the
same tensors of a base.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from merger import libc
from merger.errors import DiskError, InputError
from schemas.digest import FileHash
from schemas.header import FLOATS, ITEM_BYTES, TensorInfo
from schemas.model import SINGLE

_CHUNK_BYTES = 4 << 20
_COPY_BYTES = 8 << 20
_WAITING_CHUNKS = 16  # handed to the hashing threads and not done: bounds the memory held
_OTHER_FILES_BYTES = 1 << 20  # recipe, card and index, in the estimate of the space needed


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a shard: what is written, and whether a term has it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    is_touched: bool


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of weights: its name, its header's bytes and its tensors in order."""

    file: str
    header: bytes
    entries: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return len(self.header) + sum(entry.size for entry in self.entries)


@dataclass(frozen=True, slots=True)
class Layout:
    """All shards of an artifact."""

    shards: tuple[Shard, ...]

    @property
    def size(self) -> int:
        """Size of all shards in bytes."""
        return sum(shard.size for shard in self.shards)

    @property
    def index(self) -> bytes | None:
        """Bytes of the index; None for a single file, which has none."""
        if len(self.shards) == 1:
            return None
        entries = [(entry, shard.file) for shard in self.shards for entry in shard.entries]
        weight_map = {entry.name: file for entry, file in entries}
        data = {
            "metadata": {"total_size": sum(entry.size for entry, _ in entries)},
            "weight_map": dict(sorted(weight_map.items())),
        }
        return (json.dumps(data, indent=2) + "\n").encode()


def plan_layout(
    tensors: Mapping[str, TensorInfo], touched: Iterable[str], *, dtype: str, max_shard_size: int
) -> Layout:
    """Return the layout of a merge of a base with these tensors.

    `dtype` is a name of safetensors (`BF16`), or empty where each tensor keeps its own; integers
    always do. A file, header included, has at most `max_shard_size` bytes, unless a single tensor
    is larger.
    """
    names = frozenset(touched)
    entries = [
        _entry(name, info, dtype, is_touched=name in names) for name, info in tensors.items()
    ]
    # Wider types first, so that every tensor is aligned to its own size; then byte order.
    entries.sort(key=lambda entry: (-ITEM_BYTES[entry.dtype], entry.name))
    groups = [
        group
        for is_touched in (True, False)
        for group in _fill([e for e in entries if e.is_touched == is_touched], max_shard_size)
    ]
    count = len(groups)
    return Layout(
        tuple(
            Shard(_file_name(number, count), _header(group), tuple(group))
            for number, group in enumerate(groups, start=1)
        )
    )


def single_file(file: str, entries: Iterable[Entry]) -> Shard:
    """Return one file with these tensors in this order."""
    group = tuple(entries)
    return Shard(file, _header(group), group)


def _entry(name: str, info: TensorInfo, dtype: str, *, is_touched: bool) -> Entry:
    written = dtype if dtype and info.dtype in FLOATS else info.dtype
    size = info.elements * ITEM_BYTES[written]
    return Entry(name, written, info.shape, size, is_touched)


def _fill(entries: list[Entry], max_shard_size: int) -> list[list[Entry]]:
    groups: list[list[Entry]] = []
    room = 0
    for entry in entries:
        # An upper bound of what the entry takes in the header: its offsets have at most 20 digits.
        size = entry.size + len(json.dumps(entry.name)) + len(str(entry.shape)) + 100
        if not groups or size > room:
            groups.append([])
            room = max_shard_size - 64
        groups[-1].append(entry)
        room -= size
    return groups


def _file_name(number: int, count: int) -> str:
    return SINGLE if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"


def _header(entries: Iterable[Entry]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for entry in entries:
        header[entry.name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [position, position + entry.size],
        }
        position += entry.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


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

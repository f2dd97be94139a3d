"""Files of the content store: put in place, compared with their sha256, copied out, swept up.

Plain file-system work on paths that the caller names: knows no DVC, no remote and no artifact.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from registry import keys
from registry.errors import NotNow, RegistryError, VerificationFailed
from registry.keys import StoredFile
from schemas.digest import hash_file, list_files

_BLOCK_BYTES = 1 << 20
_CLONE_FILE = 0x40049409  # FICLONE of linux/fs.h: share blocks, copy on write
_READ_ONLY = 0o444  # what DVC takes as the sign of a finished object


@contextlib.contextmanager
def room(size: int, folder: Path) -> Iterator[None]:
    """Turn a full disk into NotNow; `size` is the bytes that may be needed."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        msg = f"{folder}: the disk is full, up to {size} bytes are needed"
        raise NotNow(msg, "free some space there, then run the same command again") from error


@contextlib.contextmanager
def writing(size: int, folder: Path) -> Iterator[None]:
    """Turn whatever the file system refuses into an error of ours; for work on this machine."""
    try:
        with room(size, folder):
            yield
    except OSError as error:
        place = error.filename or folder
        msg = f"{place}: {(error.strerror or str(error)).lower()}"
        raise RegistryError(msg, "check the folder and its permissions") from error


def is_intact(path: Path, file: StoredFile) -> bool:
    """Return whether a file has the recorded size and sha256."""
    return keys.has_size(path, file.size) and hash_file(path).sha256 == file.sha256


def require_exactly(folder: Path, files: Mapping[str, StoredFile]) -> None:
    """Raise VerificationFailed unless a folder holds these files, of these sizes, and no other."""
    found = set(list_files(folder))
    for path in sorted(found | set(files)):
        if path not in files:
            msg = f"{path}: a file that nobody declared lies in the artifact"
            raise VerificationFailed(msg)
        if path not in found:
            msg = f"{path}: missing from the artifact"
            raise VerificationFailed(msg)
        if not keys.has_size(folder / path, files[path].size):
            size = (folder / path).stat().st_size
            msg = f"{path}: expected {files[path].size} bytes, found {size}"
            raise VerificationFailed(msg)


def place(source: Path, target: Path, file: StoredFile, scratch: Path) -> None:
    """Make `source` the object `target`, unless the object is there and intact.

    An altered object is replaced: DVC would keep it, as it trusts whatever is read-only. The two
    then share one inode, read-only, if they lie on one file system. `source` is trusted, and need
    not be read where it is a link to the object.
    """
    if is_link_of(source, target) or is_intact(target, file):
        return
    source.chmod(_READ_ONLY)
    _flush(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = scratch / secrets.token_hex(8)
    try:
        os.link(source, beside)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, beside)
        beside.chmod(_READ_ONLY)
        _flush(beside)
    beside.replace(target)
    keys.sync_folder(target.parent)


def is_link_of(source: Path, target: Path) -> bool:
    """Return whether two paths name one file; False if one is absent."""
    try:
        return source.samefile(target)
    except OSError:
        return False


def holds(path: Path, data: bytes) -> bool:
    """Return whether a small file holds exactly these bytes."""
    try:
        return path.read_bytes() == data
    except OSError:
        return False


def place_bytes(data: bytes, target: Path) -> None:
    """Make bytes the object `target`, unless it holds them already."""
    if holds(target, data):
        return
    keys.replace_file(target, data)
    target.chmod(_READ_ONLY)


def copy_out(source: Path, target: Path, *, share: bool) -> str:
    """Bring an object to `target` and return the sha256 of what has arrived there.

    With `share` the two may be one inode, to be read only. Otherwise `target` is a file of its own,
    whose blocks may be shared copy-on-write.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if share:
        try:
            os.link(source, target)
        except OSError:  # absent is noticed below
            pass
        else:
            return hash_file(target).sha256
    with source.open("rb") as reader, target.open("xb") as writer:
        try:
            fcntl.ioctl(writer.fileno(), _CLONE_FILE, reader.fileno())
        except OSError:  # not this file system, or not the same one
            hashed = hashlib.sha256()
            while block := reader.read(_BLOCK_BYTES):
                hashed.update(block)
                writer.write(block)
            writer.flush()
            os.fsync(writer.fileno())
            return hashed.hexdigest()
    return hash_file(target).sha256


@contextlib.contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """Lend a folder beside `folder` that becomes it at the end, or vanishes on any failure.

    Raises RegistryError if `folder` is there and not empty.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - `.` has no name to put another beside
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        msg = f"{folder}: expected an absent or empty folder"
        raise RegistryError(msg, "name another folder, or empty this one")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}")
    beside.mkdir()
    try:
        yield beside
        beside.replace(folder)
        keys.sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Scratch:
    """Temporary folders of this process below one folder; those of dead processes can be told.

    A run holds a lock on its own folder as long as it lives, so a cache that several repositories
    share can be swept by any of them.
    """

    def __init__(self, folder: Path) -> None:
        """Take the folder for all runs; nothing is made yet."""
        self._folder = folder
        self._run: Path | None = None
        self._locked: int | None = None

    def new(self) -> Path:
        """Return a new empty folder."""
        if self._run is None or not self._run.is_dir():
            self._start()
        assert self._run is not None
        folder = self._run / secrets.token_hex(8)
        folder.mkdir()
        return folder

    def _start(self) -> None:
        with self._alone():
            run = self._folder / f"{os.getpid()}-{secrets.token_hex(4)}"
            run.mkdir()
            # Kept open until the process ends; children that are started do not inherit it.
            self._locked = os.open(run, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._locked, fcntl.LOCK_EX)
            self._run = run

    def sweep(self) -> None:
        """Remove what dead processes have left."""
        if not self._folder.is_dir():
            return
        with self._alone():
            for run in self._folder.iterdir():
                if run.is_dir() and not _is_locked(run):
                    shutil.rmtree(run, ignore_errors=True)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        # Nobody sweeps between the making of a folder and its locking.
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _is_locked(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False

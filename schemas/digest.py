"""Digests of files and folders, and which files make a model. Knows no catalog and no tensor."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from schemas.canonical import digest

_BLOCK_BYTES = 1 << 20
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"

LEGAL = ("LICENSE*", "NOTICE*")
"""Shell patterns of the only files that an adapter carries over from its base."""

CARRIED = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "chat_template*",
    *LEGAL,
)
"""Shell patterns of what a merge carries over from its base; nothing else is copied."""

INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
"""What an adapter's weights mean; an artifact of form model has no such file."""


class TreeError(ValueError):
    """A folder holds something that has no digest; `path` is relative to the folder."""

    def __init__(self, path: str, why: str) -> None:
        """Name the file and what is wrong with it."""
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


@dataclass(frozen=True, slots=True)
class FileHash:
    """Content of one file: lower-case hex of its sha256, and its size in bytes."""

    sha256: str
    size: int

    def as_data(self) -> dict[str, str | int]:
        """Return the plain data that records and tree digests hold."""
        return {"sha256": self.sha256, "size": self.size}


def hash_file(path: Path) -> FileHash:
    """Return the content hash of one file, read in blocks."""
    sha256 = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            sha256.update(block)
            size += len(block)
    return FileHash(sha256.hexdigest(), size)


def list_files(folder: Path) -> tuple[str, ...]:
    """Return the relative paths (with `/`) of all regular files, hidden ones too, sorted.

    Raises TreeError for a symlink, a Git LFS pointer or anything that is neither file nor folder.
    """
    found: list[str] = []
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        with os.scandir(folder / prefix) as entries:
            for entry in entries:
                path = prefix + entry.name
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISLNK(mode):
                    raise TreeError(path, "expected a file, found a symlink")
                if stat.S_ISDIR(mode):
                    waiting.append(path + "/")
                elif stat.S_ISREG(mode):
                    _refuse_lfs_pointer(folder, path, entry.stat(follow_symlinks=False).st_size)
                    found.append(path)
                else:
                    raise TreeError(path, "expected a regular file")
    return tuple(sorted(found))


def _refuse_lfs_pointer(folder: Path, path: str, size: int) -> None:
    # A pointer is some 130 bytes of text; larger files need not be opened.
    if size > 1024:
        return
    with (folder / path).open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise TreeError(path, "expected the file itself, found a Git LFS pointer")


def hash_folder(folder: Path) -> dict[str, FileHash]:
    """Return the content hash of every file of a folder by relative path.

    Raises TreeError as `list_files` does.
    """
    return {path: hash_file(folder / path) for path in list_files(folder)}


def tree_digest(files: Mapping[str, FileHash]) -> str:
    """Return the digest of a set of files: that of the canonical JSON of path to hash and size."""
    return digest({path: file.as_data() for path, file in files.items()})


def is_carried(path: str) -> bool:
    """Return whether a merge carries the file at `path` over from its base."""
    return "/" not in path and any(fnmatchcase(path, pattern) for pattern in CARRIED)


def is_legal(path: str) -> bool:
    """Return whether an adapter carries the file at `path` over from its base."""
    return "/" not in path and any(fnmatchcase(path, pattern) for pattern in LEGAL)


def is_model_file(path: str) -> bool:
    """Return whether `path` counts in the model digest.

    Weights, their index or what makes an adapter of them, and what is carried.
    """
    is_weights = "/" not in path and path.endswith(".safetensors")
    return is_weights or path in (INDEX, ADAPTER_CONFIG) or is_carried(path)


def model_digest(files: Mapping[str, FileHash]) -> str:
    """Return the model digest: the tree digest of the files that `is_model_file` takes."""
    return tree_digest({path: file for path, file in files.items() if is_model_file(path)})

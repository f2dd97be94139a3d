"""Shards that merges of one base share: which of them the store holds, found again by key.

The merger names a shard that no term touches by what determines its bytes; here it is remembered
which object holds it, so that the next build links the object instead of writing it anew. Knows no
recipe and no tensor. One file per shard below its base, replaced atomically:

    <cache>/registry/shards/<aa>/<base's hex>/<key's hex>.json

An object is believed unread only while it is the file whose hashes were computed: equal in size,
modification time, change time and inode. Links move the change time too, so an object that differs
in that alone is read again, and believed if its sha256 is the recorded one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from registry import keys, objects
from registry.keys import StoredFile

FORMAT_VERSION = 1

_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class _Shard:
    """An object that holds a shard, and its stat as it was when its hashes were known."""

    file: StoredFile
    mtime_ns: int
    ctime_ns: int
    inode: int

    def differs(self, found: os.stat_result) -> bool:
        """Return whether a stat is that of another file, or of another content."""
        expected = (self.file.size, self.mtime_ns, self.inode)
        return (found.st_size, found.st_mtime_ns, found.st_ino) != expected


def known(cache: Path, base: str) -> dict[str, dict[str, Any]]:
    """Return the shards of a base that lie in the store intact, by key, for a work order."""
    found = {}
    for path in sorted(_folder(cache, base).glob("*.json")):
        shard = _read(path)
        if shard is not None and _is_intact(cache, path, shard):
            place = str(keys.object_path(cache, shard.file.md5))
            identity = {"mtime_ns": shard.mtime_ns, "inode": shard.inode}
            found[f"sha256:{path.stem}"] = {"path": place, **asdict(shard.file), **identity}
    return found


def remember(
    cache: Path, base: str, named: Mapping[str, str], files: Mapping[str, StoredFile]
) -> None:
    """Keep which objects hold the shards `named`, file to key; they have just been published."""
    for file, key in named.items():
        stat = _stat(keys.object_path(cache, files[file].md5))
        if stat is not None:  # another program may remove it at any time
            _write(_path(cache, base, key), files[file], stat)


def settle(cache: Path, base: str, shards: Collection[str]) -> None:
    """Follow the change times of objects that were linked and unlinked meanwhile by ourselves.

    Without it the next build would read them again. One that differs in anything else is left.
    """
    for key in shards:
        path = _path(cache, base, key)
        shard = _read(path)
        stat = shard and _stat(keys.object_path(cache, shard.file.md5))
        if shard and stat and not shard.differs(stat):
            _write(path, shard.file, stat)


def forget(cache: Path, md5s: Collection[str]) -> None:
    """Forget which shards these objects hold: they were found altered."""
    for path in (cache / "registry" / "shards").glob("*/*/*.json"):
        shard = _read(path)
        if shard is None or shard.file.md5 in md5s:
            path.unlink(missing_ok=True)


def _is_intact(cache: Path, path: Path, shard: _Shard) -> bool:
    place = keys.object_path(cache, shard.file.md5)
    stat = _stat(place)
    if stat is None or shard.differs(stat):
        return False
    if stat.st_ctime_ns == shard.ctime_ns:
        return True
    if not objects.is_intact(place, shard.file):
        return False
    _write(path, shard.file, stat)
    return True


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _folder(cache: Path, base: str) -> Path:
    digest = base.removeprefix("sha256:")
    return cache / "registry" / "shards" / digest[:2] / digest


def _path(cache: Path, base: str, key: str) -> Path:
    return _folder(cache, base) / f"{key.removeprefix('sha256:')}.json"


def _write(path: Path, file: StoredFile, stat: os.stat_result) -> None:
    shard = _Shard(file, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    data = {"format_version": FORMAT_VERSION, **asdict(shard)}
    # On a full disk or in a store of somebody else's it is not remembered: it only saves time.
    with contextlib.suppress(OSError):
        keys.replace_file(path, json.dumps(data, indent=1, sort_keys=True).encode() + b"\n")


def _read(path: Path) -> _Shard | None:
    """Return what was kept; None for what is gone, or no good."""
    try:
        data = json.loads(path.read_bytes())
        if data.pop("format_version") != FORMAT_VERSION:
            return None
        shard = _Shard(StoredFile(**data.pop("file")), **data)
        return shard if _MD5.fullmatch(shard.file.md5) else None
    except (OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return None

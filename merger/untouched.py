"""Shards of tensors that no term has: named by what determines them, taken from where they lie.

Knows no store: whoever gives the order says which shards lie where, and vouches for their bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from merger.errors import InputError
from merger.layout import Layout
from merger.request import BuildRequest
from merger.target import Target
from merger.writer import ArtifactWriter, KnownFile, WrittenFile
from schemas.canonical import digest


def shard_keys(layout: Layout, request: BuildRequest, target: Target) -> dict[str, str]:
    """Return the key of every shard that the base alone determines, by the shard's file name.

    The header says which tensors it holds, in which dtype and order; the base's digest says their
    values, numerics how they are cast. Of a stack or a union of vocabularies no shard has a key:
    there a tensor may come from elsewhere.
    """
    if target.base is not target.source:
        return {}
    return {
        shard.file: _key(request, shard.header)
        for shard in layout.shards
        if not any(entry.is_touched for entry in shard.entries)
    }


def _key(request: BuildRequest, header: bytes) -> str:
    return digest(
        {
            "base": request.base.digest,
            "header": hashlib.sha256(header).hexdigest(),
            "numerics": request.data["numerics"],
        }
    )


def take(writer: ArtifactWriter, keys: Mapping[str, str], known: Mapping[str, KnownFile]) -> int:
    """Make the known ones among these shards part of the artifact, unread; return their bytes."""
    taken = [file for file, key in keys.items() if key in known and writer.adopt(file, known[key])]
    return sum(writer.files[file].size for file in taken)


def parse_known(data: Any) -> dict[str, KnownFile]:
    """Return the known shards of a work order by key; InputError for another shape."""
    try:
        return {key: _known_file(**one) for key, one in ({} if data is None else data).items()}
    except (AttributeError, TypeError) as error:
        why = "expected path, sha256, md5, size, mtime_ns and inode by key"
        raise InputError(why, field="known_shards") from error


def _known_file(
    *, path: str, sha256: str, md5: str, size: int, mtime_ns: int, inode: int
) -> KnownFile:
    return KnownFile(Path(path), WrittenFile(sha256, md5, size), mtime_ns, inode)

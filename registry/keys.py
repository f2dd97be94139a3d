"""The index build key → artifact beside the store's objects, and small results kept by key.

`plan` reads it, so it needs nothing but the standard library and `schemas`: it knows where DVC puts
things, but never imports DVC, and it never reads an object. One file per key, replaced atomically:

    <cache>/registry/keys/<aa>/<hex>.json           what is stored under a build key
    <cache>/registry/evaluations/<aa>/<hex>.json    metrics by evaluation key
    <cache>/registry/reports/<aa>/<hex>.json        build reports by build key
    <cache>/registry/provenance/<aa>/<hex>.json     in-toto statements by build key
    <cache>/files/md5/<aa>/<rest>                   DVC's objects, read-only
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry import dvc_config
from schemas.digest import FileHash, model_digest, tree_digest

FORMAT_VERSION = 1
"""Version of an index entry's format, raised when an older program could misread it."""

_DIGEST = re.compile(r"sha256:(?P<hex>[0-9a-f]{64})")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of an artifact: hex of its hashes without prefix, md5 being DVC's name for it."""

    sha256: str
    md5: str
    size: int


@dataclass(frozen=True, slots=True)
class Artifact:
    """What is stored under a build key; `oid` is DVC's name of the directory, ending in `.dir`."""

    key: str
    model_digest: str
    artifact_digest: str
    oid: str
    files: Mapping[str, StoredFile]
    facts: Mapping[str, Any]

    @property
    def size(self) -> int:
        """Return the bytes of all files together."""
        return sum(file.size for file in self.files.values())


def cache_folder(root: Path) -> Path:
    """Return the folder of DVC's cache for the repository at `root`."""
    return dvc_config.cache_folder(root)


def object_path(cache: Path, md5: str) -> Path:
    """Return where DVC keeps the object of that name."""
    return cache / object_name(md5)


def object_name(md5: str) -> str:
    """Return where the object of that name lies, below the cache."""
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def listing(files: Mapping[str, StoredFile]) -> bytes:
    """Return DVC's directory object for these files, to the byte."""
    # DVC sorts by path and writes with the json module's defaults and sorted keys.
    entries = [{"md5": files[path].md5, "relpath": path} for path in sorted(files)]
    return json.dumps(entries, sort_keys=True).encode()


def listing_oid(files: Mapping[str, StoredFile]) -> str:
    """Return DVC's name for these files as a directory."""
    return hashlib.md5(listing(files), usedforsecurity=False).hexdigest() + ".dir"


def relative_path(key: str) -> str:
    """Return where the entry of a build key lies, below the cache or a remote."""
    return _relative("keys", key)


def entry_name(key: str) -> str:
    """Return what `relative_path` does, for what is known to be a key: in a third of the time."""
    return f"registry/keys/{key[7:9]}/{key[7:]}.json"


def as_data(artifact: Artifact) -> dict[str, Any]:
    """Return the plain data of an index entry."""
    return {
        "format_version": FORMAT_VERSION,
        "key": artifact.key,
        "model_digest": artifact.model_digest,
        "artifact_digest": artifact.artifact_digest,
        "oid": artifact.oid,
        "files": {
            path: {"sha256": file.sha256, "md5": file.md5, "size": file.size}
            for path, file in artifact.files.items()
        },
        "facts": dict(artifact.facts),
    }


def parse(data: object, key: str) -> Artifact | None:
    """Return the artifact that plain data describe; None if they contradict `key` or themselves."""
    try:
        return _checked(data, key)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _checked(data: Any, key: str) -> Artifact:
    files = {path: StoredFile(**file) for path, file in data["files"].items()}
    if not files or not all(_is_sound(path, file) for path, file in files.items()):
        msg = "no file, or one that cannot be"
        raise ValueError(msg)
    artifact = Artifact(
        key=data["key"],
        model_digest=data["model_digest"],
        artifact_digest=data["artifact_digest"],
        oid=data["oid"],
        files=files,
        facts=dict(data["facts"]),
    )
    hashes = {path: FileHash(file.sha256, file.size) for path, file in files.items()}
    if (
        (data["format_version"], artifact.key) != (FORMAT_VERSION, key)
        or artifact.oid != listing_oid(files)
        or artifact.artifact_digest != tree_digest(hashes)
        or artifact.model_digest != model_digest(hashes)
    ):
        msg = "the entry contradicts itself"
        raise ValueError(msg)
    return artifact


def _is_sound(path: str, file: StoredFile) -> bool:
    # Paths come from a shared remote too, and files are written under them.
    parts = path.split("/")
    return (
        not any(part in {"", ".", ".."} or "\0" in part or "\\" in part for part in parts)
        and _SHA256.fullmatch(file.sha256) is not None
        and _MD5.fullmatch(file.md5) is not None
        and type(file.size) is int
        and file.size >= 0
    )


def read(cache: Path, key: str) -> Artifact | None:
    """Return what is stored under a build key; None if nothing is, or the entry is no good."""
    return parse(_read_json(cache / relative_path(key)), key)


def write(cache: Path, artifact: Artifact) -> None:
    """Enter an artifact into the index, atomically."""
    replace_file(cache / relative_path(artifact.key), encode(artifact))


def encode(artifact: Artifact) -> bytes:
    """Return the bytes of an index entry."""
    return _json(as_data(artifact))


def is_present(cache: Path, artifact: Artifact) -> bool:
    """Return whether every object lies there with the recorded size; no byte is read."""
    return all(has_size(object_path(cache, oid), size) for oid, size in objects(artifact).items())


def objects(artifact: Artifact) -> dict[str, int]:
    """Return the size of every object of an artifact, its listing too, by DVC's name."""
    sizes = {file.md5: file.size for file in artifact.files.values()}
    sizes[artifact.oid] = len(listing(artifact.files))
    return sizes


def has_size(path: Path | str, size: int) -> bool:
    """Return whether there is a file of that size."""
    try:
        return os.stat(path).st_size == size  # noqa: PTH116  of a text it takes half the time
    except OSError:
        return False


def read_evaluation(cache: Path, key: str) -> dict[str, Any] | None:
    """Return what was kept under an evaluation key, if anything."""
    return _read_object(cache / _relative("evaluations", key))


def write_evaluation(cache: Path, key: str, data: Mapping[str, Any]) -> None:
    """Keep the outcome of an evaluation under its key."""
    _write_json(cache / _relative("evaluations", key), dict(data))


def read_report(cache: Path, key: str) -> dict[str, Any] | None:
    """Return the build report that was kept under a build key, if any."""
    return _read_object(cache / _relative("reports", key))


def write_report(cache: Path, key: str, data: Mapping[str, Any]) -> None:
    """Keep the report of a build under its key."""
    _write_json(cache / _relative("reports", key), dict(data))


def provenance_path(key: str) -> str:
    """Return where the provenance under a build key lies, below the cache or a remote."""
    return _relative("provenance", key)


def provenance_bytes(cache: Path, key: str) -> bytes | None:
    """Return the file of the provenance under a build key, None without any."""
    return _read_bytes(cache / provenance_path(key))


def provenance_digest(cache: Path, key: str) -> str | None:
    """Return the digest of that file: what the journal names."""
    content = provenance_bytes(cache, key)
    return None if content is None else bytes_digest(content)


def report_digest(cache: Path, key: str) -> str | None:
    """Return the digest of the file of the build report under a build key, None without any."""
    content = _read_bytes(cache / _relative("reports", key))
    return None if content is None else bytes_digest(content)


def bytes_digest(content: bytes) -> str:
    """Return the digest of bytes."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _read_bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def write_provenance(cache: Path, key: str, data: Mapping[str, Any]) -> None:
    """Keep the provenance of a build under its key."""
    _write_json(cache / provenance_path(key), dict(data))


def named_in(content: bytes) -> Iterator[str]:
    """Yield everything in a text that may be a build key."""
    for found in _DIGEST.finditer(content.decode("utf-8", "replace")):
        yield found.group()


def is_key(text: str) -> bool:
    """Return whether a text can be a build key."""
    return _DIGEST.fullmatch(text) is not None


def _relative(kind: str, key: str) -> str:
    match = _DIGEST.fullmatch(key)
    if match is None:
        msg = f"expected a key like sha256:<64 hex digits>, found {key!r}"
        raise ValueError(msg)
    return f"registry/{kind}/{match['hex'][:2]}/{match['hex']}.json"


def _read_object(path: Path) -> dict[str, Any] | None:
    data = _read_json(path)
    return data if isinstance(data, dict) else None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    replace_file(path, _json(data))


def _json(data: Mapping[str, Any]) -> bytes:
    text = json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def replace_file(path: Path, data: bytes) -> None:
    """Write a file under another name, then rename it: it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with beside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names in a folder survive a power failure, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse it
            os.fsync(descriptor)
    finally:
        os.close(descriptor)

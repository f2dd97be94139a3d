"""What the world looks like now, from files only: records, what the store has, what is altered.

Light: `plan` and a sync with nothing to do go no further than this.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from registry import keys, record
from registry.errors import RegistryError
from registry.plan import Observed
from registry.record import BuildRecord, UnreadableRecord
from registry.store import Store


@dataclass(frozen=True, slots=True)
class StoreLookup:
    """Build key to model digest, for what lies complete in the cache; stats only."""

    cache: Path

    def get(self, key: str) -> str | None:
        """Return the model digest under a key, None if bytes are missing."""
        artifact = keys.read(self.cache, key)
        if artifact is None or not keys.is_present(self.cache, artifact):
            return None
        return artifact.model_digest


def observe(
    root: Path, store: Store, tracking_store: str | None, *, with_push: bool = False
) -> Observed:
    """Return what is recorded and present, read from files only."""
    recorded = record.read_all(root)
    unpushed: tuple[str, ...] = ()
    if with_push:
        unpushed = tuple(
            model
            for model, one in recorded.items()
            if isinstance(one, BuildRecord) and one.built and not store.pushed(one.built.key)
        )
    lookup = StoreLookup(store.cache)
    altered = {
        model
        for model, digest in read_altered(root).items()
        if _artifact_digest(recorded.get(model)) == digest
    }
    return Observed(recorded, lookup, altered, tracking_store, unpushed)


def _artifact_digest(one: BuildRecord | UnreadableRecord | None) -> str | None:
    if isinstance(one, BuildRecord) and one.built:
        return str(one.built.artifact["digest"])
    return None


def state_folder(root: Path) -> Path:
    """Return the repository's ignored folder for what may be deleted at any time."""
    return root / ".registry"


def read_altered(root: Path) -> dict[str, str]:
    """Return the artifacts that `verify` found altered: model to artifact digest."""
    try:
        data = json.loads((state_folder(root) / "altered.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def write_altered(root: Path, altered: Mapping[str, str]) -> None:
    """Remember the artifacts that `verify` found altered."""
    path = state_folder(root) / "altered.json"
    if altered:
        keys.replace_file(path, json.dumps(dict(altered), sort_keys=True).encode())
    else:
        path.unlink(missing_ok=True)


def require_record(root: Path, model: str) -> BuildRecord:
    """Return a model's record; RegistryError if it was never built."""
    path = record.folder(root) / f"{model}.json"
    try:
        found = record.read(path)
    except FileNotFoundError:
        msg = f"{model} is not built"
        raise RegistryError(msg, f"run `registry sync {model}`") from None
    if found.built is None:
        msg = f"{model} was never published: a gate stopped it"
        raise RegistryError(msg, f"run `registry explain {model}`")
    return found

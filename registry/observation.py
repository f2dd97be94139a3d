"""What the world looks like now, from files only: records, what the store has, what is altered.

Light: `plan` and a sync with nothing to do go no further than this.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from registry import documents, keys, record
from registry.errors import RegistryError
from registry.keys import Artifact
from registry.plan import Observed
from registry.record import BuildRecord, Built, UnreadableRecord
from registry.spec import Ingredient
from registry.store import Store
from registry.sweep import packed

_ENOUGH_BUILDS = 200
"""To tell what a build takes: a tenth of a second to read, and the medians move no more."""


class StoreLookup:
    """Build key to model digest, for what lies complete in the cache; stats only.

    `seen` are the entries that were read, each with its packed stat from before.
    """

    def __init__(self, cache: Path) -> None:
        """Take DVC's cache."""
        self._cache = cache
        self.seen: dict[str, tuple[bytes, Artifact]] = {}

    def get(self, key: str) -> str | None:
        """Return the model digest under a key, None if bytes are missing."""
        try:
            stat = packed((self._cache / keys.relative_path(key)).stat())
        except OSError:
            return None
        artifact = keys.read(self._cache, key)
        if artifact is None or not keys.is_present(self._cache, artifact):
            return None
        self.seen[key] = (stat, artifact)
        return artifact.model_digest


def observe(
    root: Path,
    store: Store,
    tracking_store: str | None,
    *,
    with_push: bool = False,
    models: Iterable[str] | None = None,
) -> Observed:
    """Return what is recorded and present, read from files only; with `models` only of those."""
    recorded = record.read_all(root, models)
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


def weights_bytes(root: Path, one: Ingredient) -> int | None:
    """Return the size of an ingredient's weights: as they lie there, or as its pointer says."""
    folder = root / one.folder
    if folder.is_dir():
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    try:
        document, _ = documents.parse((folder.parent / "weights.dvc").read_bytes(), "weights.dvc")
        assert document is not None
        return int(document.data["outs"][0]["size"])
    except (OSError, AssertionError, LookupError, TypeError, ValueError):
        return None  # no pointer, or one of another form: `sync` complains when it needs it


def builds_before(root: Path, first: Iterable[str]) -> list[Built]:
    """Return some builds that are recorded: those of `first`, then others until they are enough."""
    names = dict.fromkeys(
        [*first, *sorted(path.stem for path in record.folder(root).glob("*.json"))]
    )
    found = record.read_all(root, list(names)[:_ENOUGH_BUILDS])
    return [one.built for one in found.values() if isinstance(one, BuildRecord) and one.built]


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


def require_artifact(store: Store, model: str, built: Built) -> Artifact:
    """Return what the store has of a model that is built; RegistryError if it has not the bytes."""
    found = keys.read(store.cache, built.key)
    if found is None or found.artifact_digest != built.artifact["digest"]:
        msg = f"{model}: its bytes are not in the store"
        raise RegistryError(msg, f"run `registry sync {model}`")
    return found

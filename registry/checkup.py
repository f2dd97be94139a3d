"""Is everything here that a sync needs? One finding per thing, each with what to do."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry import git, tracking_place
from registry.errors import RegistryError
from registry.spec import Catalog
from registry.store import Store

_NEEDED = ("torch", "safetensors", "transformers", "peft", "dvc", "mlflow")
_ROOM_BYTES = 1_000_000_000
"""Free space below which the next build of a small model may already fail."""


@dataclass(frozen=True, slots=True)
class Check:
    """What was found of one thing."""

    subject: str
    text: str
    is_good: bool = True

    def as_data(self) -> dict[str, Any]:
        """Return the plain data of `doctor --format json`."""
        return {"subject": self.subject, "found": self.text, "ok": self.is_good}


def look(root: Path, catalog: Catalog, store: Store) -> Iterator[Check]:
    """Yield one finding per thing that a sync needs."""
    yield _python()
    yield _packages()
    yield Check("git", f"commit {(git.head(root) or 'none yet')[:12]} in {root}")
    yield from _ingredients(root, catalog)
    yield _device()
    yield _disk(store)
    yield _remote(store)
    yield _tracking(root, catalog)


def _python() -> Check:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Check("python", version, is_good=sys.version_info >= (3, 11))


def _packages() -> Check:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        text = f"missing: {', '.join(missing)}; pip install merge-registry"
        return Check("packages", text, is_good=False)
    return Check("packages", ", ".join(_NEEDED))


def _ingredients(root: Path, catalog: Catalog) -> Iterator[Check]:
    count = 0
    for one in catalog.ingredients.values():
        folder = root / one.folder
        if folder.is_dir() or (folder.parent / "weights.dvc").is_file():
            count += 1
        else:
            hint = f"; {one.recover}" if one.recover else ""
            yield Check(one.label, f"its bytes are not at hand{hint}", is_good=False)
    yield Check("ingredients", f"{count} of {len(catalog.ingredients)} at hand or behind a pointer")


def _device() -> Check:
    import subprocess

    # Asked of a child process: the control plane never imports torch.
    code = (
        "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu')"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
        )
    except subprocess.TimeoutExpired:
        return Check("device", "torch did not answer within 2 minutes", is_good=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["torch cannot be imported"]
        return Check("device", last[0], is_good=False)
    return Check("device", done.stdout.strip())


def _disk(store: Store) -> Check:
    folder = store.cache
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    return Check("disk", f"{free / 1e9:.1f} GB free for {store.cache}", is_good=free > _ROOM_BYTES)


def _remote(store: Store) -> Check:
    try:
        name = store.require_remote()
    except RegistryError:
        return Check("remote", "none set: artifacts stay in the cache of this machine")
    problem = store.remote_problem()
    return Check("remote", problem or f"{name} answers", is_good=problem is None)


def _tracking(root: Path, catalog: Catalog) -> Check:
    from registry.tracking import Tracker

    uri = tracking_place.default_uri(root)
    shown = tracking_place.without_secrets(uri)
    try:
        store = Tracker(uri, catalog.settings.experiment).store_id()
    except RegistryError as error:
        return Check("mlflow", f"{shown}: {error.message}", is_good=False)
    tracking_place.remember_store(root, uri, store)
    return Check("mlflow", f"{shown} answers")

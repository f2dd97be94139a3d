"""Where the tracking store is, what was remembered of it, and how its pages are opened.

Light: no MLflow import. Knows no build.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from registry import keys
from registry.tracking_text import VIEW

SQLITE = "sqlite:///"
_CREDENTIALS = re.compile(r"(?<=//)[^/\s@]+@")

CALM = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # Jobs of MLflow's own would take eight more processes and 0.7 GB.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    # Standard output is for our results; MLflow greets there when a run on a server ends.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Environment of every MLflow that we start."""


@dataclass(frozen=True, slots=True)
class Pages:
    """How to look at a tracking store: what to start, if anything, and where to point a browser."""

    url: str
    argv: tuple[str, ...] = ()
    environment: Mapping[str, str] | None = None


def default_uri(root: Path) -> str:
    """Return the tracking store of a repository: the environment's, else a file of its own."""
    given = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    return given or f"{SQLITE}{root.absolute() / '.registry' / 'mlflow.db'}"


def file_of(uri: str) -> Path | None:
    """Return the file that a store is, if it is one; options may follow it in the address."""
    if not uri.startswith(SQLITE):
        return None
    return Path(uri.removeprefix(SQLITE).partition("?")[0]).absolute()


def artifact_folder(uri: str) -> Path | None:
    """Return the folder for artifacts of a store in a file, which lies beside it; else None."""
    file = file_of(uri)
    return file.parent / "mlartifacts" if file else None


def without_secrets(text: str) -> str:
    """Return a text without the credentials that an address may carry."""
    return _CREDENTIALS.sub("", text)


def known_store(root: Path, uri: str) -> str | None:
    """Return the id of the store behind an address as it was last seen, without asking it.

    A store in a file that is gone is no store that was seen.
    """
    if (file := file_of(uri)) and not file.exists():
        return None
    return _memory(root).get(_name(root, uri))


def remember_store(root: Path, uri: str, store: str) -> None:
    """Remember the id of the store behind an address."""
    memory = _memory(root)
    if memory.get(_name(root, uri)) != store:
        memory[_name(root, uri)] = store
        text = json.dumps(memory, indent=1, sort_keys=True) + "\n"
        keys.replace_file(_memory_file(root), text.encode())


def _name(root: Path, uri: str) -> str:
    # Hashed, because an address may carry a password; without the root, so that a repository may
    # be moved.
    address = uri.replace(str(root.absolute()), "")
    return hashlib.sha256(address.encode()).hexdigest()


def _memory_file(root: Path) -> Path:
    return root / ".registry" / "tracking.json"


def _memory(root: Path) -> dict[str, str]:
    try:
        data = json.loads(_memory_file(root).read_bytes())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def ui_command(root: Path, uri: str, port: int = 5000) -> Pages:
    """Return how to look at a store: MLflow's own server on it, or the server that it is."""
    if urlsplit(uri).scheme in {"http", "https"}:
        parts = urlsplit(without_secrets(uri))
        base = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
        return Pages(f"{base}/#/models?{VIEW}")
    folder = artifact_folder(uri) or root.absolute() / ".registry" / "mlartifacts"
    argv = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    argv += ["--default-artifact-root", str(folder)]
    argv += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return Pages(f"http://127.0.0.1:{port}/#/models?{VIEW}", tuple(argv), CALM)

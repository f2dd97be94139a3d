"""Addresses of the pages for people. Pure; names that no page can have get no address."""

from __future__ import annotations

import re
from urllib.parse import quote, urlencode

from registry.lineage import Node

NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"
"""Of models and ingredients."""

COMMIT = r"^[0-9a-f]{40}([0-9a-f]{24})?$"

FOLDERS = {"adapter": "adapters", "checkpoint": "checkpoints", "base": "bases", "merge": "models"}


def is_for_people(path: str) -> bool:
    """Return whether a path is one of a page, or of what belongs to a page."""
    return path.split("/")[1] in ("", "live", "ingredients", "jobs", "static", *FOLDERS.values())


def of_node(node: Node) -> str | None:
    """Return the address of the page of a node of a graph."""
    return of(node.kind, node.name, node.version)


def of(kind: str, name: str, version: int | None = None) -> str | None:
    """Return the address of the page of a model or an ingredient."""
    has_version = kind in ("adapter", "checkpoint")
    if kind not in FOLDERS or not re.fullmatch(NAME, name):
        return None
    if has_version and (not isinstance(version, int) or version < 1):
        return None
    return f"/{FOLDERS[kind]}/{name}" + (f"/{version}" if has_version else "")


def of_model(name: str) -> str:
    """Return the address of a model's page."""
    return f"/models/{quote(name, safe='')}"


def of_difference(model: str, old: str, new: str) -> str:
    """Return the address of what changed in a model between two commits."""
    return f"{of_model(model)}/diff?{urlencode({'from': old, 'to': new})}"


def of_job(number: int) -> str:
    """Return the address of a job's page."""
    return f"/jobs/{number}"

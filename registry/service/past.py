"""What a model was: the commits of the branch that changed its record, and two of them compared.

Reads Git; runs in a child of the service (see `reading`). Knows nothing of what is declared.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from registry import git, record
from registry.record import BuildRecord, UnreadableRecord
from schemas.expression import expression

_HISTORY = 50
"""Versions of a model that its page shows."""

Data = dict[str, Any]


def history(root: Path, name: str) -> list[Data]:
    """Return the versions of a model on the branch, the newest first: its record, by commits."""
    commits = git.history(root, file_of(name), _HISTORY)
    blobs = git.read_blobs(root, (one.blob for one in commits if one.blob))
    return [_version(one, blobs.get(one.blob or ""), name) for one in commits]


def _version(commit: git.Commit, content: bytes | None, name: str) -> Data:
    data: Data = {
        "commit": commit.id,
        "at": commit.at,
        "author": commit.author,
        "subject": commit.subject,
        "expression": None,
        "model_digest": None,
        "metrics": {},
        "is_removed": content is None,
    }
    known = _parsed(content, name)
    if known and known.built:
        request = known.built.request
        data["expression"] = expression(request["base"]["name"], request["recipe"])
        data["model_digest"] = known.built.model_digest
    if known and known.evaluation:
        data["metrics"] = dict(known.evaluation.metrics)
    return data


def _parsed(content: bytes | None, name: str) -> BuildRecord | None:
    """Return a record of any age, by whomever; None if it is not all there or makes no sense."""
    try:
        return None if content is None else record.parse(content, name)
    except UnreadableRecord:
        return None


def difference(root: Path, name: str, old: str, new: str) -> Data | None:
    """Return what changed in a model between two commits of the branch; None if one is not."""
    if not all(git.is_ancestor(root, commit, "HEAD") for commit in (old, new)):
        return None
    records = [_at(root, name, commit) for commit in (old, new)]
    requests = [one.built.request if one and one.built else None for one in records]
    before, after = requests
    metrics = [dict(one.evaluation.metrics) if one and one.evaluation else {} for one in records]
    return {
        "commits": [old, new],
        "expressions": [
            expression(one["base"]["name"], one["recipe"]) if one else None for one in requests
        ],
        "digests": [one.built.model_digest if one and one.built else None for one in records],
        "metrics": metrics,
        "changes": differences(before, after) if before and after else [],
    }


def _at(root: Path, name: str, commit: str) -> BuildRecord | None:
    """Return the record of a model at a commit, None if there was none that can be read."""
    file = file_of(name)
    listed = git.tree_files(root, commit, file)
    if file not in listed:
        return None
    blob = listed[file][1]
    return _parsed(git.read_blobs(root, [blob])[blob], name)


def file_of(name: str) -> str:
    """Return where the record of a model lies, from the root."""
    return f"catalog/builds/{name}.json"


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Data]:
    """Return where two build requests differ."""
    return [
        {"field": one.field, "old": one.old, "new": one.new, "is_input": one.is_input}
        for one in record.compare(old, new)
    ]

"""The catalog of the clone with its plan, as one value. Knows neither HTTP nor when it is read."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry import git, report
from registry.cli.session import open_session
from registry.plan import Options, Plan
from registry.record import BuildRecord


@dataclass(frozen=True, slots=True)
class View:
    """What is declared and built at a commit.

    `rows` are those of `registry status --format json`, by model. `is_ahead` says that the clone
    has records which the branch does not have.
    """

    commit: str
    plan: Plan
    digest: str
    rows: Mapping[str, Mapping[str, Any]]
    upstream: Mapping[str, Collection[str]]
    is_ahead: bool


def read(root: Path, branch: str, *, with_push: bool) -> View:
    """Return the view of a clone; raises InvalidCatalog."""
    session = open_session(root)
    plan = session.plan(Options(), with_push=with_push)
    _, live = session.status()
    rows = {row["model"]: finite(row) for row in report.status_rows(plan, live)}
    commit = git.resolve(root, "HEAD")
    is_ahead = commit != git.remote_head(root, branch) or bool(git.status(root, "catalog/builds"))
    return View(commit, plan, plan.digest, rows, session.upstream, is_ahead)


def finite(data: Any) -> Any:
    """Return plain data without NaN and infinities, which JSON does not have."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return data


@dataclass(frozen=True, slots=True)
class Requests:
    """The build request of every model, as built or else as declared; digests of what is built."""

    requests: Mapping[str, Mapping[str, Any]]
    digests: Mapping[str, str]


def read_requests(root: Path) -> Requests:
    """Return all requests, for questions about lineage: reads the whole catalog."""
    session = open_session(root)
    requests = {one.model: one.request for one in session.declared.values()}
    digests = {}
    for name, one in session.observed().recorded.items():
        if isinstance(one, BuildRecord) and one.built:
            requests[name] = one.built.request
            digests[name] = one.built.model_digest
    return Requests(requests, digests)

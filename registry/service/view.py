"""The catalog of the clone with its plan, as one value. Knows neither HTTP nor when it is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from registry import git
from registry.plan import Action, Change, Plan, Reason
from registry.service import reading
from registry.service.place import Place


@dataclass(frozen=True, slots=True)
class View:
    """What is declared and built at a commit.

    `rows` are those of `registry status --format json`, by model; `upstream` has the merges that a
    model is made of, where there are any. `is_ahead` says that the clone has records which the
    branch does not have.
    """

    commit: str
    plan: Plan
    digest: str
    rows: Mapping[str, Mapping[str, Any]]
    upstream: Mapping[str, Collection[str]]
    is_ahead: bool


def read(place: Place, *, with_push: bool) -> View:
    """Return the view of the clone; raises reading.Invalid."""
    root = place.clone
    commit = git.resolve(root, "HEAD")
    told = reading.ask("view", root, "push" if with_push else "")
    is_pushed = commit == git.remote_head(root, place.branch)
    is_ahead = not is_pushed or bool(git.status(root, "catalog/builds"))
    plan = Plan(tuple(_change(one) for one in told["plan"]["changes"]))
    rows = {row["model"]: row for row in told["rows"]}
    return View(commit, plan, told["plan"]["digest"], rows, told["upstream"], is_ahead)


def _change(data: Mapping[str, Any]) -> Change:
    reasons = tuple(Reason(**one) for one in data["reasons"])
    return Change(data["model"], Action(data["action"]), reasons, data.get("key"))

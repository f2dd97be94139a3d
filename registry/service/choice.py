"""Which models are due, and how each one stands: a plan against what failed or is suspended. Pure.

A model that failed is left alone until its change is another one: another build key, another suite.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from hashlib import sha256
from typing import Any

from registry.plan import Action, Change
from registry.service.memory import Attempt, Memory
from schemas import canonical

_LATER = 75


class Standing(Enum):
    """How a model stands."""

    CURRENT = "up-to-date"
    DUE = "due"
    FAILED = "failed"
    BLOCKED = "blocked"
    """It is made of a model that failed or is suspended."""
    SUSPENDED = "suspended"
    REVOKED = "revoked"
    UNDECLARED = "undeclared"


def identity(change: Change) -> str:
    """Return what a change does: what has the same identity fails again where it failed.

    A build is its key, whatever the reason for it; an evaluation is its suite and gates too, which
    its reasons name.
    """
    if change.action in (Action.BUILD, Action.RESTORE):
        return f"build {change.key}"
    return f"{change.action.value} sha256:{_digest(change)}"


def _digest(change: Change) -> str:
    return sha256(canonical.canonical(change.as_data())).hexdigest()


@dataclass(frozen=True, slots=True)
class Survey:
    """How every model stands, and those that are held: no sync may touch them.

    A sync takes up all that a model is made of, so what is made of one that is held is held too.
    """

    standings: Mapping[str, Standing]
    held: Collection[str]

    @property
    def due(self) -> tuple[str, ...]:
        """The models that a sync may take up now."""
        return tuple(model for model, one in self.standings.items() if one is Standing.DUE)

    def selection(self, *, is_ahead: bool) -> tuple[str, ...] | None:
        """Return the models to name to a sync: nothing for all of them, None if there is no need.

        With `is_ahead` there are records to commit, which a sync of any model does.
        """
        due = self.due
        if not due and not is_ahead:
            return None
        if not self.held:
            return ()
        idle = [model for model in self.standings if model not in self.held]
        return due or tuple(idle[:1]) or None


def survey(
    changes: Iterable[Change], upstream: Mapping[str, Collection[str]], memory: Memory
) -> Survey:
    """Return how every model of a plan stands. The changes come in the plan's order."""
    found: dict[str, Standing] = {}
    held: set[str] = set()
    for change in changes:
        standing = _standing(change, memory)
        is_on_held = not held.isdisjoint(upstream.get(change.model, ()))
        if standing is Standing.DUE and is_on_held:
            standing = Standing.BLOCKED
        found[change.model] = standing
        # What has nothing to do itself keeps what is live of it.
        if is_on_held or (change.action is not Action.NONE and standing is not Standing.DUE):
            held.add(change.model)
    return Survey(found, held)


def _standing(change: Change, memory: Memory) -> Standing:
    kinds = {reason.kind for reason in change.reasons}
    if change.model in memory.suspended_models:
        return Standing.SUSPENDED
    if change.action is not Action.NONE:
        is_known = memory.failed.get(change.model) == identity(change)
        return Standing.FAILED if is_known else Standing.DUE
    if "suspended" in kinds:
        # With a field, the plan names a merge of this one that nothing is live of.
        is_own = all(not reason.field for reason in change.reasons)
        return Standing.SUSPENDED if is_own else Standing.BLOCKED
    return next((one for kind, one in _IDLE.items() if kind in kinds), Standing.CURRENT)


_IDLE = {
    "gate-failed-before": Standing.FAILED,
    "revoked": Standing.REVOKED,
    "undeclared": Standing.UNDECLARED,
}


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that came to its end: its number, the commit it worked on, when it ended."""

    job: int
    commit: str
    at: float


def learnt(
    memory: Memory, results: Iterable[Mapping[str, Any]], after: Iterable[Change], ended: Ended
) -> Memory:
    """Return the memory after a job: `results` are those of `sync --format json`.

    `after` is the plan when the job had ended: it knows the key of what was built of models that
    had to be built first.
    """
    changes = {change.model: change for change in after}
    failed = dict(memory.failed)
    for one in results:
        model, code = one["model"], one["exit_code"]
        failed.pop(model, None)
        change = changes.get(model)
        is_own = code not in (0, _LATER) and one["action"] != Action.MAYBE.value
        if is_own and change and change.action is not Action.NONE:
            failed[model] = identity(change)
        is_left = change is not None and change.action.value == one["action"]
        memory = memory.attempted(model, _attempt(one, ended, is_left=is_left))
    return replace(
        memory,
        failed={model: key for model, key in failed.items() if model in changes},
        attempts={model: some for model, some in memory.attempts.items() if model in changes},
        synced_at=ended.at,
    )


def _attempt(one: Mapping[str, Any], ended: Ended, *, is_left: bool) -> Attempt:
    outcome = {0: "done", _LATER: "later"}.get(one["exit_code"], "failed")
    if outcome == "done" and is_left:
        outcome = "later"  # MLflow did not answer, which fails nothing
    return Attempt(
        job=ended.job,
        commit=ended.commit,
        action=one["action"],
        outcome=outcome,
        message=one["problem"] or one["note"],
        hint=one["hint"],
        first=ended.at,
        last=ended.at,
    )

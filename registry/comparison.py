"""The plan of a pull request: what changed between two catalogs, and nothing else. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from registry import plan
from registry.plan import Action, Change, Observed, Plan, gates_data
from registry.record import BuildRecord, Built, Evaluation, Logged
from registry.request import Declaration, key_of

_HERE = "compared"


def plan_since(
    before: Mapping[str, Declaration], now: Mapping[str, Declaration], others: Iterable[str] = ()
) -> Plan:
    """Return the plan as if everything declared before were built, stored and logged.

    What is removed since then is shown as `none` with the reason `undeclared`. `others` are models
    of which nothing changed; they come last.
    """
    digests: dict[str, str] = {}
    recorded = {}
    for model, one in before.items():
        # Any digest will do for what was built before, as long as equal requests have equal ones.
        request = one.pin({name: digests[name] for name in one.upstream})
        key = key_of(request)
        digests[model] = key
        recorded[model] = _built(one, request, key)
    present = {built.key: built.model_digest for one in recorded.values() if (built := one.built)}
    made = plan.make(now, Observed(recorded, present, tracking_store=_HERE))
    changes = [_without_store(change) for change in made.changes]
    return Plan((*changes, *(Change(model, Action.NONE) for model in others)))


def _built(one: Declaration, request: Mapping[str, Any], key: str) -> BuildRecord:
    built = Built(key, request, key, {"digest": key, "files": {}}, {}, "", 0.0, 0)
    evaluation = None
    if wanted := one.evaluation(key):
        evaluation = Evaluation(key_of(wanted), wanted, {}, gates_data(one.gates))
    return BuildRecord(one.model, built, evaluation, Logged(_HERE, "", ""))


def _without_store(change: Change) -> Change:
    # Which bytes some store has is not part of what a pull request changes.
    if change.action is Action.RESTORE:
        return Change(change.model, Action.BUILD, change.reasons, change.key)
    return change

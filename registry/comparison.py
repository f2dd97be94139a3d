"""What changed between two catalogs, and nothing else: the plan, and the ingredients. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from registry import plan
from registry.containment import Containment, Path, containments
from registry.lineage import Known, everything
from registry.plan import Action, Change, Observed, Plan, gates_data
from registry.record import BuildRecord, Built, Evaluation, Logged
from registry.request import Declaration, key_of
from registry.spec import Catalog, Ingredient, IngredientId, label
from schemas.expression import number

_HERE = "compared"
_WAYS = 3
"""Ways to an ingredient that are told one by one."""


@dataclass(frozen=True, slots=True)
class Use:
    """A model that contains an ingredient, and how: `−0.5`, or `+0.4 by way of polite-notes`."""

    model: str
    how: str


@dataclass(frozen=True, slots=True)
class Affected:
    """An ingredient that changed, what changed of it, and every model that contains it now."""

    label: str
    change: str
    users: tuple[Use, ...] = ()


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


def affected(
    before: Catalog, now: Catalog, declared: Iterable[Declaration]
) -> tuple[Affected, ...]:
    """Return the ingredients that are not what they were, with all models that contain them.

    `declared` are the declarations of `now`, of all models that may contain one of them.
    """
    changed = dict(_changed(before, now))
    if not changed:
        return ()
    users = _users(declared)
    return tuple(
        Affected(label(*one), _told(one, change, users), tuple(_uses(users.get(one, {}))))
        for one, change in sorted(changed.items(), key=lambda pair: label(*pair[0]))
    )


_Users = Mapping[IngredientId, Mapping[str, Containment]]


def _changed(before: Catalog, now: Catalog) -> Iterator[tuple[IngredientId, str]]:
    for one in now.ingredients.values():
        was = before.ingredients.get(one.id)
        if change := "added" if was is None else _change(was, one):
            yield one.id, change
    for one_id in before.ingredients.keys() - now.ingredients.keys():
        yield one_id, "removed"


def _change(was: Ingredient, one: Ingredient) -> str:
    """Return what changed of an ingredient that concerns models; nothing if nothing did."""
    parts = []
    if one.revoked != was.revoked:
        parts.append(f"revoked: {one.revoked}" if one.revoked else "no longer revoked")
    for name in ("digest", "base"):
        old, new = getattr(was, name), getattr(one, name)
        if old != new:
            parts.append(f"{name} {old} -> {new}")
    return "; ".join(parts)


def _users(declared: Iterable[Declaration]) -> _Users:
    graph = everything(Known({one.model: one.request for one in declared}))
    return {
        node.id: {whole.name: one for whole, one in containments(graph, node).items()}
        for node in graph.nodes
        if node.kind != "merge"
    }


def _told(one: IngredientId, change: str, users: _Users) -> str:
    """Return the change; of a new version also how many models do not use it yet."""
    kind, name, _ = one
    others = [found for other, found in users.items() if other[:2] == (kind, name)]
    waiting = {model for found in others for model in found} - users.get(one, {}).keys()
    if change != "added" or not waiting:
        return change
    has = "model has" if len(waiting) == 1 else "models have"
    return f"added; {len(waiting)} {has} another version"


def _uses(found: Mapping[str, Containment]) -> Iterator[Use]:
    for model, one in sorted(found.items()):
        ways = [_way(path) for path in one.paths[:_WAYS]]
        if one.count > len(ways):
            ways.append(f"{one.count - len(ways)} more")
        yield Use(model, " and ".join(ways))


def _way(path: Path) -> str:
    how = "as its base" if path.edges[-1].part.kind == "base" else path.sign
    if (weight := path.weight) is not None:
        how = f"{'−' if weight < 0 else '+'}{number(abs(weight))}"
    inner = path.names[1:-1]
    return f"{how} by way of {' > '.join(inner)}" if inner else how

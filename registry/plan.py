"""The plan: what is declared against what is recorded and present, as ordered changes with reasons.

Pure: values in, a value out. It decides and never builds; whoever carries it out never decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

from registry.record import BuildRecord, UnreadableRecord, compare
from registry.request import Declaration, key_of
from registry.spec import Gate
from schemas import canonical

FORMAT_VERSION = 1


class Action(Enum):
    """What is done with a model."""

    BUILD = "build"
    MAYBE = "maybe"
    RESTORE = "restore"
    EVALUATE = "evaluate"
    JUDGE = "judge"
    LOG = "log"
    PUSH = "push"
    UNPUBLISH = "unpublish"
    PRUNE = "prune"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why: the kind, and where it applies the field with its old and new value."""

    kind: str
    field: str = ""
    old: Any = None
    new: Any = None

    def as_data(self) -> dict[str, Any]:
        """Return the plain data of `plan --format json`."""
        return {"kind": self.kind, "field": self.field, "old": self.old, "new": self.new}


@dataclass(frozen=True, slots=True)
class Change:
    """One row of a plan. `key` is the build key if it is known before anything is built."""

    model: str
    action: Action
    reasons: tuple[Reason, ...] = ()
    key: str | None = None

    @property
    def is_pending(self) -> bool:
        """Whether `--detailed-exitcode` counts it: log and push alone do not."""
        return self.action not in (Action.NONE, Action.LOG, Action.PUSH)

    def as_data(self) -> dict[str, Any]:
        """Return the plain data of `plan --format json`."""
        reasons = [reason.as_data() for reason in self.reasons]
        key = {"key": self.key} if self.key else {}
        return {"model": self.model, "action": self.action.value, "reasons": reasons, **key}


@dataclass(frozen=True, slots=True)
class Plan:
    """All changes, each after those that it depends on."""

    changes: tuple[Change, ...]

    @property
    def digest(self) -> str:
        """Digest of the changes: two plans with the same digest do the same."""
        rows = b",".join([_canonical(change) for change in self.changes])
        return "sha256:" + sha256(b"[" + rows + b"]").hexdigest()

    @property
    def summary(self) -> dict[str, int]:
        """Number of changes by action; every action is there."""
        counts = Counter([change.action for change in self.changes])
        return {action.value: counts[action] for action in Action}

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return all(change.action is Action.NONE for change in self.changes)

    def as_data(self) -> dict[str, Any]:
        """Return the plain data of `plan --format json`."""
        return {
            "format_version": FORMAT_VERSION,
            "digest": self.digest,
            "changes": [change.as_data() for change in self.changes],
            "summary": self.summary,
        }

    def narrowed(self, models: Collection[str]) -> Plan:
        """Return the plan of these models only."""
        return Plan(tuple(change for change in self.changes if change.model in models))


def _canonical(change: Change) -> bytes:
    """Return the canonical JSON of a change."""
    if change.reasons:
        return canonical.canonical(change.as_data())
    # Most are of this form, which says it thirty times faster: names and keys need no escapes.
    key = f'"key":"{change.key}",' if change.key else ""
    text = f'{{"action":"{change.action.value}",{key}"model":"{change.model}","reasons":[]}}'
    return text.encode()


class Lookup(Protocol):
    """The store's index: build key to the model digest of what is present; a dict will do."""

    def get(self, key: str, /) -> str | None:
        """Return the model digest under this key, None if its bytes are not at hand."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What the world looks like, without the declarations.

    `altered` are models whose artifact `verify` found changed, `tracking_store` the id of the
    configured tracking store if one was ever seen, `unpushed` the models that the remote lacks
    (empty unless pushing is asked for).
    """

    recorded: Mapping[str, BuildRecord | UnreadableRecord]
    present: Lookup
    altered: Collection[str] = ()
    tracking_store: str | None = None
    unpushed: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller asks for beyond the declarations."""

    prune: bool = False
    rebuild: Collection[str] = ()


@dataclass(slots=True)
class _State:
    """What is known while the models are visited in order."""

    digests: dict[str, str] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)
    blocked: set[str] = field(default_factory=set)


class Settled(NamedTuple):
    """A model whose artifact and evaluation are what is declared, as an earlier plan found.

    `store` is the tracking store that its record names, if any.
    """

    key: str
    model_digest: str
    store: str | None


def make(
    declared: Mapping[str, Declaration | Settled],
    observed: Observed,
    options: Options | None = None,
) -> Plan:
    """Return the plan. `declared` holds every model after those that it is made of.

    Nothing is asked about settled models but where they are logged and pushed: none of them may be
    among `observed.altered` or `options.rebuild`.
    """
    wanted = options or Options()
    state = _State()
    changes = [
        _settled(model, one, observed, state)
        if isinstance(one, Settled)
        else _change(one, observed, wanted, state)
        for model, one in declared.items()
    ]
    for model in sorted(observed.recorded.keys() - declared.keys()):
        action = Action.PRUNE if wanted.prune else Action.NONE
        changes.append(Change(model, action, (Reason("undeclared"),)))
    return Plan(tuple(changes))


def is_settled(change: Change) -> bool:
    """Return whether a plan found artifact and evaluation of a model to be what is declared."""
    kinds = {reason.kind for reason in change.reasons}
    return change.key is not None and kinds <= {"not-logged", "not-pushed"}


def _settled(model: str, one: Settled, observed: Observed, state: _State) -> Change:
    state.digests[model] = one.model_digest
    rows = _publishing(model, one.store, observed)
    if not rows:
        return Change(model, Action.NONE, (), one.key)
    return Change(model, rows[0][0], tuple(reason for _, reason in rows), one.key)


def _change(one: Declaration, observed: Observed, options: Options, state: _State) -> Change:
    record = observed.recorded.get(one.model)
    readable = record if isinstance(record, BuildRecord) else None
    held = _held_back(one, readable, state)
    if held:
        return held
    if waits := [name for name in one.upstream if name in state.waiting]:
        state.waiting.add(one.model)
        reasons = tuple(Reason("input-changed", f"merge {name}") for name in waits)
        return Change(one.model, Action.MAYBE, reasons)
    request = one.pin(state.digests)
    key = key_of(request)
    present = observed.present.get(key)
    reasons = _build_reasons(one, record, request, key, present, observed, options)
    if not reasons:
        assert readable is not None
        assert readable.built is not None
        state.digests[one.model] = readable.built.model_digest
        return _after_build(one, readable, key, observed)
    if readable and _rejected_before(one, readable, key):
        _keep_live(one, readable, state)
        return Change(one.model, Action.NONE, (_stopped(readable),), key)
    is_forced = one.model in options.rebuild or one.model in observed.altered
    if present is not None and not is_forced:
        # A gate may still refuse it, so what depends on it waits to see what is published.
        if one.gates:
            state.waiting.add(one.model)
        else:
            state.digests[one.model] = present
        return Change(one.model, Action.RESTORE, reasons, key)
    state.waiting.add(one.model)
    return Change(one.model, Action.BUILD, reasons, key)


def _held_back(one: Declaration, record: BuildRecord | None, state: _State) -> Change | None:
    """Return the row of a model that is left alone: revoked, suspended, or made of such a one."""
    if one.revoked:
        state.blocked.add(one.model)
        is_published = record is not None and bool(record.built or record.mlflow)
        action = Action.UNPUBLISH if is_published else Action.NONE
        return Change(one.model, action, (Reason("revoked", new=one.revoked),))
    if one.suspend:
        _keep_live(one, record, state)
        return Change(one.model, Action.NONE, (Reason("suspended", new=one.suspend),))
    if blocked := [name for name in one.upstream if name in state.blocked]:
        _keep_live(one, record, state)
        reasons = tuple(Reason("suspended", f"merge {name}") for name in blocked)
        return Change(one.model, Action.NONE, reasons)
    return None


def _keep_live(one: Declaration, record: BuildRecord | None, state: _State) -> None:
    """Let what is published go on serving the models made of it; block them if nothing is."""
    if record is not None and record.built is not None:
        state.digests[one.model] = record.built.model_digest
    else:
        state.blocked.add(one.model)


def _build_reasons(
    one: Declaration,
    record: BuildRecord | UnreadableRecord | None,
    request: Mapping[str, Any],
    key: str,
    present: str | None,
    observed: Observed,
    options: Options,
) -> tuple[Reason, ...]:
    """Return why the artifact must be made again; nothing if it is what is declared."""
    if isinstance(record, UnreadableRecord):
        return (Reason("record-unreadable", new=record.message),)
    if record is None or record.built is None:
        return (Reason("never-built"),)
    built = record.built
    if built.key != key:
        return tuple(_changed(built.request, request))
    if one.model in options.rebuild:
        return (Reason("rebuild-requested"),)
    if one.model in observed.altered:
        return (Reason("artifact-altered"),)
    if present is None:
        return (Reason("artifact-missing"),)
    return ()


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Reason]:
    reasons = []
    for one in compare(old, new):
        kind = "input-changed" if one.is_input else "recipe-changed"
        if one.field == "numerics":
            kind = "numerics-changed"
        reasons.append(Reason(kind, one.field, one.old, one.new))
    return reasons


def _rejected_before(one: Declaration, record: BuildRecord, key: str) -> bool:
    """Return whether a gate stopped exactly this attempt already."""
    rejected = record.rejected
    if rejected is None or rejected.key != key or rejected.gates != gates_data(one.gates):
        return False
    request = one.evaluation(rejected.model_digest)
    return request is not None and rejected.evaluation_key == key_of(request)


def _stopped(record: BuildRecord) -> Reason:
    """Return why an attempt is not made again: by how much it failed."""
    assert record.rejected is not None
    failed = [str(one["text"]) for one in record.rejected.verdicts if not one["passed"]]
    return Reason("gate-failed-before", "; ".join(failed))


def gates_data(gates: Mapping[str, Gate]) -> dict[str, dict[str, float]]:
    """Return declared gates as the plain data of a record."""
    return {task: gate.as_data() for task, gate in gates.items()}


def _after_build(one: Declaration, record: BuildRecord, key: str, observed: Observed) -> Change:
    """Return the row of a model whose artifact is right: evaluate, judge, log, push or nothing."""
    assert record.built is not None
    rows: list[tuple[Action, Reason]] = []
    wanted = one.evaluation(record.built.model_digest)
    have = record.evaluation
    if _rejected_before(one, record, key):
        rows.append((Action.NONE, _stopped(record)))
    elif wanted is not None and (have is None or have.key != key_of(wanted)):
        old = have.request["suite"]["digest"] if have else None
        reason = Reason("suite-changed", f"suite {one.suite}", old, wanted["suite"]["digest"])
        rows.append((Action.EVALUATE, reason))
    elif wanted is not None and have is not None and have.gates != gates_data(one.gates):
        reason = Reason("gate-changed", "evaluation.gates", have.gates, gates_data(one.gates))
        rows.append((Action.JUDGE, reason))
    rows += _publishing(one.model, record.mlflow.store if record.mlflow else None, observed)
    action = rows[0][0] if rows else Action.NONE
    return Change(one.model, action, tuple(reason for _, reason in rows), key)


def _publishing(model: str, store: str | None, observed: Observed) -> list[tuple[Action, Reason]]:
    rows = []
    if store is None or store != observed.tracking_store:
        rows.append((Action.LOG, Reason("not-logged")))
    if model in observed.unpushed:
        rows.append((Action.PUSH, Reason("not-pushed")))
    return rows

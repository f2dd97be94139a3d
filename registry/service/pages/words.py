"""States, reasons and conditions in words that need no manual. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from registry import report
from registry.plan import Reason

URGENCY = ("failed", "revoked", "blocked", "due", "suspended", "undeclared", "up-to-date")
"""States of models, those first that somebody should look at."""

STATES: Mapping[str, tuple[str, str]] = {
    "failed": (
        "✗",
        "failed: not tried again until its recipe, an ingredient, its suite or a gate changes",
    ),
    "revoked": ("⊘", "revoked: it contains something that was taken back"),
    "blocked": ("‖", "blocked: it is made of a model that failed or is suspended"),
    "due": ("→", "due: the next sync takes it up"),
    "suspended": ("‖", "suspended: left alone until somebody resumes it"),
    "undeclared": ("?", "undeclared: kept, though no merge spec declares it any more"),
    "up-to-date": ("✓", "up to date: what is declared is what is live"),
}
"""A sign that needs no colour, and what the state means."""

ACTIONS: Mapping[str, str] = {
    "build": "build it",
    "maybe": "see whether it must be built, after what it is made of",
    "restore": "restore it from the store, without building",
    "evaluate": "measure it",
    "judge": "judge its gates again",
    "log": "log it in MLflow",
    "push": "push its files to the remote",
    "unpublish": "take it back",
    "prune": "remove it",
}
"""What the next sync will do."""

_REASONS: Mapping[str, str] = {
    "never-built": "it was never built",
    "recipe-changed": "the recipe changed",
    "input-changed": "something that it is made of changed",
    "numerics-changed": "the merger computes other numbers now",
    "suite-changed": "what it is measured on changed",
    "gate-changed": "its gates changed",
    "artifact-missing": "its files are not in the store",
    "artifact-altered": "its files in the store were altered",
    "not-logged": "MLflow was not told of it yet",
    "not-pushed": "its files are not in the remote yet",
    "undeclared": "no merge spec declares it any more",
    "revoked": "it contains something revoked",
    "suspended": "it is suspended",
    "record-unreadable": "its record cannot be read",
    "gate-failed-before": "a gate stopped it",
    "rebuild-requested": "somebody asked for a new build",
}

_ADVICE: Mapping[str, str] = {
    "BranchRewritten": "Look at the branch; to follow it as it is now, resume the service.",
    "Unsigned": "Sign the last commit of the branch with a key that the service trusts.",
    "InvalidCatalog": "Correct the catalog and push; registry validate shows the same problems.",
    "SyncRefused": "Do what the message says; then push, or ask for a sync.",
    "Bug": "The log of the job and of the service have more; ask for a sync to try again.",
    "Unreachable": "The service goes on trying; what is shown was read before.",
    "NotRead": "The service goes on trying; what is shown was read before.",
    "ModelsFailed": "Their pages say why.",
    "Suspended": "Nothing is synced until somebody resumes the service.",
    "Standby": "This instance takes over when the other one ends.",
}


def reasons(some: Sequence[Reason]) -> str:
    """Return reasons as sentences, those of one kind as one: kind in words, field, old → new."""
    found: dict[str, list[str]] = {}
    for one in some:
        detail = report.detail_text(one).replace(" -> ", " → ")
        found.setdefault(_REASONS.get(one.kind, one.kind), []).append(detail)
    return " ".join(_of_kind(kind, details) for kind, details in found.items())


def _of_kind(kind: str, details: Sequence[str]) -> str:
    told = "; ".join(one for one in details if one)
    return sentence(f"{kind}: {told}" if told else kind)


def advice(name: str) -> str:
    """Return what to do about a condition's reason, nothing if there is nothing."""
    return _ADVICE.get(name, "")


def sentence(text: str) -> str:
    """Return text that begins and ends as a sentence does."""
    whole = text.strip()
    if not whole:
        return ""
    return whole[0].upper() + whole[1:] + ("" if whole[-1] in ".!?…" else ".")


def count(many: int, what: str) -> str:
    """Return a number of things: `1 model`, `3 models`."""
    return f"{many} {what}{'' if many == 1 else 's'}"


def number(value: Any) -> str:
    """Return a number of a measurement; what is none is a dash."""
    if not isinstance(value, int | float):
        return "–"
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def metrics(found: Mapping[str, Any]) -> str:
    """Return metrics on one line: `sql 0.88, control 1`."""
    return ", ".join(f"{task} {number(value)}" for task, value in found.items()) or "–"


def seconds(amount: float) -> str:
    """Return a duration: `4.2 s`, `3 min 20 s`, `2 h 5 min`."""
    if amount < 60:
        return f"{amount:.2g} s" if amount < 10 else f"{amount:.0f} s"
    minutes, rest = divmod(round(amount), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"

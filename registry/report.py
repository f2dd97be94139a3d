"""Plans, problems and results as text, JSON or Markdown. Computes none of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from registry.errors import Problem
from registry.plan import Action, Change, Plan, Reason
from registry.record import BuildRecord, UnreadableRecord
from schemas.expression import expression, number
from schemas.schedule import Scheduled

FORMAT_VERSION = 1


def as_json(data: Mapping[str, Any]) -> str:
    """Return data as JSON for scripts, with the format's version first."""
    return json.dumps({"format_version": FORMAT_VERSION, **data}, indent=2, ensure_ascii=False)


def short(digest: str) -> str:
    """Return the first twelve hex digits of a digest, with its prefix."""
    return digest[:19] + "…" if digest else "-"


def value_text(value: Any) -> str:
    """Return a value of a reason as people read it."""
    if value is None:
        return "none"
    if isinstance(value, str):
        return short(value) if value.startswith("sha256:") else value
    if isinstance(value, float):
        return number(value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def reason_text(reason: Reason) -> str:
    """Return a reason on one line: `recipe-changed: recipe.method linear -> ties`."""
    detail = detail_text(reason)
    return f"{reason.kind}: {detail}" if detail else reason.kind


def detail_text(reason: Reason) -> str:
    """Return what a reason is about: `recipe.method linear -> ties`; maybe nothing."""
    if reason.old is not None or (reason.new is not None and reason.field):
        return f"{reason.field} {value_text(reason.old)} -> {value_text(reason.new)}"
    return reason.field or (value_text(reason.new) if reason.new is not None else "")


def notes(change: Change) -> list[str]:
    """Return the reasons of a change, each on one line."""
    lines = [reason_text(reason) for reason in change.reasons]
    is_kept = change.action is Action.NONE and lines == ["undeclared"]
    return ["undeclared (kept; pass --prune to remove)"] if is_kept else lines


def _notes(change: Change) -> str:
    return "; ".join(notes(change))


def plan_text(plan: Plan, *, with_idle: bool = False) -> str:
    """Return a plan as lines: the name first, the reason last, the sum at the end."""
    rows = [
        (
            change.model,
            "kept" if change.action is Action.NONE else change.action.value,
            _notes(change),
        )
        for change in plan.changes
        if change.action is not Action.NONE or change.reasons or with_idle
    ]
    return "\n".join([*table(rows), f"plan {short(plan.digest)}  {summary_text(plan)}"])


def summary_text(plan: Plan) -> str:
    """Return the counts of a plan, also when there is nothing to do."""
    counts = [
        f"{count} to {name}"
        for name, count in plan.summary.items()
        if count and name not in ("none", "maybe")
    ]
    if waiting := plan.summary["maybe"]:
        counts.append(f"{waiting} to see after that")
    idle = [change for change in plan.changes if change.action is Action.NONE]
    kept = sum(bool(change.reasons) for change in idle)
    counts += [f"{kept} kept"] if kept else []
    done = len(idle) - kept
    text = ", ".join([*counts, f"{done} up to date"])
    return text if not plan.is_empty else f"nothing to do: {text}"


def table(rows: Iterable[Sequence[str]], *, head: Sequence[str] = ()) -> Iterator[str]:
    """Yield rows with columns of equal width; the last column is as long as it is."""
    every = [tuple(head), *map(tuple, rows)] if head else [tuple(row) for row in rows]
    if not every:
        return
    widths = [max(len(row[column]) for row in every) for column in range(len(every[0]))]
    for row in every:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        yield "  ".join([*cells, row[-1]]).rstrip()


def problems_text(problems: Iterable[Problem]) -> str:
    """Return problems as lines, each with its hint below."""
    return "\n".join(problem.text() for problem in problems)


def problem_data(problem: Problem) -> dict[str, Any]:
    """Return a problem as plain data for `--format json`."""
    return {
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "field": problem.field,
        "message": problem.message,
        "hint": problem.hint,
        "severity": "warning" if problem.is_warning else "error",
    }


def weight_text(weight: Scheduled | None) -> str:
    """Return a signed weight: `+1`, `-0.5`, `[0.2…0.9]` for a schedule, nothing for none."""
    if weight is None:
        return ""
    if isinstance(weight, Mapping):
        layers = weight["layers"]
        return f"[{number(layers[0])}…{number(layers[-1])}]"
    return f"{'+' if weight >= 0 else ''}{number(weight)}"


def factor_text(factor: Scheduled) -> str:
    """Return the lambda of a merge: `λ 0.5`, nothing where it is 1."""
    if factor == 1:
        return ""
    return f"λ {weight_text(factor) if isinstance(factor, Mapping) else number(factor)}"


def metrics_text(metrics: Mapping[str, float]) -> str:
    """Return metrics on one line: `sql 0.88, control 1`."""
    return ", ".join(f"{task} {value:.3g}" for task, value in metrics.items()) or "-"


def state_text(change: Change) -> str:
    """Return a model's state for `status`: `built` or what its plan says, and why."""
    if change.action is Action.NONE and not change.reasons:
        return "built"
    return (
        f"{change.action.value}: {_notes(change)}"
        if change.action is not Action.NONE
        else _notes(change)
    )


def _expression(request: Mapping[str, Any]) -> str:
    return expression(request["base"]["name"], request["recipe"])


@dataclass(frozen=True, slots=True)
class Live:
    """What `status` shows of a model beside its state; None where nothing is built."""

    model_digest: str | None
    method: str | None
    expression: str | None
    metrics: Mapping[str, float]


def live(recorded: Mapping[str, BuildRecord | UnreadableRecord]) -> dict[str, Live]:
    """Return what is live of every model that has a readable record."""
    return {name: live_of(one) for name, one in recorded.items() if isinstance(one, BuildRecord)}


def live_of(one: BuildRecord) -> Live:
    """Return what is live of a model."""
    metrics = dict(one.evaluation.metrics) if one.evaluation else {}
    if one.built is None:
        return Live(None, None, None, metrics)
    request = one.built.request
    return Live(one.built.model_digest, request["recipe"]["method"], _expression(request), metrics)


def status_rows(plan: Plan, live: Mapping[str, Live]) -> list[dict[str, Any]]:
    """Return one row of plain data per model: what is live, and what its plan says."""
    nothing = Live(None, None, None, {})
    rows = []
    for change in plan.changes:
        one = live.get(change.model, nothing)
        rows.append(
            {
                "model": change.model,
                "state": state_text(change),
                "action": change.action.value,
                "reasons": [reason.as_data() for reason in change.reasons],
                "method": one.method,
                "expression": one.expression,
                "model_digest": one.model_digest,
                "metrics": dict(one.metrics),
            }
        )
    return rows

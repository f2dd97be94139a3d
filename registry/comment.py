"""A plan as one comment on a pull request: counts first, then tables, details folded. Pure text.

Whatever comes from a catalog is escaped: it stands on a page of a code host, and anybody may have
written it. What does not fit is counted, so that the comment is never refused for its length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from registry import estimate, page, report
from registry.amounts import size
from registry.comparison import Affected
from registry.estimate import Estimate
from registry.plan import Action, Change, Plan
from registry.request import Declaration
from registry.spec import Gate
from schemas.expression import expression, number

MARK = "<!-- registry plan -->"
"""The first line of every comment, by which the next one finds it and replaces it."""

LIMIT = 60_000
"""Characters of a comment; code hosts refuse more than 65,535 (GitHub)."""

_TABLE = 40_000
_AFFECTED = 10_000
_CELL = 300
_USERS = 20
_HEAD = ("model", "action", "why", "terms", "read → write", "takes", "gates")
_AFFECTED_HEAD = ("ingredient", "change", "models that contain it")
_BUILDS = (Action.BUILD, Action.MAYBE)
_GATES = {
    "at_least": "≥ {}",
    "at_most": "≤ {}",
    "retention": "keeps {} of the best term",
    "no_worse_than": "no worse than {}",
}
_ESTIMATED = (
    "Seconds and memory are those of {} before, by bytes read, without evaluation. `–`: not known."
)


@dataclass(frozen=True, slots=True)
class Review:
    """Everything that a comment shows; of the models that are not declared there is no more.

    `since` is the revision that is compared with; nothing where the plan is of what is stale.
    """

    plan: Plan
    declared: Mapping[str, Declaration] = field(default_factory=dict)
    estimates: Mapping[str, Estimate] = field(default_factory=dict)
    affected: Sequence[Affected] = ()
    since: str = ""


def text(review: Review) -> str:
    """Return the comment, of at most `LIMIT` characters."""
    shown = [
        change
        for change in review.plan.changes
        if change.action is not Action.NONE or change.reasons
    ]
    parts = [MARK, f"### Merge plan: {report.summary_text(review.plan)}"]
    parts += _sums(review, shown)
    if shown:
        rows = [_row(review, change) for change in shown]
        parts.append(_table(_HEAD, rows, _TABLE, "run `registry plan`"))
    if review.affected:
        changed = [_affected(one) for one in review.affected]
        parts.append(_table(_AFFECTED_HEAD, changed, _AFFECTED, "run `registry impact`"))
    end = _end(review)
    room = LIMIT - len("\n\n".join([*parts, end])) - 200
    parts += _fitting((_details(review, change) for change in shown), room)
    return "\n\n".join([*parts, end]) + "\n"


def _sums(review: Review, shown: Iterable[Change]) -> Iterator[str]:
    """Yield one line on all builds together, where there is more than one."""
    builds = [one.model for one in shown if one.action in _BUILDS]
    found = [review.estimates.get(model, Estimate()) for model in builds]
    if len(found) > 1 and any(one.reads for one in found):
        moved = _moved(
            estimate.total(found, lambda one: one.reads),
            estimate.total(found, lambda one: one.writes),
        )
        seconds = _seconds(estimate.total(found, lambda one: one.seconds))
        yield f"{len(found)} builds together: {moved}, {seconds} one after the other."


def _row(review: Review, change: Change) -> tuple[str, ...]:
    one = review.declared.get(change.model)
    about = review.estimates.get(change.model)
    is_build = change.action in _BUILDS
    return (
        page.escaped(change.model),
        "kept" if change.action is Action.NONE else change.action.value,
        "<br>".join(page.escaped(_cut(line)) for line in _reasons(change, most=4)),
        _code(_cut(_expression(one))) if one else "",
        _moved(about.reads, about.writes) if about and is_build else "",
        _takes(about) if about and is_build else "",
        page.escaped(_cut(_gates(one.gates))) if one else "",
    )


def _reasons(change: Change, most: int) -> list[str]:
    lines = report.notes(change)
    return lines if len(lines) <= most else [*lines[: most - 1], f"{len(lines) - most + 1} more"]


def _expression(one: Declaration) -> str:
    return expression(one.request["base"]["name"], one.request["recipe"])


def _gates(gates: Mapping[str, Gate]) -> str:
    return "; ".join(
        f"{task} {_GATES[name].format(value if isinstance(value, str) else number(value))}"
        for task, gate in sorted(gates.items())
        for name, value in gate.as_data().items()
    )


def _affected(one: Affected) -> tuple[str, ...]:
    users = [f"{page.escaped(use.model)} ({page.escaped(use.how)})" for use in one.users]
    if (more := len(users) - _USERS) > 0:
        users[_USERS:] = [f"{more} more"]
    return page.escaped(one.label), page.escaped(_cut(one.change)), ", ".join(users) or "none"


def _details(review: Review, change: Change) -> str:
    """Return everything about one model, folded."""
    one = review.declared.get(change.model)
    # Inside of HTML nothing is Markdown.
    summary = f"<b>{escape(change.model).replace('@', '&#64;')}</b>: {change.action.value}"
    lines = [f"- {page.escaped(line)}" for line in report.notes(change)]
    if one:
        lines.insert(0, f"{_code(_expression(one))}\n")
        lines += [f"- made of merge {page.escaped(name)}" for name in one.upstream]
        if one.suite:
            gates = f", gates: {_gates(one.gates)}" if one.gates else ", no gates"
            lines.append(f"- evaluated on suite {page.escaped(one.suite + gates)}")
    if change.key:
        lines.append(f"- build key `{change.key}`")
    body = "\n".join(lines)
    return f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>"


def _end(review: Review) -> str:
    count = max((one.builds for one in review.estimates.values()), default=0)
    lines = [f"plan `{review.plan.digest}`"]
    if review.since:
        lines[0] += f", compared with {_code(review.since)}"
    if any(change.action in _BUILDS for change in review.plan.changes):
        builds = f"{count} build{'' if count == 1 else 's'}" if count else "builds"
        lines.append(_ESTIMATED.format(builds))
    return "  \n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], room: int, more: str) -> str:
    """Return a table of as many rows as there is room for; a column that is empty is left out."""
    kept = [number for number in range(len(head)) if any(row[number] for row in rows)]
    lines = [f"| {' | '.join(row[number] for number in kept)} |" for row in rows]
    top = [f"| {' | '.join(head[number] for number in kept)} |", "|" + "---|" * len(kept)]
    fitting = list(_fitting(lines, room, joined=1))
    if (rest := len(lines) - len(fitting)) > 0:
        fitting.append(f"| … {rest} more: {more} |" + " |" * (len(kept) - 1))
    return "\n".join([*top, *fitting])


def _fitting(blocks: Iterable[str], room: int, joined: int = 2) -> Iterator[str]:
    """Yield blocks, which are joined by so many characters, while there is room."""
    for block in blocks:
        room -= len(block) + joined
        if room < 0:
            return
        yield block


def _code(line: str) -> str:
    return f"`{page.code_text(line)}`"


def _cut(line: str) -> str:
    return line if len(line) <= _CELL else line[: _CELL - 1] + "…"


def _moved(reads: float | None, writes: float | None) -> str:
    return f"{_bytes(reads)} → {_bytes(writes)}"


def _takes(one: Estimate) -> str:
    return f"{_seconds(one.seconds)}, {_bytes(one.memory)}"


def _bytes(count: float | None) -> str:
    return "–" if count is None else size(count)


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.2g} s"

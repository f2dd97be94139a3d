"""A model's history on the branch, and what changed between two commits of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from itertools import pairwise
from typing import Any

from registry import page, report
from registry.service import links
from registry.service.pages import frame, words
from registry.service.pages.frame import Site
from registry.service.snapshot import Snapshot

_HEAD = ("commit", "when", "what it was", "measured", "subject", "author")


def history(model: str, versions: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the section of a model's versions, the newest first, and a form to compare two."""
    if not versions:
        return
    yield page.heading("History")
    yield page.table("History", _HEAD, list(_rows(model, versions)))
    if len(versions) > 1:
        yield _form(model, versions)


def _rows(model: str, versions: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for one, before in pairwise([*versions, None]):
        assert one is not None
        commit = frame.commit(one["commit"])
        if before is not None:
            address = links.of_difference(model, before["commit"], one["commit"])
            commit += f' <a href="{escape(address)}">changes<span class="hidden"> made by '
            commit += f"{escape(one['commit'][:12])}</span></a>"
        yield (
            commit,
            frame.time(one["at"]),
            _was(one),
            escape(words.metrics(one["metrics"])),
            frame.long(one["subject"]),
            escape(one["author"]),
        )


def _was(one: Mapping[str, Any]) -> str:
    if one["is_removed"]:
        return "taken back"
    return frame.code(one["expression"] or "") or "nothing live"


def _form(model: str, versions: Sequence[Mapping[str, Any]]) -> str:
    def field(name: str, label: str, chosen: int) -> str:
        options = "".join(
            f'<option value="{escape(one["commit"])}"{" selected" if place == chosen else ""}>'
            f"{_moment(one['at'])} {escape(one['commit'][:12])}</option>"
            for place, one in enumerate(versions)
        )
        return (
            f'<div class="field"><label for="{name}">{label}</label>'
            f'<select id="{name}" name="{name}">{options}</select></div>'
        )

    return (
        f'<form action="{escape(links.of_model(model))}/diff" method="get" '
        f'aria-label="Compare two versions">{field("from", "From", 1)}{field("to", "To", 0)}'
        '<button type="submit">Compare</button></form>'
    )


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def difference(now: Snapshot, model: str, told: Mapping[str, Any]) -> str:
    """Return the page of what changed; `told` is the answer of `details.difference`."""
    back = f'<p><a href="{escape(links.of_model(model))}">Back to {escape(model)}</a></p>'
    facts = [("from", _side(told, 0)), ("to", _side(told, 1))]
    return frame.whole(
        Site(now.repository, now.branch),
        f"{model}: what changed",
        [back, frame.facts(facts), *_requests(told), *_metrics(told)],
    )


def _side(told: Mapping[str, Any], number: int) -> str:
    expression = frame.code(told["expressions"][number] or "") or "nothing live"
    lines = (frame.commit(told["commits"][number]), expression)
    digest = frame.code(told["digests"][number] or "")
    return "<br>".join(one for one in (*lines, digest) if one)


def _requests(told: Mapping[str, Any]) -> Iterator[str]:
    yield page.heading("Build request")
    before, after = told["expressions"]
    if told["changes"]:
        yield changes("Fields that differ", told["changes"], "from", "to")
    elif before is None or after is None:
        yield page.text("There is nothing to compare: nothing was live at one of the commits.")
    else:
        yield page.text("No field differs: both were built of the same.")


def changes(name: str, rows: Sequence[Mapping[str, Any]], old: str, new: str) -> str:
    """Return a table of fields that differ."""
    cells = [
        (
            frame.code(one["field"]),
            escape(report.value_text(one["old"])),
            escape(report.value_text(one["new"])),
            "input" if one["is_input"] else "recipe",
        )
        for one in rows
    ]
    return page.table(name, ("field", old, new, "part of"), cells)


def _metrics(told: Mapping[str, Any]) -> Iterator[str]:
    old, new = told["metrics"]
    rows = [
        (
            escape(task),
            words.number(old.get(task)),
            words.number(new.get(task)),
            _gain(old, new, task),
        )
        for task in sorted({*old, *new})
    ]
    if rows:
        yield page.heading("Metrics")
        yield page.table("Metrics", ("task", "from", "to", "difference"), rows)


def _gain(old: Mapping[str, Any], new: Mapping[str, Any], task: str) -> str:
    if task not in old or task not in new:
        return "–"
    return f"{new[task] - old[task]:+.4g}".replace("-", "−")

"""The page of all models: how the service stands, and a table of models, filtered. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from registry import page
from registry.plan import Action, Change
from registry.service import links
from registry.service.choice import Standing
from registry.service.pages import filtered, frame, live, words
from registry.service.pages.filtered import Filter
from registry.service.pages.frame import Site
from registry.service.progress import Progress
from registry.service.snapshot import Snapshot

_REASONS = 3  # of a model, in the table; its own page has all
_HEAD = ("model", "state", "why", "expression", "measured", "gates", "changed")


def whole(now: Snapshot, chosen: Filter, records: Mapping[str, Any], progress: Progress) -> str:
    """Return the page; `records` are the answer of `details.recorded`."""
    live_at = f"/live?{chosen.query}&page={chosen.number}"
    return frame.whole(
        Site(now.repository, now.branch),
        "Models",
        [
            *_head(now, progress),
            filtered.form(chosen, "/", "Models", "Name, reason or ingredient", _states(chosen)),
            _table(now, chosen, records),
            page.heading("How the service stands"),
            live.conditions(now),
            _commits(now),
        ],
        section="/",
        live=live_at,
    )


def fragment(now: Snapshot, chosen: Filter, records: Mapping[str, Any], progress: Progress) -> str:
    """Return what changes of the page."""
    parts = [*_head(now, progress), _table(now, chosen, records), live.conditions(now)]
    return "".join([*parts, _commits(now)])


def _head(now: Snapshot, progress: Progress) -> Iterator[str]:
    yield live.line(now)
    yield live.trouble(now)
    yield live.running(now, progress)
    yield frame.part("counts", live.counts(now))


def _commits(now: Snapshot) -> str:
    rows = []
    if now.view:
        rows.append(("followed commit", frame.commit(now.view.commit)))
    if now.seen and now.branch_trouble:
        rows.append(("commit of the branch, not followed", frame.commit(now.seen)))
    if now.looked_at:
        rows.append(("looked at", frame.time(now.looked_at)))
    if now.memory.synced_at:
        rows.append(("last sync ended", frame.time(now.memory.synced_at)))
    return frame.part("commits", frame.facts(rows))


def _states(chosen: Filter) -> str:
    options = "".join(
        f'<option value="{name}"{" selected" if name == chosen.state else ""}>{label}</option>'
        for name, label in [("", "all states"), *((one, one) for one in words.URGENCY)]
    )
    select = f'<select id="state" name="state">{options}</select>'
    return f'<div><label for="state">State</label>{select}</div>'


def _table(now: Snapshot, chosen: Filter, records: Mapping[str, Any]) -> str:
    if now.view is None:
        return frame.part("models", page.text("Nothing was read of the branch yet."))
    changes = now.view.plan.changes
    found = [change for change in changes if _matches(now, change, chosen)]
    order = {name: place for place, name in enumerate(words.URGENCY)}
    found.sort(key=lambda one: (order[now.survey.standings[one.model].value], one.model))

    def row(one: Change) -> tuple[str, ...]:
        return _row(now, one, records.get(one.model, {}))

    table = filtered.table(chosen, "/", "model", _HEAD, found, row, len(changes))
    return frame.part("models", table)


def _matches(now: Snapshot, change: Change, chosen: Filter) -> bool:
    assert now.view is not None
    if chosen.state and now.survey.standings[change.model].value != chosen.state:
        return False
    row = now.view.rows.get(change.model, {})
    return chosen.finds(f"{change.model} {row.get('state')} {row.get('expression')}")


def _row(now: Snapshot, change: Change, recorded: Mapping[str, Any]) -> tuple[str, ...]:
    assert now.view is not None
    row = now.view.rows.get(change.model, {})
    standing = now.survey.standings[change.model].value
    return (
        page.linked(change.model, links.of_model(change.model)),
        frame.state(standing),
        frame.long(why(now, change)),
        frame.code(row.get("expression") or "") or "nothing is live",
        escape(words.metrics(row.get("metrics") or {})),
        _gates(recorded),
        frame.time(recorded.get("at")),
    )


def why(now: Snapshot, change: Change) -> str:
    """Return in words why a model stands as it does: what failed, or what has to be done."""
    name = change.model
    standing = now.survey.standings[name]
    told = words.reasons(change.reasons[:_REASONS])
    if more := len(change.reasons) - _REASONS:
        told += f" And {words.count(more, 'more reason')}." if more > 0 else ""
    if suspended := now.memory.suspended_models.get(name):
        return f"Suspended here: {words.sentence(suspended.reason)} {told}".strip()
    attempts = now.memory.attempts.get(name)
    if standing is Standing.FAILED and change.action is not Action.NONE and attempts:
        return f"{words.sentence(attempts[0].message)} {told}".strip()
    if standing is Standing.BLOCKED:
        return f"It waits for what it is made of. {told}".strip()
    if change.action is Action.NONE and not change.reasons:
        return "As declared."
    return told


def _gates(recorded: Mapping[str, Any]) -> str:
    failed = [*recorded.get("failed", ()), *recorded.get("stopped", ())]
    if failed:
        lines = "".join(f"<br>{escape(one)}" for one in failed[:3])
        return f'{frame.state("failed")}<span class="long">{lines}</span>'
    if passed := recorded.get("passed"):
        return f"✓ {words.count(passed, 'gate')} passed"
    return "none"

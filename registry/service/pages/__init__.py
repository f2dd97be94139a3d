"""The page for people: how the service stands, and every model. HTML without script."""

from __future__ import annotations

from datetime import UTC, datetime

from registry import page, report
from registry.service.snapshot import Snapshot


def index(now: Snapshot) -> str:
    """Return the status page."""
    return page.html_page(f"{now.repository}, branch {now.branch}", _parts(now))


def _parts(now: Snapshot) -> list[str]:
    if now.view is None:
        return [_conditions(now), page.text("Nothing was read of the branch yet.")]
    rows = [
        (
            model,
            now.survey.standings[model].value,
            row["state"],
            row["expression"] or "-",
            report.metrics_text(row["metrics"]),
            report.short(row["model_digest"] or ""),
        )
        for model, row in now.view.rows.items()
    ]
    head = ("model", "state", "why", "expression", "metrics", "digest")
    commit = page.text(f"Commit {now.view.commit[:12]}, {len(rows)} models.")
    return [_conditions(now), commit, page.heading("Models"), page.html_table(head, rows)]


def _conditions(now: Snapshot) -> str:
    rows = [
        (one.type, "yes" if one.status else "no", one.reason, one.message, _time(one.since))
        for one in now.memory.conditions
    ]
    return page.html_table(("condition", "holds", "reason", "message", "since"), rows)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

"""The pages of the syncs: all that are remembered, and one with its results and its log. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from registry import page
from registry.service import links
from registry.service.pages import frame, live, words
from registry.service.pages.frame import Site
from registry.service.progress import Progress
from registry.service.snapshot import Job, Snapshot

LOG_LINES = 200
"""Of the end of a log, on the page; the API has all that was kept."""

_HEAD = ("job", "outcome", "begun", "took", "why", "models", "commit")


def whole(now: Snapshot, progress: Progress) -> str:
    """Return the page of all jobs."""
    return frame.whole(
        Site(now.repository, now.branch), "Jobs", _all(now, progress), section="/jobs", live=_LIVE
    )


_LIVE = "/live/jobs"


def fragment(now: Snapshot, progress: Progress) -> str:
    """Return what changes of the page of all jobs."""
    return "".join(_all(now, progress))


def _all(now: Snapshot, progress: Progress) -> Iterator[str]:
    yield live.line(now)
    yield live.running(now, progress)
    rows = [_row(job) for job in now.jobs]
    table = page.table("Jobs", _HEAD, rows) if rows else page.text("There was no sync yet.")
    yield frame.part("jobs", table)


def _row(job: Job) -> tuple[str, ...]:
    return (
        page.linked(f"job {job.id}", links.of_job(job.id)),
        frame.outcome(job.outcome),
        frame.time(job.started),
        words.seconds(job.ended - job.started) if job.ended else "–",
        escape(job.trigger),
        _summary(job),
        frame.commit(job.commit),
    )


def _summary(job: Job) -> str:
    counts = Counter(_became(one) for one in job.results)
    told = ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))
    return escape(told) or (words.count(len(job.models), "model") if job.models else "all")


def _became(result: Mapping[str, Any]) -> str:
    return {0: "done", 75: "later"}.get(result["exit_code"], "failed")


def one(now: Snapshot, job: Job, log: str, progress: Progress) -> str:
    """Return the page of one job; `log` is its whole log."""
    return frame.whole(
        Site(now.repository, now.branch),
        f"Job {job.id}",
        _one(now, job, log, progress),
        live=f"{_LIVE}/{job.id}" if job.ended is None else "",
    )


def one_fragment(now: Snapshot, job: Job, log: str, progress: Progress) -> str:
    """Return what changes of the page of one job."""
    return "".join(_one(now, job, log, progress))


def _one(now: Snapshot, job: Job, log: str, progress: Progress) -> Iterator[str]:
    yield frame.part("now", f"<p>{frame.outcome(job.outcome)}</p>", is_status=True)
    is_running = now.job is not None and now.job.id == job.id
    yield live.running(now, progress) if is_running else frame.part("job", "")
    yield frame.part(
        "facts",
        frame.facts(
            [
                ("begun", frame.time(job.started)),
                ("ended", frame.time(job.ended) if job.ended else ""),
                ("why", escape(job.trigger)),
                ("commit", frame.commit(job.commit)),
                ("models asked for", _models(job)),
                ("exit code", str(job.exit_code) if job.exit_code is not None else ""),
            ]
        ),
    )
    yield frame.part("results", "".join(_results(job)))
    lines = log.splitlines()
    left_out = len(lines) - LOG_LINES
    told = f"The last {LOG_LINES} of {len(lines)} lines. " if left_out > 0 else ""
    more = f'<a href="/api/v1/jobs/{job.id}/log">The whole log</a>'
    shown = "\n".join(lines[-LOG_LINES:]) or "nothing"
    yield page.heading("Log")
    yield frame.part(
        "log",
        f"<p>{told}{more}</p>"
        f'<pre tabindex="0" role="region" aria-label="Log">{escape(shown)}</pre>',
    )


def _models(job: Job) -> str:
    names = [page.linked(name, links.of_model(name)) for name in job.models]
    return ", ".join(names) or "all"


def _results(job: Job) -> Iterator[str]:
    if not job.results:
        return
    rows = [
        (
            page.linked(one["model"], links.of_model(one["model"])),
            frame.outcome(_became(one)),
            escape(one["action"]),
            frame.long(_said(one)),
        )
        for one in job.results
    ]
    yield page.heading("What became of the models")
    yield page.table("Models", ("model", "outcome", "action", "what it said"), rows)


def _said(one: Mapping[str, Any]) -> str:
    told = words.sentence(one["problem"] or one["note"] or "")
    return f"{told} Hint: {words.sentence(one['hint'])}" if one["hint"] else told or "–"

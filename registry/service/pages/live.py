"""What changes while one looks: a line that is read out, conditions, the running job. Pure."""

from __future__ import annotations

from collections import Counter
from html import escape

from registry import page
from registry.service import links
from registry.service.choice import Standing
from registry.service.memory import Condition
from registry.service.pages import frame, words
from registry.service.progress import Progress
from registry.service.snapshot import Job, Snapshot


def line(now: Snapshot) -> str:
    """Return in one sentence how the service stands."""
    ready = next((one for one in now.memory.conditions if one.type == "Ready"), None)
    if job := now.job:
        told = f"Job {job.id} is running."
    elif ready:
        told = words.sentence(f"{_plain(ready)}: {_first_line(ready.message)}")
    else:
        told = "Nothing was read of the branch yet."
    return frame.part("now", f"<p>{escape(told)}</p>", is_status=True)


def _plain(ready: Condition) -> str:
    return "ready" if ready.status else f"not ready, {_spaced(ready.reason)}"


def _spaced(name: str) -> str:
    """Return `models failed` for `ModelsFailed`."""
    return "".join(f" {one.lower()}" if one.isupper() else one for one in name).strip()


def _first_line(message: str) -> str:
    return message.strip().partition("\n")[0]


def trouble(now: Snapshot) -> str:
    """Return what must not be overlooked: suspended, stalled, out of reach."""
    notices = []
    if suspended := now.memory.suspended:
        told = page.text(words.sentence(suspended.reason)) if suspended.reason else ""
        since = f"<p>Since {frame.time(suspended.since)}. {words.advice('Suspended')}</p>"
        notices.append(frame.notice("The service is suspended", told + since))
    for title, one in (("The service is stalled", now.trouble), ("No contact", now.unreachable)):
        if one is None:
            continue
        where = f" At commit {frame.commit(one.commit)}." if one.commit else ""
        told = (
            f"<p>{escape(words.sentence(_spaced(one.reason)))} Since {frame.time(one.since)}."
            f"{where} {escape(words.advice(one.reason))}</p>{page.code(one.message)}"
        )
        notices.append(frame.notice(title, told, "bad"))
    return frame.part("trouble", "".join(notices))


def running(now: Snapshot, progress: Progress) -> str:
    """Return the running job with how far it is."""
    return frame.part("job", _running(now.job, now, progress) if now.job else "")


def _running(job: Job, now: Snapshot, progress: Progress) -> str:
    wanted = set(now.survey.due)
    if job.models:
        wanted &= set(job.models)
    begun = len(wanted & set(progress.begun))
    name = f"Job {job.id}"
    begin = f"begun {frame.time(job.started)}, at commit {frame.commit(job.commit)}"
    parts = [f"<p>{page.linked(name, links.of_job(job.id))}, {begin}.</p>"]
    if wanted:
        told = f"{begun} of {words.count(len(wanted), 'model')} begun"
        # One that was begun is not done.
        parts.append(_bar(f"{name}: {told}", told, max(0, begun - 1), len(wanted)))
    if progress.model:
        what = f"{progress.model}: {progress.stage}"
        if progress.total:
            told = f"{what}, {progress.done} of {progress.total} {progress.unit}"
            parts.append(_bar(what, told, progress.done, progress.total))
        else:
            parts.append(page.text(f"{what} …"))
    return frame.notice(f"{name} is running", "".join(parts), "calm")


def _bar(name: str, told: str, done: int, total: int) -> str:
    bar = f'<progress aria-label="{escape(name)}" value="{done}" max="{total}"></progress>'
    return f"<p>{bar} {escape(told)}</p>"


def conditions(now: Snapshot) -> str:
    """Return the conditions of the service with their reasons in words."""
    rows = [
        (
            one.type,
            "yes" if one.status else "no",
            frame.long(
                f"{words.sentence(f'{_spaced(one.reason)}: {_first_line(one.message)}')} "
                f"{words.advice(one.reason) if _is_worse(one) else ''}".strip()
            ),
            frame.time(one.since),
        )
        for one in now.memory.conditions
    ]
    if not rows:
        return frame.part("conditions", "")
    head = ("condition", "holds", "why", "since")
    return frame.part("conditions", page.table("Conditions of the service", head, rows))


def _is_worse(one: Condition) -> bool:
    return one.status == (one.type == "Stalled")


def counts(now: Snapshot) -> str:
    """Return the number of models by state, each with the way to them."""
    found = Counter(now.survey.standings.values())
    rows = "".join(
        f'<li><a href="/?state={name}">{frame.state(name)}</a> {number}</li>'
        for name in words.URGENCY
        if (number := found[Standing(name)])
    )
    return f'<ul class="counts">{rows}</ul>' if rows else ""


def newer(now: Snapshot, shown: str, address: str) -> str:
    """Return a hint where the page was made of another commit than the one that is followed."""
    if now.view is None or now.view.commit == shown:
        return frame.part("newer", "")
    link = f'<a href="{escape(address)}">Load it</a>'
    return frame.part("newer", f"<p>There is a newer state than what is shown below. {link}.</p>")

"""The page of one model: how it stands, what it is made of, what it is worth, what it was. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from registry import page, report
from registry.amounts import size
from registry.lineage_report import sign_word
from registry.plan import Action, Change
from registry.service import links
from registry.service.memory import Attempt
from registry.service.pages import frame, live, parts, versions, words
from registry.service.pages.frame import Site
from registry.service.pages.models import why
from registry.service.progress import Progress
from registry.service.snapshot import Snapshot

_READING = (
    "Sign and weight are those of the whole way: the product of the weights and lambdas on it, "
    "schedules by their mean. What subtracts a subtraction adds."
)


def whole(now: Snapshot, change: Change, told: Mapping[str, Any], progress: Progress) -> str:
    """Return the page; `told` is the answer of `details.model`."""
    assert now.view is not None
    name = change.model
    sections = (
        *_state(now, change, progress),
        live.newer(now, now.view.commit, links.of_model(name)),
        *_about(told),
        *_ingredients(told),
        *_declared(told),
        *_measured(told),
        *_plots(name, told),
        *_attempts(now.memory.attempts.get(name, ())),
        *versions.history(name, told["history"]),
        *_facts(told),
    )
    return frame.whole(
        Site(now.repository, now.branch),
        name,
        sections,
        live=f"/live{links.of_model(name)}?commit={now.view.commit}",
    )


def fragment(now: Snapshot, change: Change, shown: str, progress: Progress) -> str:
    """Return what changes of the page, which was made of the commit `shown`."""
    newer = live.newer(now, shown, links.of_model(change.model))
    return "".join([*_state(now, change, progress), newer])


def _state(now: Snapshot, change: Change, progress: Progress) -> Iterator[str]:
    standing = now.survey.standings[change.model].value
    told = f"{frame.state(standing)} – {escape(words.STATES[standing][1].partition(': ')[2])}."
    lines = [f"<p>{told}</p>"]
    if standing != "up-to-date" or change.reasons:
        lines.append(page.text(why(now, change)))
    if change.action is not Action.NONE:
        will = words.ACTIONS[change.action.value]
        lines.append(page.text(words.sentence(f"Asked to, a sync will {will}")))
    attempts = now.memory.attempts.get(change.model, ())
    if standing == "failed" and attempts and attempts[0].hint:
        lines.append(page.text(f"Hint: {words.sentence(attempts[0].hint)}"))
    yield frame.part("state", "".join(lines), is_status=True)
    yield live.trouble(now)
    is_in_job = now.job and (not now.job.models or change.model in now.job.models)
    yield live.running(now, progress) if is_in_job else frame.part("job", "")


def _about(told: Mapping[str, Any]) -> Iterator[str]:
    if told["unread"]:
        yield frame.notice("The record cannot be read", page.code(told["unread"]), "bad")
    if told["request"]:
        yield page.heading("What it is" if told["is_live"] else "What it is declared to be")
        yield f'<code class="expression">{escape(told["expression"])}</code>'
    if spec := told["spec"]:
        labels = ", ".join(f"{key}: {value}" for key, value in spec["labels"].items())
        yield frame.facts(
            [
                ("about", escape(spec["description"])),
                ("owner", escape(spec["owner"])),
                ("labels", escape(labels)),
                ("suspended in its spec", escape(spec["suspend"])),
            ]
        )


def _ingredients(told: Mapping[str, Any]) -> Iterator[str]:
    if not told["request"]:
        return
    yield page.heading("Ingredients")
    yield page.figure("Drawing of the ingredients", told["drawing"])
    head = ("ingredient", "sign", "weight", "by way of", "revoked", "digest")
    rows = []
    for one in told["contains"]:
        label = parts.label(one)
        first = page.linked(label, links.of(one["kind"], one["name"], one.get("version")))
        last = (parts.revoked(one), frame.code(report.short(one["digest"])))
        rows += [(first, *parts.cells(way), *last) for way in one["paths"]]
        if more := one["ways"] - len(one["paths"]):
            told_sign = sign_word(one["sign"])
            rows.append((first, told_sign, "", f"{more} more ways", *last))
    yield page.table("Ingredients", head, rows)
    yield f'<p class="muted">{escape(_READING)}</p>'


def _declared(told: Mapping[str, Any]) -> Iterator[str]:
    if changes := told.get("changes"):
        yield page.heading("Declared, but not live yet")
        yield versions.changes("Declared, but not live yet", changes, "live", "declared")


def _measured(told: Mapping[str, Any]) -> Iterator[str]:
    measured, rejected = told.get("evaluation"), told.get("rejected")
    if not measured and not rejected:
        return
    yield page.heading("Measured")
    if measured:
        yield page.text(f"On suite {measured['suite']}.")
        yield _metrics(measured)
        if measured["verdicts"]:
            yield _verdicts("Gates of what is live", measured["verdicts"])
    if rejected:
        stayed = "what is live stayed" if told["is_live"] else "nothing was published"
        yield f"<h3>The last attempt was stopped by a gate; {stayed}</h3>"
        yield _verdicts("Gates of the attempt that was stopped", rejected["verdicts"])


def _metrics(measured: Mapping[str, Any]) -> str:
    beside = {f"{label} alone": one for label, one in measured["baselines"].items()}
    if measured["base"]:
        beside = {"base": measured["base"], **beside}
    rows = [
        (
            escape(task),
            words.number(value),
            *(words.number(one.get(task)) for one in beside.values()),
        )
        for task, value in measured["metrics"].items()
    ]
    return page.table("Metrics", ("task", "this model", *beside), rows)


def _verdicts(name: str, verdicts: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            escape(str(one["task"])),
            escape(f"{one['condition'].replace('_', ' ')} {words.number(one['limit'])}"),
            words.number(one["value"]),
            frame.outcome("done" if one["passed"] else "failed", "passed" if one["passed"] else ""),
        )
        for one in verdicts
    ]
    return page.table(name, ("task", "gate", "found", "verdict"), rows)


def _plots(name: str, told: Mapping[str, Any]) -> Iterator[str]:
    if plots := told.get("plots"):
        yield page.heading("Plots")
        pictures = "".join(
            f'<figure><a href="{address}"><img loading="lazy" src="{address}" '
            f'alt="{escape(one["title"])}"></a></figure>'
            for one in plots
            if (address := escape(f"{links.of_model(name)}/plots/{one['file']}"))
        )
        yield f'<div class="plots">{pictures}</div>'


def _attempts(attempts: Sequence[Attempt]) -> Iterator[str]:
    if not attempts:
        return
    yield page.heading("Last attempts of this service")
    rows = []
    for one in attempts:
        times = f"{frame.time(one.last)}"
        if one.count > 1:
            times += f" ({one.count} times since {frame.time(one.first)})"
        message = words.sentence(one.message) + (f" Hint: {one.hint}" if one.hint else "")
        job = page.linked(f"job {one.job}", links.of_job(one.job))
        what = escape(one.action)
        rows.append((times, frame.outcome(one.outcome), what, frame.long(message or "–"), job))
    yield page.table("Last attempts", ("when", "outcome", "action", "what it said", "job"), rows)


def _facts(told: Mapping[str, Any]) -> Iterator[str]:
    built = told.get("built")
    if not built:
        return
    yield page.heading("The artifact")
    versions_ = ", ".join(f"{name} {value}" for name, value in built["versions"].items())
    yield frame.facts(
        [
            ("model digest", frame.code(built["model_digest"])),
            ("artifact digest", frame.code(built["artifact_digest"])),
            ("build key", frame.code(built["key"])),
            ("size", f"{size(built['bytes'])} in {words.count(built['files'], 'file')}"),
            ("method", escape(told["request"]["recipe"]["method"])),
            (
                "built in",
                f"{words.seconds(built['seconds'])}, peak {size(built['peak_bytes'])}",
            ),
            ("built on", escape(built["device_class"])),
            ("versions", escape(versions_)),
            ("in MLflow", _mlflow(told.get("mlflow"))),
        ]
    )


def _mlflow(logged: Mapping[str, Any] | None) -> str:
    if logged is None:
        return "not logged yet"
    told = f"version {logged['version']}"
    run = f", run {frame.code(logged['run'])}"
    if not logged["url"]:
        return f"{escape(told)}{run}"
    return f'<a href="{escape(logged["url"])}" rel="noreferrer">{escape(told)}</a>{run}'

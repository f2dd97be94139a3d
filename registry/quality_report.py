"""The quality of a merge as text, Markdown, JSON, one HTML page and charts. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from registry import page
from registry.quality import Quality, TaskQuality
from registry.report import table


def text(model: str, quality: Quality, verdicts: Sequence[Mapping[str, Any]]) -> str:
    """Return the report as people read it on a terminal, with the verdicts of the gates."""
    lines = [headline(model, quality), "", *table(_rows(quality), head=_head(quality)), ""]
    lines += [f"lost  {one}" for one in quality.lost]
    lines += [f"gate  {verdict['text']}" for verdict in verdicts]
    return "\n".join(lines)


def headline(model: str, quality: Quality) -> str:
    """Return what a merge is worth, on one line."""
    told = [f"keeps {quality.mean_retention:.3g} of the best ingredient in the mean of the tasks"]
    if quality.mean_gain is not None:
        told.append(f"gains {quality.mean_gain:+.3g} over the base")
    single, value = quality.best_single
    told.append(f"best single: {single} with a mean of {value:.3g}, merged {quality.mean:.3g}")
    return f"{model} on {quality.suite}: {'; '.join(told)}"


def _head(quality: Quality) -> tuple[str, ...]:
    return ("task", *quality.models, "gain", "retention", "interference", "best ingredient")


def _rows(quality: Quality) -> list[tuple[str, ...]]:
    return [_row(quality, task) for task in quality.tasks]


def _row(quality: Quality, task: TaskQuality) -> tuple[str, ...]:
    metrics = (number_text(row.get(task.task)) for row in quality.models.values())
    gain = "-" if task.gain is None else f"{task.gain:+.3g}"
    lost = "-" if task.interference is None else f"{task.interference:.3g}"
    return (task.task, *metrics, gain, f"{task.retention:.3g}", lost, task.best_by)


def number_text(value: float | None) -> str:
    """Return a metric, a dash where there is none."""
    return "-" if value is None else f"{value:.3g}"


def markdown(model: str, quality: Quality, verdicts: Sequence[Mapping[str, Any]]) -> str:
    """Return the report as Markdown, with the verdicts of the gates."""
    blocks = [f"# {model}: quality", headline(model, quality)]
    blocks.append(page.markdown_table(_head(quality), _rows(quality)))
    blocks += _listed("Lost", quality.lost)
    blocks += _listed("Gates", [verdict["text"] for verdict in verdicts])
    return "\n\n".join([*blocks, _READING]) + "\n"


def _listed(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}", "\n".join(f"- {one}" for one in lines)] if lines else []


_READING = (
    "gain: merged less base; retention: merged as a share of the best ingredient alone; "
    "interference: the share of that ingredient's own gain over the base that the merge lost. "
    "All in utilities, of which more is better."
)


def html(
    model: str,
    quality: Quality,
    verdicts: Sequence[Mapping[str, Any]],
    pictures: Mapping[str, bytes],
) -> str:
    """Return the report as one page that needs no other file and no network."""
    parts = [page.text(headline(model, quality))]
    parts.append(page.html_table(_head(quality), _rows(quality)))
    for title, lines in (
        ("Lost", quality.lost),
        ("Gates", [verdict["text"] for verdict in verdicts]),
    ):
        if lines:
            parts += [page.heading(title), *map(page.text, lines)]
    return page.html_page(
        f"{model}: quality", [*parts, *page.html_pictures(pictures), page.text(_READING)]
    )


def as_data(model: str, quality: Quality, verdicts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the report as plain data for scripts."""
    return {"model": model, **quality.as_data(), "gates": [dict(one) for one in verdicts]}


def metrics(quality: Quality) -> Iterator[tuple[str, float]]:
    """Yield what MLflow shows of it as numbers."""
    yield "quality.mean_retention", quality.mean_retention
    if quality.mean_gain is not None:
        yield "quality.mean_gain", quality.mean_gain
    for task in quality.tasks:
        yield f"quality.retention.{task.task}", task.retention
        if task.gain is not None:
            yield f"quality.gain.{task.task}", task.gain

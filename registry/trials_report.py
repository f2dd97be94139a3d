"""Recipes beside each other as text, Markdown, JSON, one HTML page and charts' data. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from registry import page, trials
from registry.report import table
from registry.trials import Barrier
from registry.tuning_report import cells
from schemas.utility import utility

_PART = "search"  # nothing is chosen, so nothing is held out

Found = Mapping[str, Any]


def ranked(found: Found) -> list[Mapping[str, Any]]:
    """Return the declared recipe and the others, the best first; those without a number last."""
    rows = [found["declared"], *found["trials"]]
    return sorted(rows, key=lambda row: _order(row[_PART]), reverse=True)


def _order(part: Mapping[str, Any]) -> tuple[float, float]:
    if part["score"] is None:
        return (-1.0, -1.0)
    return (part["score"], part["mean"])


def barriers(request: Mapping[str, Any], found: Found) -> list[Barrier]:
    """Return the barrier of every task on the line that was measured; none where it has gaps."""
    rows = [row[_PART] for row in found["trials"]]
    if any(row["problem"] for row in rows):
        return []
    lower = request["objective"]["lower_is_better"]
    made = []
    for task in request["suite"]["tasks"]:
        name, metric = task["name"], task["metric"]
        higher = name not in lower
        values = [row["metrics"][name] for row in rows]
        losses = [_loss(metric, value, higher=higher) for value in values]
        made.append(trials.barrier(name, losses, is_logarithm=metric == "perplexity"))
    return made


def _loss(metric: str, value: float, *, higher: bool) -> float:
    if metric == "perplexity":
        return math.log(value)
    return 1 - utility(metric, value, higher_is_better=higher)


def rows_of(request: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return the cells of rows: label, objective, tasks, and why one has no numbers."""
    tasks = [task["name"] for task in request["suite"]["tasks"]]
    return [(row["label"], *cells(row[_PART], tasks), row[_PART]["problem"]) for row in rows]


def head_of(request: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the head of the table."""
    tasks = [task["name"] for task in request["suite"]["tasks"]]
    return ("recipe", request["objective"]["kind"], *tasks, "")


def headline(model: str, kind: str, request: Mapping[str, Any], found: Found) -> str:
    """Return what stands beside what, on one line."""
    what = {
        "methods": "every method with its default parameters and weights of 1",
        "ablation": "the steps of the recipe, and the recipe without each term",
        "line": "the line from the first term (0) to the second (1)",
    }[kind]
    prompts = sum(found["prompts"][_PART].values())
    return f"{model}: {what}; {prompts} prompts of {request['suite']['name']}"


def shown(kind: str, found: Found) -> list[Mapping[str, Any]]:
    """Return the rows in the order in which they are told: a rank, or the steps as they follow."""
    if kind == "methods":
        return ranked(found)
    return [*found["trials"], *([] if kind == "line" else [found["declared"]])]


def text(model: str, kind: str, request: Mapping[str, Any], found: Found) -> str:
    """Return the comparison as people read it on a terminal."""
    rows = rows_of(request, [*found["references"], *shown(kind, found)])
    lines = [headline(model, kind, request, found), "", *table(rows, head=head_of(request))]
    if kind == "line":
        lines += ["", *(f"barrier  {one.text()}" for one in barriers(request, found))]
    return "\n".join(lines)


def markdown(model: str, kind: str, request: Mapping[str, Any], found: Found) -> str:
    """Return the comparison as Markdown."""
    rows = rows_of(request, [*found["references"], *shown(kind, found)])
    blocks = [f"# {model}: {kind}", headline(model, kind, request, found)]
    blocks.append(page.markdown_table(head_of(request), rows))
    if kind == "line":
        blocks.append("\n".join(f"- {one.text()}" for one in barriers(request, found)))
    return "\n\n".join(blocks) + "\n"


def html(
    model: str,
    kind: str,
    request: Mapping[str, Any],
    found: Found,
    pictures: Mapping[str, bytes],
) -> str:
    """Return the comparison as one page that needs no other file and no network."""
    rows = shown(kind, found)
    classes = ["beside"] * len(found["references"])
    classes += ["main" if row["label"] == trials.DECLARED else "" for row in rows]
    cells = rows_of(request, [*found["references"], *rows])
    parts = [page.text(headline(model, kind, request, found))]
    parts.append(page.html_table(head_of(request), cells, classes))
    if kind == "line":
        parts += [page.text(one.text()) for one in barriers(request, found)]
    return page.html_page(f"{model}: {kind}", [*parts, *page.html_pictures(pictures)])


def as_data(model: str, kind: str, request: Mapping[str, Any], found: Found) -> dict[str, Any]:
    """Return the comparison as plain data for scripts."""
    data = {
        "model": model,
        "kind": kind,
        "request": dict(request),
        "references": found["references"],
        "recipes": shown(kind, found),
        "prompts": found["prompts"][_PART],
    }
    if kind == "line":
        data["barriers"] = [
            {"task": one.task, "height": one.height, "at": one.at, "one_basin": one.is_one_basin}
            for one in barriers(request, found)
        ]
    return data

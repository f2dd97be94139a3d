"""What is worth drawing of an analysis or of a build's report, as plain values. Draws nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, combinations
from operator import itemgetter
from typing import Any

from registry import trials_report
from registry.quality import Quality
from schemas.schedule import in_order, part_of
from schemas.utility import PERPLEXITY, kind_of


@dataclass(frozen=True, slots=True)
class Heatmap:
    """A matrix of numbers around `middle`; None where there is nothing to say."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    unit: str
    middle: float = 0.0
    reach: float = 1.0
    """Largest distance from the middle that the colours tell apart."""


@dataclass(frozen=True, slots=True)
class Bars:
    """Groups of bars, one bar per series in each; None where there is no bar."""

    title: str
    groups: tuple[str, ...]
    series: Mapping[str, tuple[float | None, ...]]
    unit: str
    mark: float | None = None
    """A value that means something, drawn as a line."""


@dataclass(frozen=True, slots=True)
class Lines:
    """Numbers over other numbers, one line per series; None where there is nothing to say.

    Without `is_joined` each is a cloud of points.
    """

    title: str
    xs: tuple[float, ...]
    series: Mapping[str, tuple[float | None, ...]]
    x_name: str
    unit: str
    is_joined: bool = True


Chart = Heatmap | Bars | Lines

_MOST_VALUES = 24
"""Of one number that a search tried: beyond that it is a cloud, not a curve."""


def short_names(labels: Sequence[str]) -> tuple[str, ...]:
    """Return labels without their kind, `sql@1` for `adapter sql@1`, where that says enough."""
    names = [label.partition(" ")[2] or label for label in labels]
    return tuple(
        label if names.count(name) > 1 else name for label, name in zip(labels, names, strict=True)
    )


def of_analysis(answer: Mapping[str, Any]) -> dict[str, Chart]:
    """Return the charts of an analysis by name; none if its terms touch nothing."""
    figures = answer["figures"]
    if not figures["parts"]:
        return {}
    names = short_names(figures["terms"])
    subject = answer["model"] or f"terms on {answer['base']}"
    parts = figures["parts"]
    places = tuple(part["part"] for part in parts)
    norms = {
        name: tuple(_present(part["terms"][term]) for part in parts)
        for term, name in enumerate(names)
    }
    charts: dict[str, Chart] = {"norms": _norms(subject, places, norms)}
    if len(names) > 1:
        charts["cosines"] = _cosines(subject, names, figures["total"]["cosines"])
        charts["sign-agreement"] = _agreement(subject, names, places, parts)
    if result := figures["total"]["result"]:
        charts["survival"] = Bars(
            title=f"{subject}: what is left of each term",
            groups=names,
            series={
                "projection of the result on the term": tuple(result["survival"]),
                "elements that keep their sign": tuple(result["signs_kept"]),
            },
            unit="share of the weighted term",
            mark=1.0,
        )
    return charts


def of_search(model: str, request: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Chart]:
    """Return the charts of a search by name: recipes beside each other, and what was tried."""
    shares = [one["name"] for one in request["suite"]["tasks"] if kind_of(one) != PERPLEXITY]
    charts: dict[str, Chart] = {}
    if shares:
        charts["recipes"] = _recipes(model, found, shares)
    rows = [row for row in found["candidates"] if not row["search"]["problem"]]
    if not rows:
        return charts
    objective = request["objective"]["kind"]
    for one in request["variables"]:
        if not one["layers"]:
            name = f"over-{one['label'].replace(' ', '-')}"
            charts[name] = _over(model, rows, one["label"], _curves(request, rows), objective)
    scores = [row["search"]["score"] for row in rows]
    charts["progress"] = Lines(
        title=f"{model}: the search",
        xs=tuple(float(row["number"]) for row in rows),
        series={"candidate": tuple(scores), "best so far": tuple(accumulate(scores, max))},
        x_name="candidate",
        unit=objective,
    )
    return charts


def _recipes(model: str, found: Mapping[str, Any], tasks: Sequence[str]) -> Bars:
    rows = {
        **{row["label"]: row for row in found["references"]},
        "declared": found["declared"],
        **{row["label"]: row for row in found["trials"]},
    }
    if found["best"]:
        rows["tuned"] = found["best"]
    part = "held_out" if "held_out" in found["prompts"] else "search"
    series = {
        label: tuple(row[part]["metrics"].get(task) for task in tasks)
        for label, row in rows.items()
    }
    where = "the prompts held out" if part == "held_out" else "all prompts"
    return Bars(f"{model}: recipes on {where}", tuple(tasks), series, unit="share")


def _curves(
    request: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Callable[[Mapping[str, float]], float]]:
    """Return what is drawn of the tasks that candidates were asked, all between 0 and 1."""
    curves: dict[str, Callable[[Mapping[str, float]], float]] = {}
    for task in request["suite"]["tasks"]:
        name = task["name"]
        if name in rows[0]["search"]["metrics"]:
            if kind_of(task) == PERPLEXITY:
                curves[f"1 / {name}"] = partial(_inverse, name)
            else:
                curves[name] = itemgetter(name)
    return curves


def _inverse(task: str, metrics: Mapping[str, float]) -> float:
    return 1 / metrics[task]


def _over(
    model: str,
    rows: Sequence[Mapping[str, Any]],
    label: str,
    curves: Mapping[str, Callable[[Mapping[str, float]], float]],
    objective: str,
) -> Lines:
    """Return quality over one number: at each of its values the best candidate that has it.

    Where there are many values, every candidate is a point.
    """
    values = sorted({float(row["values"][label]) for row in rows})
    is_curve = len(values) <= _MOST_VALUES
    if is_curve:
        chosen = [
            max(
                (row for row in rows if row["values"][label] == value),
                key=lambda row: (row["search"]["score"], row["search"]["mean"]),
            )
            for value in values
        ]
    else:
        chosen = sorted(rows, key=lambda row: float(row["values"][label]))
    series = {
        curve: tuple(value(row["search"]["metrics"]) for row in chosen)
        for curve, value in curves.items()
    }
    best = " (the best of the others at each)" if is_curve and len(chosen) < len(rows) else ""
    return Lines(
        title=f"{model}: quality over {label}{best}",
        xs=tuple(float(row["values"][label]) for row in chosen),
        series={**series, objective: tuple(row["search"]["score"] for row in chosen)},
        x_name=label,
        unit="on the prompts searched on",
        is_joined=is_curve,
    )


def of_trials(
    model: str, kind: str, request: Mapping[str, Any], found: Mapping[str, Any]
) -> dict[str, Chart]:
    """Return the chart of recipes beside each other: curves along a line, else bars in order."""
    tasks = [one["name"] for one in request["suite"]["tasks"]]
    shares = [one["name"] for one in request["suite"]["tasks"] if kind_of(one) != PERPLEXITY]
    rows = [row for row in trials_report.shown(kind, found) if not row["search"]["problem"]]
    if not rows:
        return {}
    series = {
        task: tuple(row["search"]["metrics"][task] for row in rows)
        for task in (tasks if kind == "line" else shares)
    }
    if kind == "line":
        return {
            f"line-{task}": Lines(
                title=f"{model}: {task} from the first term to the second",
                xs=tuple(float(row["label"]) for row in rows),
                series={task: values},
                x_name="share of the second term",
                unit=task,
            )
            for task, values in series.items()
        }
    if not series:
        return {}
    labels = tuple(row["label"] for row in rows)
    return {kind: Bars(f"{model}: {kind}, side by side", labels, series, unit="share")}


def of_quality(model: str, quality: Quality) -> dict[str, Chart]:
    """Return the charts of a quality report: every model beside the others, and what was kept."""
    tasks = [one.task for one in quality.tasks if one.metric != "perplexity"]
    charts: dict[str, Chart] = {}
    if tasks:
        charts["tasks"] = Bars(
            f"{model}: base, ingredients alone, merged",
            tuple(tasks),
            {
                label: tuple(metrics.get(task) for task in tasks)
                for label, metrics in quality.models.items()
            },
            unit="share",
        )
    charts["retention"] = Bars(
        f"{model}: what is kept of the best ingredient",
        tuple(one.task for one in quality.tasks),
        {"retention": tuple(one.retention for one in quality.tasks)},
        unit="share of the best ingredient alone",
        mark=1.0,
    )
    return charts


def of_build(model: str, statistics: Mapping[str, Any]) -> tuple[dict[str, Chart], dict[str, Any]]:
    """Return the charts of a build's statistics by name, and their numbers as plain data."""
    labels = [term["term"] for term in statistics["terms"]]
    names = short_names(labels)
    parts = _parts(statistics["tensors"], len(labels))
    places = tuple(part["part"] for part in parts)
    norms = {name: tuple(part["norms"][term] for part in parts) for term, name in enumerate(names)}
    charts: dict[str, Chart] = {"norms": _norms(model, places, norms)} if parts else {}
    if charts and len(names) > 1:
        charts["cosines"] = _cosines(model, names, statistics["cosines"])
        charts["sign-conflict"] = Bars(
            title=f"{model}: where terms pull both ways",
            groups=places,
            series={"sign conflict": tuple(part["sign_conflict"] for part in parts)},
            unit="share of the elements that any term reaches",
        )
    data = {
        "terms": labels,
        "cosines": statistics["cosines"],
        "sign_conflict": statistics["sign_conflict"],
        "parts": parts,
    }
    return charts, data


def _parts(tensors: Mapping[str, Any], terms: int) -> list[dict[str, Any]]:
    """Return norms and sign conflict per part of the model from rows per tensor.

    The conflict of a part is the mean over its tensors, weighted by their elements.
    """
    rows = {
        name: dict(zip(tensors["columns"], row, strict=True))
        for name, row in tensors["rows"].items()
    }
    found = []
    for part in in_order({part_of(name) for name in rows}):
        members = [rows[name] for name in sorted(rows) if part_of(name) == part]
        elements = sum(row["elements"] for row in members)
        conflicts = sum(row["elements"] * row["sign_conflict"] for row in members)
        found.append(
            {
                "part": part,
                "elements": elements,
                "norms": [_norm(members, term) for term in range(terms)],
                "sign_conflict": conflicts / elements if elements else 0.0,
            }
        )
    return found


def _norm(rows: Iterable[Mapping[str, Any]], term: int) -> float | None:
    norms = [row["norms"][row["terms"].index(term)] for row in rows if term in row["terms"]]
    return math.hypot(*norms) if norms else None


def _present(term: Mapping[str, Any]) -> float | None:
    return float(term["norm"]) if term["tensors"] else None


def _norms(
    subject: str, places: tuple[str, ...], norms: Mapping[str, tuple[float | None, ...]]
) -> Bars:
    title = f"{subject}: how far each term moves the base"
    return Bars(title, places, norms, unit="norm of the change, ‖τ‖")


def _cosines(subject: str, names: tuple[str, ...], cosines: Sequence[Sequence[float]]) -> Heatmap:
    values = tuple(tuple(row) for row in cosines)
    return Heatmap(f"{subject}: cosines of the terms", names, names, values, unit="cosine")


def _agreement(
    subject: str, names: tuple[str, ...], places: tuple[str, ...], parts: Sequence[Any]
) -> Heatmap:
    pairs = list(combinations(range(len(names)), 2))
    values = tuple(tuple(part["sign_agreement"][a][b] for a, b in pairs) for part in parts)
    seen = [abs(value - 0.5) for row in values for value in row if value is not None]
    # Dense changes agree on about half of their elements: the colours must show what is beside it.
    reach = max(0.05, math.ceil(20 * max(seen, default=0.0)) / 20)
    return Heatmap(
        title=f"{subject}: share of elements with the same sign",
        rows=places,
        columns=tuple(f"{names[a]} · {names[b]}" for a, b in pairs),
        values=values,
        unit="share of elements; 0.5 is chance",
        middle=0.5,
        reach=min(reach, 0.5),
    )

"""A search as a table, Markdown, JSON and one HTML page: what was tried and what came of it. Pure.

Every number is told twice where prompts were held out: on those that the search looked at, and on
those that it did not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from registry import page
from registry.report import table, weight_text
from schemas.expression import number

PARTS = ("search", "held_out")
_PART_NAMES = {"search": "searched on", "held_out": "held out"}


@dataclass(frozen=True, slots=True)
class Line:
    """One recipe in the table: a reference, a given recipe, or what was found."""

    label: str
    kind: str
    values: str
    parts: Mapping[str, Mapping[str, Any]]


def lines(found: Mapping[str, Any]) -> list[Line]:
    """Return the rows of the table: references, the declared recipe, others, the best one."""
    kinds = (
        ("reference", found["references"]),
        ("recipe", [found["declared"]]),
        ("recipe", found["trials"]),
    )
    rows = [_line(one, kind, "") for kind, many in kinds for one in many]
    if best := found["best"]:
        rows.append(_line({**best, "label": "tuned"}, "tuned", values_text(best["values"])))
    return rows


def _line(row: Mapping[str, Any], kind: str, values: str) -> Line:
    parts = {part: row[part] for part in PARTS if part in row}
    return Line(row["label"], kind, values, parts)


def values_text(values: Mapping[str, Any]) -> str:
    """Return the values of a candidate on one line."""
    return ", ".join(
        f"{label} {weight_text(value).lstrip('+') if isinstance(value, Mapping) else number(value)}"
        for label, value in values.items()
    )


def is_better(found: Mapping[str, Any]) -> bool:
    """Return whether the best candidate beats the declared recipe on what was searched on."""
    best, declared = found["best"], found["declared"]["search"]
    if best is None:
        return False
    if declared["score"] is None:
        return True
    pairs = [(one["score"], one["mean"]) for one in (best["search"], declared)]
    return bool(pairs[0] > pairs[1])


def text(model: str, request: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Return a search as people read it on a terminal."""
    return "\n".join([headline(model, request, found), "", *_tables(request, found)])


def headline(model: str, request: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Return what was searched, on how much, and why it ended."""
    strategy = request["strategy"]["name"].replace("_", "-")
    varied = ", ".join(one["label"] for one in request["variables"]) or "nothing"
    prompts = {part: sum(many.values()) for part, many in found["prompts"].items()}
    held = f", {prompts['held_out']} held out" if "held_out" in prompts else ""
    ended = {
        "all was tried": "all of them",
        "evaluations": "the budget of evaluations",
        "time": "the budget of minutes",
    }.get(found["ended"], found["ended"])
    return (
        f"{model}: {strategy} over {varied}; {len(found['candidates'])} candidates ({ended}), "
        f"{prompts['search']} prompts of {request['suite']['name']} each{held}"
    )


def _tables(request: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    for head, rows, _ in _part_tables(request, found):
        yield from table(rows, head=head)
        yield ""
    tasks = [task["name"] for task in request["suite"]["tasks"]]
    if found["front"]:
        yield f"{len(found['front'])} candidates that none beats in every task:"
        yield from (f"  {line}" for line in _front(found, tasks))


def cells(part: Mapping[str, Any], tasks: Sequence[str]) -> tuple[str, ...]:
    """Return the score of a row, then its tasks; dashes where it cannot be measured."""
    if part["problem"]:
        return ("-", *("-" for _ in tasks))
    score = "" if part.get("score") is None else f"{part['score']:.3g}"
    return (score, *(_number(part["metrics"].get(task)) for task in tasks))


def _number(value: float | None) -> str:
    """Return a metric; nothing for a task that candidates are not asked."""
    return "" if value is None else f"{value:.3g}"


def _front(found: Mapping[str, Any], tasks: Sequence[str]) -> Iterator[str]:
    rows = [row for row in found["candidates"] if row["number"] in set(found["front"])]
    rows.sort(key=lambda row: (-row["search"]["score"], row["number"]))
    return table(
        [
            (f"#{row['number']}", *cells(row["search"], tasks), values_text(row["values"]))
            for row in rows[:12]
        ]
    )


def as_data(
    model: str,
    request: Mapping[str, Any],
    found: Mapping[str, Any],
    *,
    key: str,
    proposal: str,
) -> dict[str, Any]:
    """Return a search as plain data for scripts; `proposal` is the diff of the spec."""
    return {"model": model, "key": key, "request": request, **found, "proposal": proposal}


def markdown(
    model: str, request: Mapping[str, Any], found: Mapping[str, Any], proposal: str
) -> str:
    """Return a search as Markdown."""
    blocks = [f"# {_title(model)}", headline(model, request, found)]
    blocks += [page.markdown_table(head, rows) for head, rows, _ in _part_tables(request, found)]
    blocks += [f"**{one}**" for one in hints(request, found)]
    blocks.append(f"```diff\n{proposal}```" if proposal else _NOTHING_TO_CHANGE)
    return "\n\n".join(blocks) + "\n"


_NOTHING_TO_CHANGE = "The declared recipe is as good as any that was tried: nothing to change."


def _title(model: str) -> str:
    return f"{model}, tuned"


def _part_tables(
    request: Mapping[str, Any], found: Mapping[str, Any]
) -> Iterator[tuple[tuple[str, ...], list[tuple[str, ...]], list[str]]]:
    """Yield a table per part of the prompts: head, rows, kinds of the rows."""
    tasks = [task["name"] for task in request["suite"]["tasks"]]
    for part in found["prompts"]:
        inside = [one for one in lines(found) if part in one.parts]
        head = (_PART_NAMES[part], request["objective"]["kind"], *tasks, "values")
        rows = [(one.label, *cells(one.parts[part], tasks), one.values) for one in inside]
        yield head, rows, [_CLASSES.get(one.kind, "") for one in inside]


_CLASSES = {"tuned": "main", "reference": "beside"}


def html(
    model: str,
    request: Mapping[str, Any],
    found: Mapping[str, Any],
    proposal: str,
    pictures: Mapping[str, bytes],
) -> str:
    """Return a search as one page that needs no other file and no network."""
    parts = [page.text(headline(model, request, found))]
    parts += [page.html_table(*one) for one in _part_tables(request, found)]
    parts += [page.text(one) for one in hints(request, found)]
    if proposal:
        parts += [page.heading("Proposed edit"), page.code(proposal)]
    else:
        parts.append(page.text(_NOTHING_TO_CHANGE))
    return page.html_page(_title(model), [*parts, *page.html_pictures(pictures)])


def hints(request: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Return what to beware of and to try next.

    What is best only where it was searched was chosen by chance; a best value at the end of its
    range may lie beyond it.
    """
    if not found["best"]:
        return []
    told = []
    before, after = (found[one].get("held_out", {}).get("score") for one in ("declared", "best"))
    if before is not None and after is not None and after < before:
        told.append(
            "on the prompts held out the declared values are better: keep them, or search with more"
            " prompts"
        )
    for one in request["variables"]:
        value = found["best"]["values"][one["label"]]
        ends = (one["low"], one["high"])
        if not isinstance(value, Mapping) and ends[0] < ends[1] and value in ends:
            least = "least" if value == ends[0] else "largest"
            told.append(
                f"{one['label']} {number(value)} is the {least} that was tried: widen its range"
            )
    return told


def reasons(request: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Return why the proposed values are better, on one line."""
    best, declared = found["best"]["search"], found["declared"]["search"]
    kind = request["objective"]["kind"]
    before = "not measurable" if declared["score"] is None else f"{declared['score']:.3g}"
    told = f"{kind} {before} -> {best['score']:.3g} where it was searched"
    if "held_out" in found["best"]:
        out = [found[one]["held_out"]["score"] for one in ("declared", "best")]
        shown = ["not measurable" if one is None else f"{one:.3g}" for one in out]
        told += f", {shown[0]} -> {shown[1]} on the prompts held out"
    return told


def changes(
    found: Mapping[str, Any], places: Mapping[str, tuple[str | int, ...]]
) -> dict[tuple[str | int, ...], Any]:
    """Return the values to write into the spec, by their places."""
    return {places[label]: value for label, value in found["best"]["values"].items()}

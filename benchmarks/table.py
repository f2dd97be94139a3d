"""The rows of a run as text for a terminal and as Markdown for the docs. Measures nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.goals import Check, Cost, Row
from benchmarks.measure import Spread

HEAD = (
    "what",
    "CPU s",
    "wall s",
    "MB",
    "peer",
    "CPU s",
    "wall s",
    "MB",
    "goal",
    "found",
    "",
)
_VERDICTS = {True: "met", False: "MISSED", None: "–"}
_LEFT = (0, 4, 8, 9, 10)


def text(rows: Iterable[Row]) -> str:
    """Return the table in columns; the last line counts the goals."""
    known = list(rows)
    lines = [HEAD, *_cells(known)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(HEAD))]
    shown = ["  ".join(_padded(line, widths)).rstrip() for line in lines]
    return "\n".join([*shown, summary(known)])


def markdown(rows: Iterable[Row]) -> str:
    """Return the table as Markdown; a row with several goals takes a line for each."""
    marks = "|" + "|".join("---" if place in _LEFT else "---:" for place in range(len(HEAD)))
    lines = [f"| {' | '.join(cells)} |" for cells in _cells(rows)]
    return "\n".join([f"| {' | '.join(HEAD)} |", f"{marks}|", *lines])


def summary(rows: Iterable[Row]) -> str:
    """Return how many goals were met, as a sentence."""
    judged = [check.is_met for row in rows for check in row.checks if check.is_met is not None]
    return f"{sum(judged)} of {len(judged)} goals met"


def number(value: float) -> str:
    """Return a number with three digits or all before the point, none in exponents."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def with_spread(values: Spread) -> str:
    """Return the median, and the least and largest where there was more than one run."""
    if values.count == 1:
        return number(values.median)
    return f"{number(values.median)} ({number(values.least)}–{number(values.largest)})"


def _cells(rows: Iterable[Row]) -> list[Sequence[str]]:
    found: list[Sequence[str]] = []
    for row in rows:
        first, *others = row.checks or (None,)
        known = (row.title, *_cost(row.ours), row.peer_name, *_cost(row.peer))
        found.append((*known, *_check(first)))
        found += [(*[""] * len(known), *_check(check)) for check in others]
    return found


def _cost(cost: Cost | None) -> tuple[str, str, str]:
    if cost is None:
        return "", "", ""
    return with_spread(cost.cpu), with_spread(cost.wall), f"{cost.peak.largest / 1e6:.0f}"


def _check(check: Check | None) -> tuple[str, str, str]:
    if check is None:
        return "", "", ""
    return check.goal, check.found, _VERDICTS[check.is_met]


def _padded(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        cell.ljust(width) if place in _LEFT else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]

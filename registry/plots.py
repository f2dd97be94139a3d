"""Charts as PNG and SVG: matplotlib, and only here.

The same chart gives the same bytes with the same matplotlib: no date, no random name. Text stays
text in the SVG. Colours can be told apart by colour-blind readers; bars differ in hatching too
where there are more of them than colours.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from registry.charts import Bars, Chart, Heatmap, Lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito 2008, "Color Universal Design"; yellow is left out, on white it is lost.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#555555")
_HATCHES = ("", "///", "...", "xxx")
_MARKERS = ("o", "s", "^", "x")
_DIVERGING = "PuOr"  # purple to orange through white: safe for every kind of colour blindness
_SETTINGS: Any = {
    "svg.hashsalt": "merge-registry",
    "svg.fonttype": "none",
    "font.size": 9,
    "hatch.linewidth": 0.5,
}
_DOTS_PER_INCH = 110
_LARGEST_INCHES = 40.0
_INCHES_PER_LETTER = 0.085  # of a title
_BARS_PER_ROW = 130
_ANNOTATED_CELLS = 400


def draw(charts: Mapping[str, Chart]) -> dict[str, bytes]:
    """Return every chart as `NAME.png` and `NAME.svg`."""
    import matplotlib as mpl

    files = {}
    with mpl.rc_context(_SETTINGS):
        for name, chart in charts.items():
            figure = _figure(chart)
            files[f"{name}.png"] = _saved(figure, "png", {"Software": None})
            figure.set_layout_engine("none")  # what fits once fits again, and fitting is slow
            files[f"{name}.svg"] = _saved(figure, "svg", {"Date": None, "Creator": None})
    return files


def _figure(chart: Chart) -> Figure:
    if isinstance(chart, Heatmap):
        return _heatmap(chart)
    return _lines(chart) if isinstance(chart, Lines) else _bars(chart)


def _saved(figure: Figure, form: str, metadata: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=_DOTS_PER_INCH, metadata=dict(metadata))
    return buffer.getvalue()


def _empty(title: str, width: float, height: float) -> Figure:
    # Not pyplot: it keeps every figure alive and looks for a display.
    from matplotlib.figure import Figure

    width = max(width, 0.4 + _INCHES_PER_LETTER * len(title))
    size = (min(width, _LARGEST_INCHES), min(height, _LARGEST_INCHES))
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", size=10)
    return figure


def _heatmap(chart: Heatmap) -> Figure:
    longest = max(map(len, chart.columns))
    width = 2.6 + max(3.2, 0.55 * len(chart.columns))
    height = 1.2 + 0.07 * longest + max(1.4, 0.26 * len(chart.rows))
    figure = _empty(chart.title, width, height)
    axes = figure.add_subplot()
    numbers = [[float("nan") if cell is None else cell for cell in row] for row in chart.values]
    lowest, highest = chart.middle - chart.reach, chart.middle + chart.reach
    image = axes.imshow(numbers, cmap=_DIVERGING, vmin=lowest, vmax=highest, aspect="auto")
    axes.set_facecolor("#cccccc")  # what is not known
    axes.set_xticks(range(len(chart.columns)), chart.columns, rotation=45, ha="right")
    axes.set_yticks(range(len(chart.rows)), chart.rows)
    axes.tick_params(length=0)
    figure.colorbar(image, ax=axes, label=chart.unit, fraction=min(0.15, 0.9 / width), pad=0.02)
    if len(chart.rows) * len(chart.columns) <= _ANNOTATED_CELLS:
        _annotate(axes, chart)
    return figure


def _annotate(axes: Axes, chart: Heatmap) -> None:
    for row, cells in enumerate(chart.values):
        for column, cell in enumerate(cells):
            if cell is None:
                continue
            is_dark = abs(cell - chart.middle) > 0.6 * chart.reach
            colour = "white" if is_dark else "black"
            axes.text(column, row, f"{cell:.2f}", ha="center", va="center", color=colour, size=8)


def _bars(chart: Bars) -> Figure:
    count = len(chart.series)
    # Long rows of groups are broken into several, one below the other.
    rows = max(1, math.ceil(len(chart.groups) * count / _BARS_PER_ROW))
    step = math.ceil(len(chart.groups) / rows)
    starts = range(0, len(chart.groups), step)
    width = max(7.0, 1.5 + step * max(0.3, 0.09 * (count + 1)))
    figure = _empty(chart.title, width, 2.9 * len(starts) + 0.7 + 0.2 * ((count + 3) // 4))
    many = figure.subplots(len(starts), 1, sharey=True, squeeze=False)[:, 0]
    for axes, start in zip(many, starts, strict=True):
        _row(axes, chart, range(start, min(start + step, len(chart.groups))))
        axes.set_xlim(start - 0.6, start + step - 0.4)
    if count > 1:
        handles, labels = many[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=min(count, 4), frameon=False
        )
    return figure


def _row(axes: Axes, chart: Bars, groups: range) -> None:
    count = len(chart.series)
    thickness = 0.8 / count
    for number, (name, values) in enumerate(chart.series.items()):
        offset = (number - (count - 1) / 2) * thickness
        shown = {group + offset: value for group in groups if (value := values[group]) is not None}
        hatch = _HATCHES[number // len(_COLOURS) % len(_HATCHES)]
        colour = _COLOURS[number % len(_COLOURS)]
        axes.bar(
            list(shown), list(shown.values()), thickness, label=name, color=colour, hatch=hatch
        )
    if chart.mark is not None:
        axes.axhline(chart.mark, color="black", linewidth=0.8, linestyle="--")
    is_long = len(groups) > 8 or max(map(len, chart.groups)) > 12
    angle: dict[str, Any] = {"rotation": 45, "ha": "right"} if is_long else {}
    axes.set_xticks(groups, [chart.groups[group] for group in groups], **angle)
    axes.set_ylabel(chart.unit)
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)
    axes.set_axisbelow(True)


def _lines(chart: Lines) -> Figure:
    figure = _empty(chart.title, 7.0, 3.9 + 0.2 * ((len(chart.series) + 3) // 4))
    axes = figure.add_subplot()
    for number, (name, values) in enumerate(chart.series.items()):
        shown = [(x, value) for x, value in zip(chart.xs, values, strict=True) if value is not None]
        marker = _MARKERS[number // len(_COLOURS) % len(_MARKERS)]
        axes.plot(
            [x for x, _ in shown],
            [value for _, value in shown],
            color=_COLOURS[number % len(_COLOURS)],
            linestyle="-" if chart.is_joined else "none",
            marker=marker,
            markersize=4,
            label=name,
        )
    axes.set_xlabel(chart.x_name)
    axes.set_ylabel(chart.unit)
    axes.grid(linewidth=0.4, alpha=0.5)
    axes.set_axisbelow(True)
    if len(chart.series) > 1:
        figure.legend(loc="outside lower center", ncols=min(len(chart.series), 4), frameon=False)
    return figure

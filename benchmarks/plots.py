"""The plots of the docs as SVG: cost by terms, size and number of specs. Measures nothing."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from benchmarks import commands, dvc_stages
from benchmarks.goals import cost, peaks_by_layers
from benchmarks.models import MOST_LAYERS, Shape, name_of
from benchmarks.parts import LAYERS, SCALED, SMALL, TERMS, key_of, of_terms
from benchmarks.session import Results

# Okabe and Ito 2008, "Color Universal Design"; markers tell the lines apart without colour.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
_MARKERS = ("o", "s", "^", "D")
_SETTINGS: Any = {
    "svg.hashsalt": "merge-registry",
    "svg.fonttype": "none",
    "font.size": 9,
}
_HEADROOM = 1.2
_TOOLS = {"ours": "merge-registry", "mergekit": "mergekit"}


@dataclass(frozen=True, slots=True)
class Lines:
    """One plot: points by the name of their line."""

    title: str
    x: str
    y: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    logarithmic: str = ""
    """Which axes are: x, y, xy or none."""


def draw(results: Results) -> dict[str, bytes]:
    """Return every plot for which there are points, by file name."""
    plots = {
        "benchmarks-terms.svg": _by_terms(results),
        "benchmarks-size.svg": _by_size(results),
        "benchmarks-memory.svg": _by_layers(results),
        "benchmarks-specs.svg": _by_specs(results),
    }
    return {name: _svg(plot) for name, plot in plots.items() if plot.lines}


def _by_terms(results: Results) -> Lines:
    lines = {}
    for case, who in product(SCALED, _TOOLS):
        keys = {n: key_of(SMALL, of_terms(case, n).key, who) for n in TERMS}
        lines[f"{case.method}, {_TOOLS[who]}"] = _points(results, keys)
    title = f"CPU seconds by number of fine-tunes, {name_of(SMALL)}"
    return Lines(title, "terms", "CPU s", _drawn(lines), logarithmic="y")


def _by_size(results: Results) -> Lines:
    shapes = [SMALL, *(Shape(layers) for layers in (*LAYERS, MOST_LAYERS))]
    lines = {}
    for case, who in product(SCALED, _TOOLS):
        keys = {one.parameters / 1e9: key_of(one, case.key, who) for one in shapes}
        lines[f"{case.method}, {_TOOLS[who]}"] = _points(results, keys)
    title = "CPU seconds by size, three fine-tunes"
    return Lines(title, "parameters, billions", "CPU s", _drawn(lines), logarithmic="xy")


def _by_layers(results: Results) -> Lines:
    lines = {
        case.method: [(float(n), peak / 1e6) for n, peak in known.items()]
        for case in SCALED
        if (known := peaks_by_layers(results, case.key))
    }
    title = "Peak memory by layers, three fine-tunes"
    return Lines(title, "layers of width 2048", "MB", _drawn(lines))


def _by_specs(results: Results) -> Lines:
    named = {
        "sync, nothing to do": "sync",
        "plan after one edit": "plan",
        "cold validate": "validate",
        "dvc status": "dvc",
    }
    counts = sorted({*commands.COUNTS, *dvc_stages.COUNTS})
    lines = {
        name: _points(results, {n: f"{prefix}/{n}" for n in counts})
        for name, prefix in named.items()
    }
    title = "CPU seconds by number of models in the catalog"
    return Lines(title, "models", "CPU s", _drawn(lines), logarithmic="xy")


def _points(results: Results, keys: Mapping[Any, str]) -> list[tuple[float, float]]:
    return [
        (float(x), cost(samples).cpu.median)
        for x, key in keys.items()
        if (samples := results.of(key))
    ]


def _drawn(
    lines: Mapping[str, Sequence[tuple[float, float]]],
) -> dict[str, Sequence[tuple[float, float]]]:
    return {name: points for name, points in lines.items() if points}


def _svg(plot: Lines) -> bytes:
    import matplotlib as mpl
    from matplotlib.figure import Figure  # not pyplot: it looks for a display
    from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, StrMethodFormatter

    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.subplots()
        for place, (name, points) in enumerate(plot.lines.items()):
            xs, ys = zip(*points, strict=True)
            axes.plot(xs, ys, color=_COLOURS[place], marker=_MARKERS[place], label=name)
        if "x" in plot.logarithmic:
            axes.set_xscale("log")
        if "y" in plot.logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        else:
            axes.set_ylim(0, _HEADROOM * max(y for line in plot.lines.values() for _, y in line))
        measured = sorted({round(x, 2) for line in plot.lines.values() for x, _ in line})
        axes.xaxis.set_major_locator(FixedLocator(measured))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
        axes.set(title=plot.title, xlabel=plot.x, ylabel=plot.y)
        axes.grid(visible=True, alpha=0.3)
        axes.legend(frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()

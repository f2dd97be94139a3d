"""Reports with pictures that MLflow shows of a build, made from what the build left.

Nothing is computed again, and nothing here may fail a sync: a build without pictures is a build.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from registry import charts, quality_report
from registry.quality import Quality

_log = logging.getLogger(__name__)
_FORMAT_VERSION = 1


def of_report(model: str, report: Mapping[str, Any]) -> dict[str, bytes]:
    """Return `analysis/*.png`, `*.svg` and their numbers as JSON; nothing if it cannot be drawn."""
    statistics = report.get("statistics")
    if not statistics:
        return {}
    try:
        # Late: matplotlib is imported only when something is drawn.
        from registry import plots

        drawn, data = charts.of_build(model, statistics)
        files = plots.draw(drawn)
    except Exception as error:  # noqa: BLE001 a picture is worth no failed sync
        _log.warning("%s: not drawn: %s", model, error)
        return {}
    figures = {"format_version": _FORMAT_VERSION, "model": model, **data}
    files["figures.json"] = json.dumps(figures, indent=2, ensure_ascii=False).encode()
    return {f"analysis/{name}": content for name, content in files.items()}


def of_quality(
    model: str, quality: Quality, verdicts: Sequence[Mapping[str, Any]]
) -> dict[str, bytes]:
    """Return the quality report as Markdown, JSON and HTML, and its plots if they can be drawn."""
    try:
        from registry import plots

        drawn = plots.draw(charts.of_quality(model, quality))
    except Exception as error:  # noqa: BLE001 as above
        _log.warning("%s: not drawn: %s", model, error)
        drawn = {}
    data = quality_report.as_data(model, quality, verdicts)
    return {
        "quality.json": json.dumps(data, indent=2, ensure_ascii=False).encode(),
        "quality.md": quality_report.markdown(model, quality, verdicts).encode(),
        "quality.html": quality_report.html(model, quality, verdicts, drawn).encode(),
        **drawn,
    }

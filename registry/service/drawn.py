"""Plots of a model: what is worth drawing of its build and its quality, and the drawings as files.

Runs in a child of the service (see `reading`); computes no number.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from registry import keys, quality
from registry.cli.session import Session, open_session
from registry.record import BuildRecord


def charts_of(session: Session, known: BuildRecord) -> list[tuple[str, Any]]:
    """Return the charts of a build and of its quality, by the names of their files."""
    from registry import charts

    found: list[tuple[str, Any]] = []
    if known.evaluation:
        suites = session.loaded.catalog.suites
        if told := quality.of_evaluation(known.evaluation, suites):
            drawn = charts.of_quality(known.model, told)
            found += [(f"quality-{name}.svg", one) for name, one in drawn.items()]
    report = keys.read_report(session.store.cache, known.built.key) if known.built else None
    if report and report.get("statistics"):
        drawn, _ = charts.of_build(known.model, report["statistics"])
        found += [(f"build-{name}.svg", one) for name, one in drawn.items()]
    return found


def plots(root: Path, name: str) -> dict[str, str]:
    """Return the plots of a model by name, each as the path of an SVG file of the service's own.

    They are drawn from the reports in the store, as far as there are, and kept until they change.
    """
    session = open_session(root)
    known = session.observed().recorded.get(name)
    found = dict(charts_of(session, known)) if isinstance(known, BuildRecord) else {}
    if not found:
        return {}
    mine = root.parent / "plots" / name  # beside the clone: what is in that was made by others
    folder = mine / sha256(repr(found).encode()).hexdigest()[:16]
    if not folder.is_dir():
        shutil.rmtree(mine, ignore_errors=True)
        _draw(found, folder)
    return {file: str(folder / file) for file in found}


def _draw(charts: Mapping[str, Any], folder: Path) -> None:
    from registry import plots as pictures  # matplotlib takes a second

    drawn = pictures.draw({file.removesuffix(".svg"): one for file, one in charts.items()})
    unfinished = folder.with_suffix(".new")
    unfinished.mkdir(parents=True)
    for file in charts:
        (unfinished / file).write_bytes(drawn[file])
    unfinished.rename(folder)

"""Measure a merged model against its base with switched adapters: ask workers. Builds nothing.

Three orders, each to a process that nothing was done in before: the merged model alone and the base
with its adapters alone, whose memory and time to open are then their own; last, both in one
process, in turn, whose speeds can be compared.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from registry import evaluation, inputs
from registry.keys import Artifact
from registry.serving_request import MERGED, SWITCHED
from registry.world import World

_STAGES = {
    (MERGED,): "open the merged model alone",
    (SWITCHED,): "open the base with its adapters alone",
    (MERGED, SWITCHED): "measure both in turn",
}
_OF_PROCESS = ("resident_before_bytes", "resident_opened_bytes", "cuda_peak_bytes")


def measure(
    world: World,
    model: str,
    request: Mapping[str, Any],
    *,
    artifact: Artifact,
    sources: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the figures of a serving request; `sources` are the base and the adapters, pinned.

    Raises BuildFailed and VerificationFailed as an evaluation does.
    """
    scratch = world.store.staging()
    try:
        with world.turn:
            folder = scratch / "model"
            world.store.materialize(artifact, folder, link=True)
            folders = {
                **inputs.folders_of(world, sources, scratch),
                artifact.model_digest: str(folder),
            }
            reports = {sides: _run(world, model, request, folders, sides) for sides in _STAGES}
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return _joined(reports)


def _run(
    world: World,
    model: str,
    request: Mapping[str, Any],
    folders: Mapping[str, str],
    sides: tuple[str, ...],
) -> dict[str, Any]:
    """Return the report of a new process with these sides; one repeat is enough for memory."""
    world.executor.renew()
    world.observer.stage(model, _STAGES[sides])
    repeats = request["repeats"] if len(sides) > 1 else 1
    asked = {**request, "sides": list(sides), "repeats": repeats}
    return world.run(model, evaluation.order_for(world, "serve", asked, folders))


def _joined(reports: Mapping[tuple[str, ...], Mapping[str, Any]]) -> dict[str, Any]:
    """Return speeds of the process that had both, and of each side what it took alone."""
    both = reports[MERGED, SWITCHED]
    alone = {side: reports[(side,)] for side in (MERGED, SWITCHED)}
    return {
        "device_class": both["device_class"],
        "versions": both["versions"],
        **{name: both["serving"][name] for name in ("threads", "dtype", "rows", "switch")},
        "sides": {side: _side(side, report) for side, report in alone.items()},
        "seconds": round(sum(report["seconds"] for report in reports.values()), 3),
    }


def _side(side: str, report: Mapping[str, Any]) -> dict[str, Any]:
    found = report["serving"]
    memory = {name: found[name] for name in _OF_PROCESS}
    return {**found["sides"][side], **memory, "resident_peak_bytes": report["peak_bytes"]}

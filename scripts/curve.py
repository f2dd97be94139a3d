"""Measure a merge against the weight of one of its terms; the curve goes to MLflow and the screen.

    python scripts/curve.py MODEL TERM WEIGHT [WEIGHT ...]
    python scripts/curve.py polite-notes shout@1 0 -0.5 -1

Every point is built, measured on the model's suite and thrown away; nothing is published.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from registry import evaluation, lock, observation, report
from registry.cli.acting import open_world
from registry.cli.session import open_session
from registry.record import input_label
from registry.world import World
from schemas.expression import reference


def with_weight(request: Mapping[str, Any], term: str, weight: float) -> dict[str, Any]:
    """Return a build request in which one term has another weight."""
    recipe = request["recipe"]
    terms = [
        {**one, "weight": weight} if reference(one["input"]) == term else one
        for one in recipe["terms"]
    ]
    return {**request, "recipe": {**recipe, "terms": terms}}


def main() -> int:
    """Measure, log and print the curve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("term", help="as in the expression: shout@1")
    parser.add_argument("weights", type=float, nargs="+")
    # A negative number is a weight here, not an option.
    given = parser.parse_args([*sys.argv[1:3], "--", *sys.argv[3:]])
    session = open_session(Path())
    session.require([given.model])
    declared = session.declared[given.model]
    request = declared.pin(_digests(session.root, declared.upstream))
    known = {reference(one["input"]): one["input"] for one in request["recipe"]["terms"]}
    if given.term not in known:
        parser.error(f"{given.model} has no term {given.term}, but {', '.join(known)}")
    with (
        lock.held(observation.state_folder(session.root) / "lock", 60),
        open_world(session, None) as world,
        world.turn,
    ):
        points = [
            evaluation.measured(
                world,
                f"{given.model}, {given.term} at {weight:g}",
                with_weight(request, given.term, weight),
                declared.suite_request,
            )
            for weight in given.weights
        ]
        print(_table(given.term, given.weights, points))
        label = input_label(known[given.term])
        run = _log(world, f"{given.model}: weight of {label}", given.weights, points)
    print(f"MLflow run {run}" if run else "not logged")
    return 0


def _digests(root: Path, upstream: Sequence[str]) -> dict[str, str]:
    return {name: _built(root, name) for name in upstream}


def _built(root: Path, name: str) -> str:
    built = observation.require_record(root, name).built
    assert built is not None
    return built.model_digest


def _table(term: str, weights: Sequence[float], points: Sequence[Mapping[str, float]]) -> str:
    rows = [
        (f"{weight:+g}", *(f"{value:.3g}" for value in point.values()))
        for weight, point in zip(weights, points, strict=True)
    ]
    return "\n".join(report.table(rows, head=(f"weight of {term}", *points[0])))


def _log(
    world: World, name: str, weights: Sequence[float], points: Sequence[Mapping[str, float]]
) -> str | None:
    """Log one metric per task with the weight as its step; return the run."""
    curves = {task: [point[task] for point in points] for task in points[0]}
    # Steps are whole numbers from 0: the curve is drawn over what is subtracted.
    amounts = [abs(weight) for weight in weights]
    run: str | None = world.track(
        lambda tracker: tracker.log_curve(
            name, amounts, curves, x_name=f"|weight| of {name.rpartition(' of ')[2]}", files={}
        )
    )
    return run


if __name__ == "__main__":
    sys.exit(main())

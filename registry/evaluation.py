"""Measure a model on its suite, and what its gates compare with; every number is kept by key."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from registry import inputs, judge, keys, objects, record, shards
from registry.errors import BuildFailed
from registry.keys import Artifact
from registry.plan import gates_data
from registry.record import Evaluation, input_label
from registry.request import Declaration, alone, base_under, evaluation_request, key_of
from registry.world import World
from schemas import canonical
from schemas.expression import mean_weight

_KEPT_BYTES = 1 << 20  # of what is kept of an evaluation, for the message of a full disk


def evaluate(
    world: World, one: Declaration, request: Mapping[str, Any], artifact: Artifact
) -> Evaluation | None:
    """Return the evaluation of a stored model with its verdicts; None if no suite is declared."""
    wanted = one.evaluation(artifact.model_digest)
    if wanted is None:
        return None
    metrics = _measure_stored(world, one.model, wanted, artifact)
    baselines = _baselines(world, one, request)
    live = None
    if any(gate.no_worse_than is not None for gate in one.gates.values()):
        live = _live(world, one)
    assert one.suite is not None
    scale = judge.scale_of(world.catalog.suites[one.suite])
    # Retention is of what was trained: another merge may have lost some of it already.
    trained = {label: row for label, row in baselines.items() if not label.startswith("merge ")}
    verdicts = judge.judge(one.gates, judge.Case(scale, metrics, trained, live))
    return Evaluation(
        key=key_of(wanted),
        request=wanted,
        metrics=metrics,
        gates=gates_data(one.gates),
        verdicts=tuple(verdict.as_data() for verdict in verdicts),
        baselines=baselines,
        base=_base_metrics(world, one, request),
    )


def failed(evaluation: Evaluation | None) -> tuple[str, ...]:
    """Return the texts of the conditions that were not met."""
    if evaluation is None:
        return ()
    return tuple(verdict["text"] for verdict in evaluation.verdicts if not verdict["passed"])


def _live(world: World, one: Declaration) -> Mapping[str, float] | None:
    """Return the metrics of what is live on the suite as it is now; None if nothing is live."""
    try:
        known = record.read(record.folder(world.root) / f"{one.model}.json")
    except (FileNotFoundError, record.UnreadableRecord):
        return None
    if known.built is None:
        return None
    wanted = one.evaluation(known.built.model_digest)
    assert wanted is not None
    if found := keys.read_evaluation(world.store.cache, key_of(wanted)):
        return _metrics(found)
    artifact = keys.read(world.store.cache, known.built.key)
    if artifact is None:
        msg = f"{one.model}: its live version is not in the store, so nothing can be compared"
        raise BuildFailed(msg, f"run `dvc pull catalog/builds/{one.model}.dvc`")
    return _measure_stored(world, f"{one.model}, live", wanted, artifact)


def _measure_stored(
    world: World, model: str, wanted: Mapping[str, Any], artifact: Artifact
) -> Mapping[str, float]:
    key = key_of(wanted)
    if known := keys.read_evaluation(world.store.cache, key):
        return _metrics(known)
    scratch = world.store.staging()
    try:
        folder = scratch / "model"
        world.store.materialize(artifact, folder, link=True)
        return _measure(world, model, wanted, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _measure(
    world: World, model: str, wanted: Mapping[str, Any], folder: Path
) -> Mapping[str, float]:
    world.observer.stage(model, "evaluate")
    suite = wanted["suite"]
    place = world.root / world.catalog.suites[suite["name"]].folder
    folders = {wanted["model"]: str(folder), suite["digest"]: str(place)}
    if "base" in wanted:
        folders[wanted["base"]] = str(_base(world, wanted["base"]))
    report = world.run(model, order_for(world, "evaluate", wanted, folders))
    _keep(world, key_of(wanted), report)
    return _metrics(report)


def _base(world: World, digest: str) -> Path:
    """Return the verified folder of the base that an adapter is measured on."""
    ingredients = world.catalog.ingredients.values()
    bases = (one for one in ingredients if (one.kind, one.digest) == ("base", digest))
    return inputs.at_hand(world, next(bases))


def _metrics(report: Mapping[str, Any]) -> Mapping[str, float]:
    return {task: float(value) for task, value in report["metrics"].items()}


def _baselines(
    world: World, one: Declaration, request: Mapping[str, Any]
) -> dict[str, Mapping[str, float]]:
    """Return the metrics of each direct ingredient of positive weight alone.

    One that cannot be measured is left out with a warning, unless a gate asks for it. The operands
    of a stack give layers, not skills: they are not measured.
    """
    found: dict[str, Mapping[str, float]] = {}
    if request["recipe"].get("slices"):
        return found
    is_judged = any(gate.retention is not None for gate in one.gates.values())
    for position, term in enumerate(request["recipe"]["terms"]):
        if mean_weight(term["weight"]) > 0:
            label = input_label(term["input"])
            single = alone(request, position)
            try:
                found[label] = measured(world, f"{label} alone", single, one.suite_request)
            except BuildFailed as error:
                if is_judged and term["input"]["kind"] != "merge":
                    raise
                world.observer.warn(f"{one.model}: {label} alone is not measured: {error.message}")
    return found


def _base_metrics(
    world: World, one: Declaration, request: Mapping[str, Any]
) -> Mapping[str, float]:
    """Return the metrics of the base; nothing, with a warning, if it cannot be measured."""
    digest = request["base"]["digest"]
    wanted = evaluation_request(one.suite_request, digest)
    assert wanted is not None
    if known := keys.read_evaluation(world.store.cache, key_of(wanted)):
        return _metrics(known)
    label = f"base {request['base']['name']}"
    try:
        return _measure(world, label, wanted, _base(world, digest))
    except BuildFailed as error:
        world.observer.warn(f"{one.model}: {label} is not measured: {error.message}")
        return {}


def measured(
    world: World, label: str, request: Mapping[str, Any], suite: Mapping[str, Any] | None
) -> Mapping[str, float]:
    """Return the metrics of a model that is built, measured and thrown away, never published."""
    assert suite is not None
    # The model digest is not known before it is built, so the build request stands for it.
    wanted = evaluation_request(suite, "", base_under(request))
    key = canonical.digest({"build": key_of(request), "suite": wanted})
    if known := keys.read_evaluation(world.store.cache, key):
        return _metrics(known)
    scratch = world.store.staging()
    try:
        report = build_folder(world, label, request, scratch)
        wanted = evaluation_request(suite, report["model_digest"], base_under(request))
        assert wanted is not None
        metrics = _measure(world, label, wanted, scratch / "model")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    _keep(world, key, {"metrics": dict(metrics)})
    return metrics


def _keep(world: World, key: str, found: Mapping[str, Any]) -> None:
    with objects.writing(_KEPT_BYTES, world.store.cache):
        keys.write_evaluation(world.store.cache, key, found)


def build_folder(
    world: World, model: str, request: Mapping[str, Any], scratch: Path, *, anew: bool = False
) -> dict[str, Any]:
    """Build a request into `scratch/model` and return the worker's report.

    What no term touches is linked from the store where it is known there; not so `anew`, which is
    asked for to find out whether the same bytes come out again.
    """
    folders = inputs.gather(world, request, scratch)
    output = scratch / "model"
    output.mkdir()
    world.observer.stage(model, "build")
    order = order_for(world, "build", request, folders)
    order["known_shards"] = (
        {} if anew else shards.known(world.store.cache, request["base"]["digest"])
    )
    return world.run(model, {**order, "output": str(output)})


def order_for(
    world: World, task: str, request: Mapping[str, Any], folders: Mapping[str, str]
) -> dict[str, Any]:
    """Return the work order of a task; a build's also has an output."""
    return {
        "format_version": 1,
        "task": task,
        "request": request,
        "inputs": folders,
        "device": world.device,
        "threads": None,
        "memory_bytes": world.memory_bytes,
    }

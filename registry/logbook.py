"""What MLflow is told about a published model, made from its record and build report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from registry import (
    ancestry,
    keys,
    lineage,
    lineage_report,
    pictures,
    quality,
    quality_report,
    record,
    tracking_text,
)
from registry.containment import contents
from registry.lineage import Graph
from registry.record import BuildRecord, Evaluation
from registry.tracked import BuildLog, Operand, RunLog, shortened
from registry.world import World
from schemas.canonical import canonical, digest
from schemas.expression import expression, mean_weight


def build_log(world: World, fresh: BuildRecord) -> BuildLog:
    """Return the log of a published model: recipe, operands, metrics, reports as files."""
    built = fresh.built
    assert built is not None
    request = built.request
    base, recipe = request["base"], request["recipe"]
    spec = world.catalog.merges[fresh.model]
    report = keys.read_report(world.store.cache, built.key) or {}
    statistics = report.get("statistics", {})
    operands = tuple(_operand(term) for term in recipe["terms"])
    graph = _lineage(world, fresh)
    page = lineage_report.html(graph, world.catalog)
    return BuildLog(
        model=fresh.model,
        key=built.key,
        model_digest=built.model_digest,
        artifact_digest=built.artifact["digest"],
        expression=expression(base["name"], recipe),
        commit=world.commit,
        method=recipe["method"],
        base=Operand("base", base["name"], None, base["digest"]),
        operands=operands,
        contains=_contains(graph),
        params=dict(_params(request)),
        metrics={**_all_metrics(world, fresh), **dict(_statistics(statistics))},
        files={**_files(world, fresh, report), "lineage/lineage.html": page.encode()},
        source=f"dvc://catalog/builds/{fresh.model}.dvc",
        description=spec.description,
        owner=spec.owner,
        labels=spec.labels,
        pictures=partial(_pictures, world, fresh, report),
    )


def _pictures(world: World, fresh: BuildRecord, report: Mapping[str, Any]) -> dict[str, bytes]:
    drawn = pictures.of_report(fresh.model, report)
    return {**drawn, **_quality_files(world, fresh.model, fresh.evaluation)}


@dataclass(frozen=True, slots=True)
class Attempt:
    """What was built, or is live, and was measured."""

    key: str
    request: Mapping[str, Any]
    model_digest: str
    measured: Evaluation


def rejected_log(world: World, model: str, attempt: Attempt, reason: str) -> RunLog:
    """Return the log of an attempt that a gate stopped: what it was, and by how much it failed."""
    request, measured = attempt.request, attempt.measured
    facts = {"key": attempt.key, "evaluation": measured.key, "gates": dict(measured.gates)}
    base, recipe = request["base"]["name"], request["recipe"]
    metrics = {**dict(_metrics(measured)), **dict(_quality_metrics(world, measured))}
    return RunLog(
        name=f"{model} {attempt.key.removeprefix('sha256:')[:8]} rejected",
        tags={
            "registry.kind": "rejected",
            "registry.model": model,
            "registry.reason": shortened(reason),
            "registry.model_digest": attempt.model_digest,
            "registry.commit": world.commit,
            "registry.attempt": digest(facts),
            "mlflow.note.content": tracking_text.of_rejected(expression(base, recipe), reason),
        },
        params=dict(_params(request)),
        points=tuple((name, 0, value) for name, value in metrics.items()),
        files={
            "lineage/recipe.json": _pretty(request),
            "report/verdicts.json": _pretty(measured.verdicts),
            **_answers(world, measured),
            **_quality_files(world, model, measured),
        },
        once="registry.attempt",
    )


def judged(world: World, fresh: BuildRecord) -> tuple[dict[str, float], dict[str, bytes]]:
    """Return the metrics and the reports of a published model that was measured anew."""
    measured = fresh.evaluation
    assert measured is not None
    metrics = {**dict(_metrics(measured)), **dict(_quality_metrics(world, measured))}
    files = {**_answers(world, measured), **_quality_files(world, fresh.model, measured)}
    return metrics, files


def _answers(world: World, measured: Evaluation) -> dict[str, bytes]:
    """Return every answer with its score, as far as they are still kept."""
    found = keys.read_evaluation(world.store.cache, measured.key)
    return {"report/evaluation.json": _pretty(found)} if found else {}


def _quality_metrics(world: World, measured: Evaluation) -> Iterator[tuple[str, float]]:
    if found := quality.of_evaluation(measured, world.catalog.suites):
        yield from quality_report.metrics(found)


def _quality_files(world: World, model: str, measured: Evaluation | None) -> dict[str, bytes]:
    found = quality.of_evaluation(measured, world.catalog.suites) if measured else None
    if found is None or measured is None:
        return {}
    files = pictures.of_quality(model, found, measured.verdicts)
    return {f"quality/{name}": content for name, content in files.items()}


def _operand(term: Mapping[str, Any]) -> Operand:
    source, weight = term["input"], term["weight"]
    schedule = canonical(weight).decode() if isinstance(weight, Mapping) else None
    return Operand(
        kind=source["kind"],
        name=source["name"],
        version=source.get("version"),
        digest=source["digest"],
        weight=mean_weight(weight),
        schedule=schedule,
    )


def _lineage(world: World, fresh: BuildRecord) -> Graph:
    """Return the graph of a published model, whose record may not be written yet."""
    recorded = {**record.read_all(world.root), fresh.model: fresh}
    known = ancestry.live(recorded, world.catalog, world.store.cache)
    return lineage.ingredients(fresh.model, known)


def _contains(graph: Graph) -> dict[str, str]:
    """Return the ingredients inside the merges that a model is made of, with their paths."""
    found = {}
    for one in contents(graph):
        paths = [" > ".join(path.names[1:]) for path in one.paths if len(path.edges) > 1]
        if paths:
            part = one.part
            key = Operand(part.kind, part.name, part.version, part.digest).key
            found[key] = "; ".join(paths)
    return dict(sorted(found.items()))


def _params(request: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    recipe = request["recipe"]
    yield "base", request["base"]["name"]
    yield "method", recipe["method"]
    for name, value in recipe["parameters"].items():
        yield name, _text(value)
    for term in recipe["terms"]:
        yield f"w.{_operand(term).key}", _text(term["weight"])
    for name in ("form", "dtype", "rank"):
        if (value := request["output"].get(name)) is not None:
            yield f"output.{name}", _text(value)
    for name in ("tokenizer", "slices"):
        if name in recipe:
            yield name, _text(recipe[name])
    yield "compute", recipe["compute"]
    yield "numerics", str(request["numerics"])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else canonical(value).decode()


def _all_metrics(world: World, fresh: BuildRecord) -> dict[str, float]:
    found: dict[str, float] = {}
    if fresh.evaluation:
        found |= dict(_metrics(fresh.evaluation)) | dict(_quality_metrics(world, fresh.evaluation))
    if fresh.built:
        found |= {"build.seconds": fresh.built.seconds, "build.peak_bytes": fresh.built.peak_bytes}
    return found


def _metrics(measured: Evaluation) -> Iterator[tuple[str, float]]:
    suite = measured.request["suite"]["name"]
    for task, value in measured.metrics.items():
        yield f"eval.{suite}.{task}", value


def _statistics(statistics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the plain numbers of the report's statistics, nested names joined by dots."""
    for name, value in statistics.items():
        if isinstance(value, Mapping):
            if name != "tensors":  # hundreds of numbers: they are in the report
                for inner, number in _statistics(value):
                    yield f"{name}.{inner.removeprefix('merge.')}", number
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield (name if "." in name else f"merge.{name}"), float(value)


def _files(world: World, fresh: BuildRecord, report: Mapping[str, Any]) -> dict[str, bytes]:
    assert fresh.built is not None
    record_data = {key: value for key, value in fresh.as_data().items() if key != "mlflow"}
    files = {
        "lineage/recipe.json": _pretty(fresh.built.request),
        "lineage/record.json": _pretty(record_data),
        "report/build.json": _pretty(report),
    }
    return {**files, **_answers(world, fresh.evaluation)} if fresh.evaluation else files


def _pretty(data: Any) -> bytes:
    return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False).encode()

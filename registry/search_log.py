"""What MLflow is told about a search: one run, a step per candidate, the report as files. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from registry.tracked import RunLog, metric_name
from schemas.canonical import canonical


def of(
    model: str,
    commit: str,
    request: Mapping[str, Any],
    found: Mapping[str, Any],
    files: Mapping[str, bytes],
) -> RunLog:
    """Return the log of a search; `files` are its report and pictures."""
    strategy = request["strategy"]["name"]
    return RunLog(
        name=f"{model} {strategy.replace('_', '-')}",
        tags={
            "registry.kind": "search",
            "registry.model": model,
            "registry.commit": commit,
            "mlflow.note.content": files["report.md"].decode(),
        },
        params=dict(_params(request)),
        points=tuple(_points(found)),
        files={
            **{f"search/{name}": data for name, data in files.items()},
            "search/candidates.json": json.dumps(found["candidates"], indent=1).encode(),
        },
    )


def of_trials(
    model: str,
    kind: str,
    commit: str,
    request: Mapping[str, Any],
    found: Mapping[str, Any],
    files: Mapping[str, bytes],
) -> RunLog:
    """Return the log of recipes beside each other; a line has a step for each hundredth of it."""
    return RunLog(
        name=f"{model} {kind}",
        tags={
            "registry.kind": "comparison",
            "registry.model": model,
            "registry.commit": commit,
            "mlflow.note.content": files["report.md"].decode(),
        },
        params=dict(_params(request)),
        points=tuple(_line(found) if kind == "line" else _points(found)),
        files={f"comparison/{name}": data for name, data in files.items()},
    )


def _line(found: Mapping[str, Any]) -> Iterator[tuple[str, int, float]]:
    for row in found["trials"]:
        for task, value in row["search"]["metrics"].items():
            yield f"line.{task}", round(100 * float(row["label"])), value


def _params(request: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    start = request["start"]
    yield "base", start["base"]["name"]
    yield "method", start["recipe"]["method"]
    yield "suite", request["suite"]["name"]
    yield "strategy", request["strategy"]["name"]
    yield "objective", request["objective"]["kind"]
    yield "held_out", str(request["held_out"])
    yield "seed", str(request["seed"])
    for one in request["variables"]:
        values = {name: one[name] for name in ("values", "low", "high", "layers")}
        yield f"vary.{metric_name(one['label'])}", canonical(values).decode()


def _points(found: Mapping[str, Any]) -> Iterator[tuple[str, int, float]]:
    for row in found["candidates"]:
        yield from _candidate(row)
    rows = {row["label"]: row for row in (*found["references"], *found["trials"])}
    rows["declared"] = found["declared"]
    if found["best"]:
        rows["tuned"] = found["best"]
    for label, row in rows.items():
        for part in found["prompts"]:
            if not row[part]["problem"]:
                for task, value in row[part]["metrics"].items():
                    yield f"{part}.{metric_name(label)}.{task}", 0, value


def _candidate(row: Mapping[str, Any]) -> Iterator[tuple[str, int, float]]:
    number, told = row["number"], row["search"]
    for label, value in row["values"].items():
        if not isinstance(value, Mapping):
            yield f"value.{metric_name(label)}", number, float(value)
    if not told["problem"]:
        yield "search.objective", number, told["score"]
        for task, value in told["metrics"].items():
            yield f"search.{task}", number, value

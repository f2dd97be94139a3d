"""What is written for machines is what the shipped schemas say: requests, orders, events, records."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

import schemas
from registry.plan import Action
from tests.conftest import Repository

NAMES = (
    "build-request",
    "evaluation-request",
    "analysis-request",
    "search-request",
    "serving-request",
    "work-order",
    "event",
    "build-record",
    "plan",
    "analysis",
    "recommendation",
)


def check(name: str, data: Any) -> None:
    """Raise if data do not have the form of the schema called `name`."""
    resources = [
        (schemas.load(one)["$id"], Resource.from_contents(schemas.load(one))) for one in NAMES
    ]
    registry: Registry[Any] = Registry().with_resources(resources)
    Draft202012Validator(schemas.load(name), registry=registry).validate(data)


@pytest.mark.parametrize("name", NAMES)
def test_the_schema_is_one(name: str) -> None:
    Draft202012Validator.check_schema(schemas.load(name))


def told(orders: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the events of one worker that gets these orders, each when the last one is done."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "merger"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    for one in orders:
        worker.stdin.write(json.dumps(one).encode() + b"\n")
        worker.stdin.flush()
        for line in worker.stdout:
            event = json.loads(line)
            yield event
            if event["event"] in ("report", "failed"):
                break
    worker.stdin.close()
    worker.wait(30)


def test_plan_and_its_actions(repository: Repository) -> None:
    check("plan", json.loads(repository.run("plan", "--format", "json").out))

    change = schemas.load("plan")["properties"]["changes"]["items"]
    assert change["properties"]["action"]["enum"] == [action.value for action in Action]


def test_an_order_its_events_and_a_record(repository: Repository, tmp_path: Path) -> None:
    from registry.cli.session import open_session

    session = open_session(repository.root)
    request = session.declared["trimmed"].pin({})
    check("build-request", request)
    output = tmp_path / "out"
    output.mkdir()
    folders = {
        one.digest: str(repository.root / one.folder)
        for one in session.loaded.catalog.ingredients.values()
    }
    order = {
        "format_version": 1,
        "task": "build",
        "request": request,
        "inputs": folders,
        "output": str(output),
        "device": "cpu",
        "threads": None,
        "memory_bytes": None,
    }
    check("work-order", order)
    look = {name: request[name] for name in ("format_version", "numerics", "base", "recipe")}
    looking = {**order, "task": "analyze", "request": {**look, "terms": None, "density": 0.1}}
    del looking["output"]
    check("work-order", looking)
    refused = {**order, "inputs": {}, "output": str(tmp_path / "other")}
    (tmp_path / "other").mkdir()
    seen = set()
    for event in told([order, looking, refused]):
        check("event", event)
        seen.add(event["event"])
    assert seen == {"started", "progress", "report", "failed"}

    ran = repository.run("sync", "average")
    assert ran.code == 0, ran.err
    check("build-record", json.loads((repository.root / "catalog/builds/average.json").read_text()))


def test_a_search_order_and_what_it_tells(repository: Repository) -> None:
    suite = repository.root / "catalog/suites/texts"
    suite.mkdir(parents=True)
    (suite / "a.jsonl").write_text(
        '{"id": "a", "prompt": "x", "expected": "one two"}\n'
        '{"id": "b", "prompt": "y", "expected": "two three"}\n'
    )
    task = "  - {name: first, metric: perplexity, data: a.jsonl, max_new_tokens: 1}\n"
    (suite / "suite.yaml").write_text(f"kind: suite\nname: texts\ntasks:\n{task}")
    with (repository.root / "catalog/merges/both-skills.yaml").open("a") as file:
        file.write(
            "evaluation: {suite: texts}\ntune: {weights: {brief: [0.5, 1]}, compare: [ties]}\n"
        )
    ran = repository.run("tune", "both-skills")

    assert ran.code == 0, ran.err
    report = json.loads((repository.root / ".registry/tuning/both-skills/report.json").read_text())
    from registry.cli.session import open_session

    request = report["request"]
    check("search-request", request)

    folders = {
        one.digest: str(repository.root / one.folder)
        for one in open_session(repository.root).loaded.catalog.ingredients.values()
    }
    order = {
        "format_version": 1,
        "task": "search",
        "request": request,
        "inputs": {**folders, request["suite"]["digest"]: str(suite)},
        "budget": {"evaluations": 2, "seconds": None},
        "known": [],
        "device": "cpu",
        "threads": None,
        "memory_bytes": None,
    }
    check("work-order", order)
    events = list(told([order]))
    for event in events:
        check("event", event)
    assert events[0]["event"] == "started"
    best = events[-1]["search"]["best"]
    assert best["request"] == report["best"]["request"]
    assert best["held_out"]["metrics"] == report["best"]["held_out"]["metrics"]
    again = {**order, "known": [_known(one) for one in events if one["event"] == "measured"]}
    check("work-order", again)


def _known(event: dict[str, Any]) -> dict[str, Any]:
    return {name: event[name] for name in ("key", "metrics", "seconds", "problem")}

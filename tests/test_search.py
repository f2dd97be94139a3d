"""A search in memory against builds that are evaluated one by one, killed and taken up again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import schemas
from merger import evaluate, search
from merger.engine import Limits
from merger.errors import InputError
from merger.evaluate import suite as suites
from merger.search import Budget
from merger.search.space import Space, Variable
from merger.search.split import split
from merger.search.trial import Measured
from tests import merging, tiny
from tests.merging import TermOf

SUITE = "sha256:" + "5" * 64
TEXTS = (
    "the cat sat",
    "a dog ran far",
    "birds sing at dawn",
    "rain fell",
    "we walk",
    "no one came",
)


class World:
    """A base with two adapters, and a suite of texts to read."""

    def __init__(self, folder: Path) -> None:
        self.base = tiny.tiny_base(folder / "base", seed=3)
        self.terms = [
            TermOf(tiny.tiny_adapter(folder / name, base=self.base, seed=seed))
            for name, seed in (("one", 1), ("two", 2))
        ]
        self.suite = folder / "suite"
        self.suite.mkdir()
        for task in ("first", "second"):
            lines = [
                {"id": f"{task}-{number}", "prompt": "Say.", "expected": text}
                for number, text in enumerate(TEXTS)
            ]
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (self.suite / f"{task}.jsonl").write_text(text, "utf-8")
        self.folder = folder

    @property
    def tasks(self) -> list[dict[str, Any]]:
        return [
            {
                "name": name, "metric": "perplexity", "data": f"{name}.jsonl",
                "max_new_tokens": 1, "system": None, "options": {},
            }
            for name in ("first", "second")
        ]  # fmt: skip

    def request(self, **changes: Any) -> dict[str, Any]:
        start = merging.request_of(self.base, self.terms, "task_arithmetic")
        return {
            "format_version": 1,
            "evaluator": schemas.evaluator(),
            "start": start,
            "suite": {"name": "texts", "digest": SUITE, "tasks": self.tasks},
            "references": [{"label": "base", "request": None}],
            "trials": [],
            "variables": [
                variable("lambda", parameter="lambda", values=[0.5, 1.0]),
                variable("weight of one", term=0, values=[0.0, 1.0, 2.0]),
            ],
            "strategy": {"name": "grid", "population": None, "sigma": 0.2},
            "objective": {
                "kind": "mean",
                "weights": {"first": 1.0, "second": 1.0},
                "lower_is_better": ["first", "second"],
            },
            "held_out": 0.5,
            "seed": 0,
        } | changes

    def run(
        self,
        request: Mapping[str, Any],
        *,
        evaluations: int = 100,
        known: Mapping[str, Measured] | None = None,
        told: list[Mapping[str, Any]] | None = None,
    ) -> dict[str, Any]:
        inputs = {**merging.inputs_of(self.base, self.terms), SUITE: self.suite}
        rows: list[Mapping[str, Any]] = [] if told is None else told
        return search.run(
            request,
            inputs,
            Limits(torch.device("cpu"), 2, None),
            budget=Budget(evaluations, None),
            known=known or {},
            tell=rows.append,
        )


def variable(label: str, **changes: Any) -> dict[str, Any]:
    return {
        "label": label, "parameter": None, "term": None,
        "values": [], "low": 0.0, "high": 2.0, "layers": 0,
    } | changes  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("search"))


def known_of(rows: list[Mapping[str, Any]]) -> dict[str, Measured]:
    fields = ("key", "metrics", "seconds", "problem")
    return {row["key"]: Measured(**{name: row[name] for name in fields}) for row in rows}


def untimed(found: Mapping[str, Any]) -> Any:
    """Return a report without what a clock said."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: without(v) for k, v in value.items() if "seconds" not in k}
        return [without(one) for one in value] if isinstance(value, list) else value

    return without(dict(found))


def test_every_candidate_has_the_metrics_of_its_build(world: World, tmp_path: Path) -> None:
    request = world.request(held_out=0.0)
    found = world.run(request)

    assert [tuple(row["values"].values()) for row in found["candidates"]] == [
        (a, b) for a in (0.5, 1.0) for b in (0.0, 1.0, 2.0)
    ]
    for row in (found["candidates"][1], found["candidates"][5]):
        factor, weight = row["values"].values()
        data = json.loads(json.dumps(request["start"]))
        data["recipe"]["parameters"]["lambda"] = factor
        data["recipe"]["terms"][0]["weight"] = weight
        output = tmp_path / str(row["number"])
        merging.build_request(output, data, merging.inputs_of(world.base, world.terms))
        torch.set_num_threads(2)  # as in the search: the last digits depend on it
        alone = evaluate.run(
            {
                "format_version": 1,
                "evaluator": schemas.evaluator(),
                "suite": {"name": "texts", "digest": SUITE, "tasks": world.tasks},
            },
            output,
            world.suite,
            device="cpu",
            progress=lambda *_: None,
        )
        assert row["search"]["metrics"] == alone["metrics"]


def test_the_best_is_the_one_of_the_highest_score_and_is_asked_what_was_held_out(
    world: World,
) -> None:
    found = world.run(world.request())

    scores = [row["search"]["score"] for row in found["candidates"]]
    assert found["best"]["number"] == 1 + scores.index(max(scores))
    assert found["prompts"] == {
        "search": {"first": 3, "second": 3}, "held_out": {"first": 3, "second": 3},
    }  # fmt: skip
    assert found["best"]["held_out"]["metrics"] != found["best"]["search"]["metrics"]
    means = [sum(1 / one for one in row["search"]["metrics"].values()) / 2
             for row in found["candidates"]]  # fmt: skip
    assert scores == pytest.approx(means)
    recipe = found["best"]["request"]["recipe"]
    assert [recipe["parameters"]["lambda"], recipe["terms"][0]["weight"]] == list(
        found["best"]["values"].values()
    )


@pytest.mark.parametrize("kept", [0, 1, 4, 9])
def test_a_search_that_was_killed_ends_where_it_would_have(world: World, kept: int) -> None:
    request = world.request(
        strategy={"name": "cma_es", "population": 4, "sigma": 0.3},
        variables=[
            variable("lambda", parameter="lambda"),
            variable("weight of one", term=0, layers=2),
        ],
    )
    rows: list[Mapping[str, Any]] = []
    whole = world.run(request, evaluations=10, told=rows)
    again: list[Mapping[str, Any]] = []

    resumed = world.run(request, evaluations=10, known=known_of(rows[:kept]), told=again)

    assert untimed(resumed) == untimed(whole)
    assert [row["key"] for row in again] == [row["key"] for row in rows]
    assert len(whole["candidates"]) == 10
    assert whole["ended"] == "evaluations"
    schedule = whole["best"]["values"]["weight of one"]
    assert set(schedule) == {"layers"}  # an adapter has nothing for the embeddings or the head
    assert len(schedule["layers"]) == 2


def test_a_larger_budget_goes_on_where_a_smaller_one_ended(world: World) -> None:
    rows: list[Mapping[str, Any]] = []
    small = world.run(world.request(), evaluations=2, told=rows)

    large = world.run(world.request(), evaluations=6, known=known_of(rows))

    assert [row["search"] for row in large["candidates"][:2]] == [
        row["search"] for row in small["candidates"]
    ]
    assert len(large["candidates"]) == 6


def test_a_candidate_that_cannot_be_measured_is_no_winner_and_stops_nothing(world: World) -> None:
    request = world.request(
        variables=[variable("weight of one", term=0, values=[1.0, 1e300], high=1e300)]
    )

    found = world.run(request)

    good, bad = found["candidates"]
    assert bad["search"]["problem"]
    assert bad["search"]["score"] is None
    assert found["best"]["number"] == good["number"]
    assert found["front"] == [good["number"]]


def test_a_task_of_one_prompt_cannot_be_held_out(world: World, tmp_path: Path) -> None:
    lone = tmp_path / "lone.jsonl"
    lone.write_text('{"id": "a", "prompt": "Say.", "expected": "the cat"}\n', "utf-8")
    task = {**world.tasks[0], "data": "lone.jsonl"}
    suite = {"name": "texts", "digest": SUITE, "tasks": [task]}
    objective = {"kind": "mean", "weights": {"first": 1.0}, "lower_is_better": ["first"]}
    inputs = {**merging.inputs_of(world.base, world.terms), SUITE: tmp_path}

    with pytest.raises(InputError, match="expected at least two prompts"):
        search.run(
            world.request(suite=suite, objective=objective),
            inputs,
            Limits(torch.device("cpu"), 2, None),
            budget=Budget(1, None),
            known={},
            tell=lambda _: None,
        )


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"strategy": {"name": "luck", "population": None, "sigma": 0.2}}, "strategy.name"),
        ({"variables": []}, "variables"),
        ({"variables": [variable("x", parameter="density")]}, "variables[0].parameter"),
        ({"variables": [variable("x", term=2)]}, "variables[0].term"),
        ({"variables": [variable("x", term=0, low=3.0)]}, "variables[0]"),
        ({"held_out": 2}, "held_out"),
        ({"seed": None}, "seed"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_with_its_field(
    world: World, change: dict[str, Any], field: str
) -> None:
    with pytest.raises(InputError) as caught:
        world.run(world.request(**change))

    assert caught.value.field == field


def test_a_task_without_weight_is_asked_of_what_is_reported_and_not_of_candidates(
    world: World,
) -> None:
    request = world.request()
    request["objective"] = {**request["objective"], "weights": {"first": 1.0, "second": 0.0}}

    found = world.run(request)

    assert {frozenset(row["search"]["metrics"]) for row in found["candidates"]} == {
        frozenset({"first"})
    }
    for row in (found["best"], found["declared"], *found["references"]):
        for part in ("search", "held_out"):
            assert row[part]["metrics"].keys() == {"first", "second"}
    number = found["best"]["number"]
    tried = found["candidates"][number - 1]["search"]["metrics"]["first"]
    assert found["best"]["search"]["metrics"]["first"] == pytest.approx(tried, rel=1e-6)


def test_what_is_kept_is_of_the_references_on_the_same_prompts(world: World) -> None:
    request = world.request()
    request["objective"] = {**request["objective"], "kind": "retention"}

    found = world.run(request)

    for part in ("search", "held_out"):
        bounds = {
            task: max(1 / row[part]["metrics"][task] for row in found["references"])
            for task in ("first", "second")
        }
        own = found["best"][part]["metrics"]
        kept = min(1 / own[task] / bound for task, bound in bounds.items())
        assert found["best"][part]["score"] == pytest.approx(kept)


def test_tasks_that_ask_the_same_hold_out_the_same(world: World, tmp_path: Path) -> None:
    texts = [f"Say {number}." for number in range(9)]
    tasks = []
    for name, first in (("asked", "a"), ("read", "b")):
        lines = [
            {"id": f"{first}{number}", "prompt": text, "expected": "the cat"}
            for number, text in enumerate(texts)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / f"{name}.jsonl").write_text(text, "utf-8")
        tasks.append({**world.tasks[0], "name": name, "data": f"{name}.jsonl"})
    read = suites.read({"name": "texts", "tasks": tasks}, tmp_path)

    searched, held_out = split(read, 0.4, 7)

    for part, count in ((searched, 5), (held_out, 4)):
        asked, same = ([prompt.text for prompt in task.prompts] for task in part)
        assert asked == same
        assert len(asked) == count
    assert split(read, 0.4, 8)[1] != held_out


def test_of_equals_in_a_grid_the_one_amid_the_best_neighbours_is_chosen() -> None:
    row = tuple(float(value) for value in range(5))
    space = Space((Variable("w", None, 0, row, 0.0, 4.0),))
    scores = (0.9, 0.5, 0.9, 0.9, 0.8)
    searched = search._Search.__new__(search._Search)
    searched.asked = SimpleNamespace(space=space)  # type: ignore[assignment]
    searched.candidates = [
        search.Candidate(number, (value,), Measured("k", {}, 0.0), (score, 0.0))
        for number, (value, score) in enumerate(zip(row, scores, strict=True), 1)
    ]

    # Means of itself and its neighbours: 0.7 at 0, 0.767 at 2, 0.867 at 3.
    assert searched._steadiest((0.9, 0.0)).number == 4

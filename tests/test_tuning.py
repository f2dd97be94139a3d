"""What `tune:` means: ranges, defaults of the field, which tasks count. By hand."""

from __future__ import annotations

from typing import Any

import pytest

from registry import tuning, tuning_report
from registry.spec import MergeSpec, Suite, Term, Tune

SUITE = Suite(
    "skills",
    "catalog/suites/skills",
    tuple(
        {"name": name, "metric": metric, "options": {}}
        for name, metric in (
            ("sql", "sql_execution"),
            ("sql-read", "perplexity"),
            ("json", "json_match"),
            ("speed", "throughput"),
        )
    ),
    "sha256:" + "0" * 64,
)


def spec_of(method: str, tune: Tune | None = None) -> MergeSpec:
    terms = (Term("adapter", "sql", 1, 1.0, {}), Term("adapter", "json", 2, 1.0, {}))
    return MergeSpec("both", "b", method, {}, terms, 0, "float32", {}, tune=tune)


@pytest.mark.parametrize(
    ("written", "values", "low", "high", "layers"),
    [
        ([0.7, 0.3], (0.7, 0.3), 0.3, 0.7, 0),
        ({"from": 0.1, "to": 0.4, "steps": 4}, (0.1, 0.2, 0.3, 0.4), 0.1, 0.4, 0),
        ({"from": 0, "to": 2}, (0.0, 0.5, 1.0, 1.5, 2.0), 0.0, 2.0, 0),
        ({"from": -1, "to": 1, "steps": 2, "layers": 3}, (-1.0, 1.0), -1.0, 1.0, 3),
    ],
)
def test_a_range_is_values_or_even_steps(
    written: Any, values: tuple[float, ...], low: float, high: float, layers: int
) -> None:
    found = tuning.parse_range(written)

    assert found.values == values
    assert (found.low, found.high, found.layers) == (low, high, layers)


def test_without_ranges_those_of_the_field_are_tried() -> None:
    arithmetic = tuning.effective(spec_of("task_arithmetic"))
    assert arithmetic.parameters.keys() == {"lambda"}
    factor = arithmetic.parameters["lambda"]
    assert (factor.low, factor.high, len(factor.values)) == (0.5, 1.2, 8)
    assert 0.8 in factor.values

    ties = tuning.effective(spec_of("ties"))
    assert ties.parameters["density"].values == (0.1, 0.2, 0.3, 0.4, 0.5)
    assert tuning.grid_size(ties) == 5 * 8

    dare = tuning.effective(spec_of("dare_linear"))
    assert (dare.parameters["density"].low, dare.parameters["density"].high) == (0.01, 0.2)

    assert not tuning.effective(spec_of("linear")).parameters
    soup = tuning.effective(spec_of("linear", tuning.parse({"strategy": "greedy_soup"})))
    assert {name: one.values for name, one in soup.weights.items()} == {
        "sql": (1.0, 0.0),
        "json": (1.0, 0.0),
    }


def test_tasks_that_are_named_are_those_that_are_asked() -> None:
    assert tuning.counted(SUITE, tuning.parse({})) == {"sql": 1.0, "sql-read": 1.0, "json": 1.0}
    named = tuning.parse({"tasks": {"json": 0, "sql-read": 2}})
    assert tuning.counted(SUITE, named) == {"sql-read": 2.0, "json": 0.0}


def test_recipes_beside_each_other_are_ranked_by_right_answers() -> None:
    named = tuning.parse({"tasks": {"json": 0, "sql-read": 2}, "held_out": 0.3})

    found = tuning.to_compare(spec_of("ties", named), SUITE)

    assert found.tasks == {"sql-read": 0.0, "json": 1.0}
    assert found.held_out == 0.0
    read = tuning.parse({"tasks": {"sql-read": 2}})
    assert tuning.to_compare(spec_of("ties", read), SUITE).tasks == {"sql-read": 1.0}


@pytest.mark.parametrize(
    ("declared", "best", "warns"), [(0.9, 0.8, True), (0.8, 0.8, False), (None, 0.8, False)]
)
def test_a_proposal_that_is_worse_on_the_prompts_held_out_is_told(
    declared: float | None, best: float, warns: bool
) -> None:
    found = {"declared": {"held_out": {"score": declared}}, "best": {"held_out": {"score": best}}}

    told = tuning_report.hints({"variables": []}, found)

    assert [one.startswith("on the prompts held out") for one in told] == [True] * warns
    assert tuning_report.hints({"variables": []}, {"declared": {}, "best": {}}) == []
    assert tuning_report.hints({"variables": []}, {"declared": {}, "best": {"values": {}}}) == []

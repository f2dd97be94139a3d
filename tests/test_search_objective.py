"""What a search maximises, by hand."""

from __future__ import annotations

import pytest

from merger.search.objective import Objective, Task, front

SQL = Task("sql", "sql_execution", higher_is_better=True)
SHOUT = Task("shout", "pattern_share", higher_is_better=False)
FLUENCY = Task("fluency", "perplexity", higher_is_better=False)
ALL = (SQL, SHOUT, FLUENCY)
ONES = {"sql": 1.0, "shout": 1.0, "fluency": 1.0}


def test_a_share_counts_as_it_is_or_from_the_other_end_and_a_perplexity_as_a_probability() -> None:
    utilities = [task.utility(value) for task, value in zip(ALL, (0.75, 0.25, 8.0), strict=True)]

    assert utilities == [0.75, 0.75, 0.125]


def test_the_mean_is_weighted_and_leaves_out_what_weighs_nothing() -> None:
    objective = Objective("mean", ALL, {"sql": 3.0, "shout": 1.0, "fluency": 0.0})

    score, mean = objective.score({"sql": 0.5, "shout": 0.1, "fluency": 1e9}, [])

    assert score == mean == pytest.approx((3 * 0.5 + 0.9) / 4)


def test_the_worst_is_the_least_utility_and_the_mean_decides_among_equals() -> None:
    objective = Objective("worst", ALL, ONES)

    one = objective.score({"sql": 0.5, "shout": 0.0, "fluency": 2.0}, [])
    other = objective.score({"sql": 0.5, "shout": 0.5, "fluency": 2.0}, [])

    assert one[0] == other[0] == 0.5
    assert one > other


def test_retention_is_the_least_share_of_the_best_reference() -> None:
    objective = Objective("retention", (SQL, SHOUT), {"sql": 1.0, "shout": 1.0})
    references = [{"sql": 0.8, "shout": 0.5}, {"sql": 0.1, "shout": 0.2}]

    score, _ = objective.score({"sql": 0.6, "shout": 0.4}, references)

    assert score == pytest.approx(min(0.6 / 0.8, 0.6 / 0.8))
    kept_more, _ = objective.score({"sql": 0.8, "shout": 0.4}, references)
    assert kept_more == pytest.approx(0.6 / 0.8)


def test_a_task_that_no_reference_does_anything_for_has_nothing_to_lose() -> None:
    objective = Objective("retention", (SQL, SHOUT), {"sql": 1.0, "shout": 1.0})

    score, _ = objective.score({"sql": 0.0, "shout": 0.5}, [{"sql": 0.0, "shout": 0.0}])

    assert score == 0.5


def test_the_front_is_what_nothing_else_beats_in_every_task() -> None:
    tasks = (SQL, SHOUT)
    rows = [
        {"sql": 1.0, "shout": 0.5},
        {"sql": 0.5, "shout": 0.0},
        {"sql": 0.5, "shout": 0.5},  # beaten by both
        {"sql": 1.0, "shout": 0.5},  # the first again
        {"sql": 0.9, "shout": 0.1},
    ]

    assert front(tasks, rows) == [0, 1, 4]

"""Gates by hand: at least, at most, retention, no worse than the live version, the mean."""

from __future__ import annotations

import pytest

from registry import tuning
from registry.judge import Case, Scale, judge
from registry.spec import Gate, Suite

SQL = Scale({"sql": "sql_execution"})
ALONE = {"adapter a@1": {"sql": 0.5}, "adapter b@1": {"sql": 0.8}}


@pytest.mark.parametrize(
    ("gate", "value", "passed", "text"),
    [
        (Gate(at_least=0.5), 0.5, True, "sql 0.5, wanted ≥ 0.5: passed"),
        (Gate(at_least=0.5), 0.49, False, "sql 0.49, wanted ≥ 0.5: failed"),
        (Gate(at_most=0.1), 0.1, True, "sql 0.1, wanted ≤ 0.1: passed"),
        (Gate(at_most=0.1), 0.2, False, "sql 0.2, wanted ≤ 0.1: failed"),
        (Gate(retention=0.9), 0.72, True, "sql 0.72 (retention 0.9), wanted keeps 0.9: passed"),
        (Gate(retention=0.9), 0.7, False, "sql 0.7 (retention 0.875), wanted keeps 0.9: failed"),
    ],
)
def test_a_gate_is_judged(gate: Gate, value: float, passed: bool, text: str) -> None:
    (verdict,) = judge({"sql": gate}, Case(SQL, {"sql": value}, ALONE))

    assert (verdict.passed, verdict.text()) == (passed, text)


def test_an_ingredient_that_scores_nothing_leaves_nothing_to_lose() -> None:
    case = Case(SQL, {"sql": 0.0}, {"adapter a@1": {"sql": 0.0}})

    (verdict,) = judge({"sql": Gate(retention=1.0)}, case)

    assert verdict.passed


def test_every_condition_of_a_task_has_its_verdict() -> None:
    gates = {"sql": Gate(at_least=0.1, at_most=0.9, retention=0.5)}

    verdicts = judge(gates, Case(SQL, {"sql": 0.5}, ALONE))

    assert [one.condition for one in verdicts] == ["at_least", "at_most", "retention"]
    assert all(one.passed for one in verdicts)


ALL = Scale(
    {"sql": "sql_execution", "shout": "pattern_share", "flow": "perplexity"}, {"shout", "flow"}
)
LIVE = {"sql": 0.8, "shout": 0.25, "flow": 4.0}


@pytest.mark.parametrize(
    ("task", "value", "passed", "text"),
    [
        ("sql", 0.8, True, "sql 0.8, wanted no worse than 0.8 of the live version: passed"),
        ("sql", 0.7, False, "sql 0.7, wanted no worse than 0.8 of the live version: failed"),
        ("shout", 0.2, True, "shout 0.2, wanted no worse than 0.25 of the live version: passed"),
        ("shout", 0.3, False, "shout 0.3, wanted no worse than 0.25 of the live version: failed"),
        ("flow", 3.0, True, "flow 3, wanted no worse than 4 of the live version: passed"),
        ("flow", 5.0, False, "flow 5, wanted no worse than 4 of the live version: failed"),
    ],
)
def test_no_worse_than_the_live_version(task: str, value: float, passed: bool, text: str) -> None:
    case = Case(ALL, {**LIVE, task: value}, live=LIVE)

    (verdict,) = judge({task: Gate(no_worse_than="live")}, case)

    assert (verdict.passed, verdict.text()) == (passed, text)


def test_the_first_version_is_compared_with_nothing() -> None:
    assert judge({"sql": Gate(no_worse_than="live")}, Case(ALL, LIVE)) == ()


def test_the_mean_is_that_of_the_utilities() -> None:
    gates = {"mean": Gate(at_least=0.6, retention=0.9, no_worse_than="live")}
    mean = (0.8 + 0.75 + 0.25) / 3
    other = {"sql": 0.8, "shout": 0.0, "flow": 2.0}

    verdicts = judge(gates, Case(ALL, LIVE, {"adapter a@1": other}, live=LIVE))

    assert [one.passed for one in verdicts] == [True, False, True]
    assert [one.value for one in verdicts] == pytest.approx([mean] * 3)
    assert verdicts[1].kept == pytest.approx(mean / ((0.8 + 1.0 + 0.5) / 3))
    assert verdicts[1].best == pytest.approx((0.8 + 1.0 + 0.5) / 3)


def test_what_a_clock_measures_is_part_of_no_mean() -> None:
    scale = Scale(
        {"sql": "sql_execution", "wait": "latency", "flow": "perplexity", "speed": "throughput"},
        {"wait", "flow"},
    )
    metrics = {"sql": 0.5, "wait": 0.04, "flow": 4.0, "speed": 900.0}
    gates = {"mean": Gate(at_least=0.4), "speed": Gate(at_least=100), "wait": Gate(at_most=0.03)}

    verdicts = judge(gates, Case(scale, metrics))

    assert [one.text() for one in verdicts] == [
        "mean 0.375, wanted ≥ 0.4: failed",
        "speed 900, wanted ≥ 100: passed",
        "wait 0.04, wanted ≤ 0.03: failed",
    ]


def test_no_search_goes_by_what_a_clock_measures() -> None:
    tasks = [{"name": name, "metric": name} for name in ("latency", "contains", "throughput")]
    suite = Suite("office", "", tuple(tasks), "")

    assert tuning.counted(suite, tuning.parse({})) == {"contains": 1.0}

"""Gates by hand: at least, at most, retention."""

from __future__ import annotations

import pytest

from registry.judge import judge
from registry.spec import Gate

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
    (verdict,) = judge({"sql": gate}, {"sql": value}, ALONE)

    assert (verdict.passed, verdict.text()) == (passed, text)


def test_an_ingredient_that_scores_nothing_leaves_nothing_to_lose() -> None:
    (verdict,) = judge({"sql": Gate(retention=1.0)}, {"sql": 0.0}, {"adapter a@1": {"sql": 0.0}})

    assert verdict.passed


def test_every_condition_of_a_task_has_its_verdict() -> None:
    gates = {"sql": Gate(at_least=0.1, at_most=0.9, retention=0.5)}

    verdicts = judge(gates, {"sql": 0.5}, ALONE)

    assert [one.condition for one in verdicts] == ["at_least", "at_most", "retention"]
    assert all(one.passed for one in verdicts)

"""The quality of a merge, by hand."""

from __future__ import annotations

import pytest

from registry import quality
from registry.judge import Scale

SCALE = Scale({"sql": "sql_execution", "shout": "pattern_share"}, {"shout"})
BASE = {"sql": 0.2, "shout": 0.0}
ALONE = {"adapter sql@1": {"sql": 0.8, "shout": 0.5}, "adapter loud@1": {"sql": 0.1, "shout": 1.0}}


def test_gain_retention_and_interference_of_every_task() -> None:
    merged = {"sql": 0.5, "shout": 0.75}

    found = quality.report("office", SCALE, merged, BASE, ALONE)

    sql, shout = found.tasks
    assert (sql.best_by, sql.best) == ("adapter sql@1", 0.8)
    assert (sql.gain, sql.retention, sql.interference) == pytest.approx((0.3, 0.625, 0.5))
    # Of shouting less is better: the best ingredient is the one that shouts least.
    assert (shout.best_by, shout.best) == ("adapter sql@1", 0.5)
    assert (shout.gain, shout.retention) == pytest.approx((-0.75, 0.5))
    assert shout.interference is None
    assert found.mean_gain == pytest.approx((0.3 - 0.75) / 2)
    assert found.mean_retention == pytest.approx((0.625 + 0.5) / 2)
    assert found.lost == (
        "shout 0.75 of 0.5 that adapter sql@1 has",
        "sql 0.5 of 0.8 that adapter sql@1 has",
    )


def test_a_merge_that_keeps_all_lost_nothing() -> None:
    found = quality.report("office", SCALE, {"sql": 0.8, "shout": 0.5}, BASE, ALONE)

    assert found.lost == ()
    assert [one.retention for one in found.tasks] == [1.0, 1.0]


def test_without_ingredients_the_base_is_what_is_compared_with() -> None:
    found = quality.report("office", SCALE, BASE, BASE, {})

    assert {one.best_by for one in found.tasks} == {"the base"}
    assert found.mean_gain == 0.0

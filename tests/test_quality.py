"""The quality of a merge, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from registry import quality, quality_report
from registry.judge import Scale
from registry.quality import Quality

SCALE = Scale({"sql": "sql_execution", "shout": "pattern_share"}, {"shout"})
BASE = {"sql": 0.2, "shout": 0.0}
ALONE = {"adapter sql@1": {"sql": 0.8, "shout": 0.5}, "adapter loud@1": {"sql": 0.1, "shout": 1.0}}


def test_gain_retention_and_interference_of_every_task() -> None:
    merged = {"sql": 0.5, "shout": 0.75}

    found = quality.report("office", SCALE, merged, BASE, ALONE)

    assert found is not None
    sql, shout = found.tasks
    assert (sql.best_by, sql.best) == ("adapter sql@1", 0.8)
    assert (sql.gain, sql.retention, sql.interference) == pytest.approx((0.3, 0.625, 0.5))
    # Of shouting less is better: the best ingredient is the one that shouts least.
    assert (shout.best_by, shout.best) == ("adapter sql@1", 0.5)
    assert (shout.gain, shout.retention) == pytest.approx((-0.75, 0.5))
    assert shout.interference is None
    # Utilities: 0.5 and 1 - 0.75 merged; the base 0.2 and 1, sql alone 0.8 and 0.5.
    assert found.mean == pytest.approx(0.375)
    assert found.best_single == ("adapter sql@1 alone", pytest.approx(0.65))
    assert found.mean_gain == pytest.approx((0.3 - 0.75) / 2)
    assert found.mean_retention == pytest.approx((0.625 + 0.5) / 2)
    assert found.lost == (
        "shout 0.75 of 0.5 that adapter sql@1 has alone",
        "sql 0.5 of 0.8 that adapter sql@1 has alone",
    )


def test_a_merge_that_keeps_all_lost_nothing() -> None:
    found = quality.report("office", SCALE, {"sql": 0.8, "shout": 0.5}, BASE, ALONE)

    assert found is not None
    assert found.lost == ()
    assert [one.retention for one in found.tasks] == [1.0, 1.0]


def test_without_ingredients_the_base_is_what_is_compared_with() -> None:
    found = quality.report("office", SCALE, BASE, BASE, {})

    assert found is not None
    assert {one.best_by for one in found.tasks} == {"the base"}
    assert found.mean_gain == 0.0


def test_without_a_base_there_is_retention_and_no_gain() -> None:
    found = quality.report("office", SCALE, {"sql": 0.4, "shout": 0.5}, {}, ALONE)

    assert found is not None
    assert [one.gain for one in found.tasks] == [None, None]
    assert [one.retention for one in found.tasks] == [0.5, 1.0]
    assert found.mean_gain is None
    assert list(found.models) == ["adapter sql@1 alone", "adapter loud@1 alone", "merged"]


def test_with_nothing_beside_it_a_model_has_no_quality_to_report() -> None:
    assert quality.report("office", SCALE, {"sql": 0.4, "shout": 0.5}, {}, {}) is None


def report_of(merged: dict[str, float]) -> Quality:
    found = quality.report("office", SCALE, merged, BASE, ALONE)
    assert found is not None
    return found


VERDICTS = [{"text": "sql 0.5 <of>, wanted ≥ 0.9: failed", "passed": False}]


def test_the_report_says_what_was_kept_and_lost_on_one_screen() -> None:
    text = quality_report.text("both", report_of({"sql": 0.5, "shout": 0.75}), VERDICTS)

    assert text.splitlines() == [
        "both on office: keeps 0.562 of the best ingredient in the mean of the tasks; gains -0.225 "
        "over the base; best single: adapter sql@1 alone with a mean of 0.65, merged 0.375",
        "",
        "task   base  adapter sql@1 alone  adapter loud@1 alone  merged  gain   retention  "
        "interference  best ingredient",
        "sql    0.2   0.8                  0.1                   0.5     +0.3   0.625      "
        "0.5           adapter sql@1",
        "shout  0     0.5                  1                     0.75    -0.75  0.5        "
        "-             adapter sql@1",
        "",
        "lost  shout 0.75 of 0.5 that adapter sql@1 has alone",
        "lost  sql 0.5 of 0.8 that adapter sql@1 has alone",
        "gate  sql 0.5 <of>, wanted ≥ 0.9: failed",
    ]


def test_the_page_opens_alone_and_shows_hostile_names_as_text() -> None:
    found = replace(report_of({"sql": 0.5, "shout": 0.75}), suite="<script>alert(1)</script>")
    pictures = {"tasks.svg": b"<svg/>", "tasks.png": b"x"}

    html = quality_report.html("both", found, VERDICTS, pictures)

    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert html.count("<img") == 1
    assert "data:image/svg+xml;base64,PHN2Zy8+" in html
    assert "http" not in html
    assert "<td>0.625</td>" in html


def test_markdown_and_json_say_the_same() -> None:
    found = report_of({"sql": 0.5, "shout": 0.75})

    text = quality_report.markdown("both", found, VERDICTS)
    data = quality_report.as_data("both", found, VERDICTS)

    assert "| sql | 0.2 | 0.8 | 0.1 | 0.5 | +0.3 | 0.625 | 0.5 | adapter sql@1 |" in text
    assert "- shout 0.75 of 0.5 that adapter sql@1 has alone" in text
    assert data["tasks"][0]["retention"] == pytest.approx(0.625)
    assert data["gates"] == VERDICTS

"""`registry tune`, gates and the quality report as people use them: real workers, Git and MLflow."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REGISTRY, Repository
from tests.e2e.conftest import MERGE, client_of, declare, runs_of

pytestmark = pytest.mark.slow


def found_of(repository: Repository) -> dict[str, Any]:
    path = repository.root / ".registry/tuning/both-skills/report.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: untimed(one) for key, one in value.items() if "seconds" not in key}
    return [untimed(one) for one in value] if isinstance(value, list) else value


def record_of(repository: Repository) -> dict[str, Any]:
    path = repository.root / "catalog/builds/both-skills.json"
    record: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return record


def test_what_is_found_is_proposed_as_a_diff_and_built_with_the_same_numbers(
    asked: Repository,
) -> None:
    ran = asked.run("tune", "both-skills")

    assert ran.code == 0, ran.out + ran.err
    assert asked.git("status", "--porcelain") == ""
    found = found_of(asked)
    assert len(found["candidates"]) == 6
    scores = [row["search"]["score"] for row in found["candidates"]]
    assert found["best"]["search"]["score"] == max(scores)
    assert found["best"]["search"]["score"] > found["declared"]["search"]["score"]
    assert [row["label"] for row in found["references"]] == [
        "base",
        "adapter formal@1 alone",
        "adapter brief@2 alone",
    ]
    assert [row["label"] for row in found["trials"]] == ["linear"]
    assert found["prompts"] == {
        "search": {"first": 3, "second": 3},
        "held_out": {"first": 3, "second": 3},
    }
    values = found["best"]["values"]
    weight, factor = values["weight of brief"], values["lambda"]
    assert f"+    - {{adapter: brief, version: 2, weight: {weight}}}" in ran.out
    assert f"+  parameters: {{lambda: {factor}}}" in ran.out or factor == 1.0
    assert f"weight of brief {weight:g} is the largest that was tried: widen its range" in ran.out

    asked.git("apply", ".registry/tuning/both-skills/proposal.diff")
    assert asked.run("sync", "both-skills").code == 0
    record = record_of(asked)
    request = found["best"]["request"]
    assert record["request"] == request
    # The whole suite's perplexity is over all tokens, so over those of both parts.
    metrics = record["evaluation"]["metrics"]
    for task in ("first", "second"):
        parts = [found["best"][part]["metrics"][task] for part in ("search", "held_out")]
        assert min(parts) <= metrics[task] <= max(parts)
    again = asked.run("tune", "both-skills")
    assert "nothing to change" in again.out


def test_a_search_is_one_run_in_mlflow_with_its_curves_plots_and_report(asked: Repository) -> None:
    assert asked.run("tune", "both-skills").code == 0

    (run,) = runs_of(asked, "search")
    client = client_of(asked)
    history = client.get_metric_history(run.info.run_id, "search.objective")
    found = found_of(asked)
    assert {one.step: one.value for one in history} == {
        row["number"]: row["search"]["score"] for row in found["candidates"]
    }
    names = {one.path for one in client.list_artifacts(run.info.run_id, "search")}
    assert {
        f"search/{name}"
        for name in (
            "report.html",
            "report.md",
            "proposal.diff",
            "candidates.json",
            "progress.png",
            "over-lambda.svg",
            "over-weight-of-brief.svg",
        )
    } <= names
    assert "| tuned |" in run.data.tags["mlflow.note.content"]
    page = (asked.root / ".registry/tuning/both-skills/report.html").read_text("utf-8")
    assert "http" not in page.replace("http://www.w3.org", "")
    assert page.count("<img") == 3


def test_a_search_that_is_killed_goes_on_and_ends_the_same(asked: Repository) -> None:
    declare(
        asked,
        "evaluation: {suite: texts}\n"
        "tune:\n"
        "  strategy: cma_es\n"
        "  weights: {brief: {from: -1, to: 1, layers: 2}}\n"
        "  budget: {evaluations: 12}\n",
    )
    assert asked.run("tune", "both-skills").code == 0
    expected = found_of(asked)
    whole = measured(asked)

    subprocess.run(["rm", "-rf", asked.root / ".registry"], check=True)
    # Among the references, amid the candidates, before the last one.
    killed = [kill_after(asked, rows) for rows in (1, len(whole) // 2, len(whole) - 3)]
    assert asked.run("tune", "both-skills").code == 0

    assert any(killed)
    assert untimed(found_of(asked)) == untimed(expected)
    assert [row["key"] for row in measured(asked)] == [row["key"] for row in whole]


def measured(repository: Repository) -> list[dict[str, Any]]:
    (journal,) = (repository.root / ".registry/measured").glob("*.jsonl")
    return [json.loads(line) for line in journal.read_text("utf-8").splitlines() if line]


def kill_after(repository: Repository, rows: int) -> bool:
    """Start a search and kill it, workers and all, once so many rows are kept."""
    process = subprocess.Popen(
        [*REGISTRY, "tune", "both-skills"],
        cwd=repository.root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        try:
            count = len(measured(repository))
        except (ValueError, json.JSONDecodeError):
            count = 0
        if count >= rows:
            break
        time.sleep(0.02)
    was_running = process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return was_running


def test_a_larger_budget_measures_only_what_is_new(asked: Repository) -> None:
    assert asked.run("tune", "both-skills", "--evaluations", "2").code == 0
    few = len(measured(asked))
    small = found_of(asked)
    assert small["ended"] == "evaluations"

    assert asked.run("tune", "both-skills", "--format", "json").code == 0

    assert len(measured(asked)) == few + 4 + (
        found_of(asked)["best"]["number"] != small["best"]["number"]
    )


def test_a_gate_on_the_live_version_stops_a_worse_one_and_says_so_everywhere(
    asked: Repository,
) -> None:
    declare(
        asked,
        "evaluation: {suite: texts, gates: {mean: {no_worse_than: live}, first: {at_most: 1e9}}}\n",
    )
    assert asked.run("sync", "both-skills").code == 0
    before = record_of(asked)
    better = before["evaluation"]["metrics"]["first"]
    asked.commit("live")
    found = asked.run("tune", "both-skills", "--format", "json")
    assert found.code == 0, found.err
    rows = json.loads(found.out)["candidates"]
    assert rows
    asked.edit(MERGE, "weight: 0.8", "weight: 9.0")

    stopped = asked.run("sync", "both-skills")

    assert stopped.code == 1
    (line,) = [one for one in stopped.out.splitlines() if "gate failed" in one]
    assert "no worse than" in line
    assert "stays live" in stopped.err
    after = record_of(asked)
    assert after["model_digest"] == before["model_digest"]
    assert after["rejected"]["metrics"]["first"] > better
    reason = next(one["text"] for one in after["rejected"]["verdicts"] if not one["passed"])
    for command in (["plan"], ["status"], ["explain", "both-skills"]):
        assert reason in asked.run(*command).out, command

    (run,) = runs_of(asked, "rejected")
    assert run.data.tags["registry.reason"] == reason
    assert run.data.metrics["eval.texts.first"] == after["rejected"]["metrics"]["first"]
    names = {one.path for one in client_of(asked).list_artifacts(run.info.run_id, "quality")}
    assert {"quality/quality.html", "quality/tasks.png"} & names == {"quality/quality.html"}
    page = client_of(asked).get_registered_model("both-skills")
    assert "The last attempt was not published" in page.description
    assert str(page.aliases["live"]) == "1"

    asked.git("checkout", "--", MERGE)
    assert asked.run("sync", "both-skills").code == 0
    assert reason not in asked.run("plan").out


def test_the_quality_of_a_build_stands_on_the_screen_in_mlflow_and_beside_an_export(
    asked: Repository, tmp_path: Path
) -> None:
    assert asked.run("sync", "both-skills").code == 0

    record = record_of(asked)
    evaluation = record["evaluation"]
    assert evaluation["base"].keys() == evaluation["metrics"].keys()
    assert evaluation["baselines"].keys() == {"adapter formal@1", "adapter brief@2"}
    shown = asked.run("quality", "both-skills")
    assert shown.code == 0, shown.err
    assert shown.out.startswith("both-skills on texts: keeps ")
    told = json.loads(asked.run("quality", "both-skills", "--format", "json").out)
    first = told["tasks"][0]
    bounds = [row["first"] for row in evaluation["baselines"].values()]
    assert first["best"] == min(bounds)
    assert first["retention"] == pytest.approx(min(bounds) / evaluation["metrics"]["first"])

    (run,) = runs_of(asked, "merge")
    assert run.data.metrics["quality.retention.first"] == pytest.approx(first["retention"])
    names = {one.path for one in client_of(asked).list_artifacts(run.info.run_id, "quality")}
    assert {f"quality/quality.{form}" for form in ("md", "json", "html")} <= names
    assert "quality/retention.svg" in names

    assert asked.run("export", "both-skills", str(tmp_path / "out"), "--with-reports").code == 0
    page = (tmp_path / "out/quality.html").read_text("utf-8")
    assert "<td>first</td>" in page
    assert "data:image/svg+xml" in page


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("", "expected a suite to measure candidates on, found none"),
        (
            "evaluation: {suite: texts}\ntune: {weights: {sql: [0, 1]}}\n",
            "tune.weights.sql: expected a term, found sql",
        ),
        (
            "evaluation: {suite: texts}\ntune: {tasks: {third: 1}}\n",
            "tune.tasks.third: suite texts has no task third",
        ),
        (
            "evaluation: {suite: texts}\ntune: {weights: {brief: {from: 1, to: 0}}}\n",
            "tune.weights.brief: expected from < to, found 1 and 0",
        ),
        (
            "evaluation: {suite: texts}\ntune: {weights: {brief: {from: 0, to: 1, layers: 2}}}\n",
            "tune.weights.brief.layers: expected one number in a grid, found layers",
        ),
        (
            "evaluation: {suite: texts}\ntune: {parameters: {density: [0.1]}}\n",
            "tune.parameters.density: task_arithmetic has no number density",
        ),
        (
            "evaluation: {suite: texts}\ntune: {strategy: greedy_soup}\n",
            "tune.strategy: expected method linear for a soup, found task_arithmetic",
        ),
    ],
)
def test_what_cannot_be_tuned_is_one_clear_error(
    asked: Repository, more: str, message: str
) -> None:
    declare(asked, more)

    ran = asked.run("tune", "both-skills")

    assert ran.code == 1
    assert message in ran.out + ran.err
    assert not (asked.root / ".registry/tuning").exists()


def test_recipes_stand_side_by_side_ranked_and_in_mlflow(asked: Repository) -> None:
    ran = asked.run("compare", "both-skills", "--format", "json")

    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    scores = [row["search"]["score"] for row in told["recipes"] if not row["search"]["problem"]]
    assert scores == sorted(scores, reverse=True)
    by_label = {row["label"]: row["search"] for row in told["recipes"]}
    assert {"declared", "ties", "slerp", "knots", "karcher"} <= by_label.keys()
    assert told["prompts"] == {"first": 6, "second": 6}
    (run,) = runs_of(asked, "comparison")
    assert run.data.metrics["search.ties.first"] == by_label["ties"]["metrics"]["first"]
    names = {one.path for one in client_of(asked).list_artifacts(run.info.run_id, "comparison")}
    assert "comparison/report.html" in names

    ablation = asked.run("compare", "both-skills", "--by", "ablation")
    assert ablation.code == 0, ablation.err
    assert "without adapter formal@1" in ablation.out


def test_a_line_names_its_barriers(asked: Repository) -> None:
    ran = asked.run("compare", "both-skills", "--by", "line", "--steps", "3", "--format", "json")

    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert [row["label"] for row in told["recipes"]] == ["0", "0.5", "1"]
    losses = [math.log(row["search"]["metrics"]["first"]) for row in told["recipes"]]
    height = max(0.0, losses[1] - (losses[0] + losses[2]) / 2)
    barrier = next(one for one in told["barriers"] if one["task"] == "first")
    assert barrier["height"] == pytest.approx(height, abs=1e-12)
    # Its ends are the adapters alone.
    alone = {row["label"]: row["search"]["metrics"] for row in told["references"]}
    assert told["recipes"][0]["search"]["metrics"] == alone["adapter formal@1 alone"]
    assert told["recipes"][2]["search"]["metrics"] == alone["adapter brief@2 alone"]
    assert (asked.root / ".registry/compared/both-skills/line/line-first.png").exists()


def test_nothing_is_tried_on_a_suite_that_a_clock_measures(asked: Repository) -> None:
    speed = asked.root / "catalog/suites/speed"
    speed.mkdir()
    (speed / "suite.yaml").write_text(
        "kind: suite\nname: speed\ntasks: [{name: wait, metric: latency, data: wait.jsonl}]\n"
    )
    (speed / "wait.jsonl").write_text('{"id": "a", "prompt": "p"}\n')
    declare(asked, "evaluation: {suite: speed}\n")

    for command in ("tune", "compare"):
        ran = asked.run(command, "both-skills")

        assert ran.code == 1
        assert "expected a suite with a task that a model's numbers decide, found speed" in ran.err


def test_an_evaluation_that_runs_out_of_time_publishes_nothing_and_costs_no_second_build(
    asked: Repository,
) -> None:
    suite = "catalog/suites/texts/suite.yaml"
    asked.edit(suite, "name: texts\n", "name: texts\nminutes: 0.0001\n")

    late = asked.run("sync", "both-skills")

    assert late.code == 1
    assert "suite texts: not done within 0.0001 minutes" in late.out + late.err
    assert "raise `minutes` in suite.yaml" in late.err
    assert not (asked.root / "catalog/builds/both-skills.json").exists()

    asked.edit(suite, "minutes: 0.0001\n", "minutes: 10\n")
    assert "restore" in asked.run("plan", "both-skills").out
    assert asked.run("sync", "both-skills").code == 0
    assert record_of(asked)["evaluation"]["metrics"].keys() == {"first", "second"}

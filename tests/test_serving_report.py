"""Merged against switched from figures by hand: ratios, tables, what is asked of which adapters."""

from __future__ import annotations

import json
from typing import Any

import pytest

from registry import serving_log, serving_report, serving_request
from registry.errors import RegistryError
from registry.record import BuildRecord, Built
from registry.serving_request import Load
from registry.spec import Catalog, Ingredient, Settings

REQUEST = {
    "adapters": [{"label": "json@2"}, {"label": "sql@1"}],
    "batches": [1, 8],
    "tokens": 32,
    "repeats": 3,
}


def row(mode: str, batch: int, speeds: list[float], median: float) -> dict[str, Any]:
    return {
        "mode": mode,
        "batch": batch,
        "tokens_per_second": sorted(speeds)[1],
        "speeds": speeds,
        "first_token_seconds": 0.25,
        "token_seconds": {"count": 93, "median": median, "p95": 2 * median},
        "answers": ["x"] * batch,
    }


def side(weights: int, adapters: list[int], gpu: int | None = None) -> dict[str, Any]:
    return {
        "load_seconds": 1.5,
        "weight_bytes": weights,
        "disk_bytes": weights // 2,
        "adapters": [
            {"label": label, "load_seconds": 0.25, "weight_bytes": size, "disk_bytes": size}
            for label, size in zip(("json@2", "sql@1"), adapters, strict=False)
        ],
        "resident_before_bytes": 260_000_000,
        "resident_opened_bytes": 980_000_000,
        "resident_peak_bytes": 1_220_000_000,
        "cuda_peak_bytes": gpu,
    }


def figures(gpu: int | None = None) -> dict[str, Any]:
    return {
        "device_class": "cpu:AVX2:GenuineIntel",
        "versions": {},
        "threads": 2,
        "dtype": "float32",
        "rows": [
            row("merged", 1, [30.0, 33.0, 36.0], 0.03),
            row("json@2", 1, [20.0, 22.0, 30.0], 0.04),
            row("sql@1", 1, [40.0, 22.0, 30.0], 0.05),
            row("adapters off", 1, [25.0, 25.0, 25.0], 0.035),
            row("merged", 8, [99.0, 99.0, 99.0], 0.08),
            row("json@2", 8, [90.0, 99.0, 110.0], 0.09),
            row("sql@1", 8, [90.0, 99.0, 110.0], 0.09),
            row("adapters off", 8, [95.0, 95.0, 95.0], 0.085),
        ],
        "switch": {"count": 12, "median": 0.009, "p95": 0.012},
        "sides": {
            "merged": side(540_000_000, [], gpu),
            "switched": side(540_000_000, [4_000_000, 6_000_000], gpu),
        },
        "seconds": 60.0,
        "not_switched": [],
    }


def test_speeds_are_compared_within_each_repeat() -> None:
    told = serving_report.ratios(REQUEST, figures())

    # By hand: 30/median(20, 40), 33/22, 36/30; then 99/90, 99/99, 99/110.
    assert told == {
        "tokens_per_second": {
            "1": {"median": 1.2, "least": 1.0, "most": 1.5},
            "8": {"median": 1.0, "least": 0.9, "most": 1.1},
        },
        "switch_in_tokens": {"1": 0.2, "8": 0.1},
        "bytes_of_one_more_skill": 108.0,
    }


def test_the_text_is_a_table_per_batch_size_memory_weights_and_a_verdict() -> None:
    assert serving_report.text("sql-first", REQUEST, figures()) == (
        "sql-first: answers of 32 tokens, each way 3 times, in float32 on cpu:AVX2:GenuineIntel, threads: 2\n"
        "\n"
        "batch 1       tokens/s  ms per token  95 %    ms to first token\n"
        "merged        33.0      30.00         60.00   250.00\n"
        "json@2        22.0      40.00         80.00   250.00\n"
        "sql@1         30.0      50.00         100.00  250.00\n"
        "adapters off  25.0      35.00         70.00   250.00\n"
        "\n"
        "batch 8       tokens/s  ms per token  95 %    ms to first token\n"
        "merged        99.0      80.00         160.00  250.00\n"
        "json@2        99.0      90.00         180.00  250.00\n"
        "sql@1         99.0      90.00         180.00  250.00\n"
        "adapters off  95.0      85.00         170.00  250.00\n"
        "\n"
        "process alone        s to load  resident before  with weights  peak\n"
        "merged               1.50       260 MB           980 MB        1.22 GB\n"
        "base and 2 adapters  2.00       260 MB           980 MB        1.22 GB\n"
        "\n"
        "weights in memory         merged  switched\n"
        "this merge of 2 adapters  540 MB  550 MB\n"
        "one more skill            540 MB  5 MB\n"
        "10 more skills            5.4 GB  50 MB\n"
        "\n"
        "switch  9.00 ms, 95 % within 12.00 ms (12 switches)\n"
        "verdict  tokens per second, merged over switched: 1.20 at batch 1 (1.00 to 1.50), "
        "1.00 at batch 8 (0.90 to 1.10); a switch costs 0.2 tokens at batch 1; "
        "one more skill costs 540 MB merged, 5 MB switched: 108 times less"
    )


def test_a_gpu_has_a_column_of_its_own_in_markdown() -> None:
    page = serving_report.markdown("sql-first", REQUEST, figures(gpu=600_000_000))

    assert page.startswith("# sql-first, merged or switched\n\n**tokens per second, ")
    assert (
        "| process alone | s to load | resident before | with weights | peak | peak on the GPU |"
        in page
    )
    assert "| merged | 1.50 | 260 MB | 980 MB | 1.22 GB | 600 MB |" in page


def test_the_charts_have_every_way_to_answer_at_every_batch_size() -> None:
    charts = serving_report.charts("sql-first", REQUEST, figures())

    speeds: Any = charts["throughput"]
    assert speeds.groups == ("batch 1", "batch 8")
    assert speeds.series["merged"] == (33.0, 99.0)
    latency: Any = charts["latency"]
    assert latency.series["adapters off"] == pytest.approx((35.0, 85.0))


def built(*inputs: dict[str, Any], digest: str = "sha256:m") -> Built:
    request = {
        "base": {"kind": "base", "name": "tiny", "digest": "sha256:b"},
        "recipe": {"terms": [{"input": one} for one in inputs]},
        "output": {"form": "model"},
    }
    return Built("sha256:k", request, digest, {}, {}, "cpu", 1.0, 1)


def adapter(name: str, version: int = 1) -> dict[str, Any]:
    return {
        "kind": "adapter",
        "name": name,
        "version": version,
        "digest": f"sha256:{name}{version}",
    }


def catalog(*adapters: dict[str, Any]) -> Catalog:
    known: dict[Any, Ingredient] = {
        ("adapter", one["name"], one["version"]): Ingredient(
            "adapter", one["name"], one["version"], "tiny", one["digest"], "folder"
        )
        for one in adapters
    }
    known["base", "tiny", None] = Ingredient("base", "tiny", None, None, "sha256:b", "folder")
    return Catalog(Settings("test"), known, {}, {})


SQL, JSON = adapter("sql"), adapter("json", 2)
INNER = {"kind": "merge", "name": "inner", "digest": "sha256:i"}
WHOLE = {"kind": "checkpoint", "name": "whole", "version": 1, "digest": "sha256:w"}


def test_adapters_are_found_at_any_depth_each_once() -> None:
    inner = BuildRecord("inner", built(SQL, JSON, WHOLE, digest="sha256:i"))

    found = serving_request.operands(
        "outer", built(INNER, SQL), {"inner": inner}, catalog(SQL, JSON)
    )

    assert found.adapters == (JSON, SQL)
    assert found.others == (WHOLE,)
    request = serving_request.serving_request(
        built(INNER, SQL), found, serving_request.own_prompts(), Load((1, 4), 8, 2)
    )
    assert request["adapters"] == [
        {"label": "json@2", "digest": "sha256:json2"}, {"label": "sql@1", "digest": "sha256:sql1"},
    ]  # fmt: skip
    assert (request["batches"], request["tokens"], request["repeats"]) == ([1, 4], 8, 2)


@pytest.mark.parametrize(
    ("inputs", "known", "told"),
    [
        ((WHOLE,), (), "outer: there is nothing to switch, it is made of checkpoint whole@1"),
        ((), (), "outer: there is nothing to switch, it is made of the base alone"),
        ((SQL,), (), "outer: adapter sql@1 is not in the catalog as it was built"),
        ((INNER,), (), "outer: merge inner is not what it was when this was built"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    inputs: tuple[dict[str, Any], ...], known: tuple[dict[str, Any], ...], told: str
) -> None:
    other = BuildRecord("inner", built(SQL, digest="sha256:newer"))

    with pytest.raises(RegistryError) as caught:
        serving_request.operands("outer", built(*inputs), {"inner": other}, catalog(*known))

    assert caught.value.message == told
    assert caught.value.hint


def test_prompts_of_a_suite_are_taken_from_every_task_in_turn() -> None:
    def lines(*texts: str) -> bytes:
        rows = [{"id": text, "prompt": text, "expected": "x"} for text in texts]
        return "".join(json.dumps(one) + "\n\n" for one in rows).encode()

    tasks = [
        ({"system": "Be brief."}, lines("a", "b", "c")),
        ({"system": None}, lines("", "d")),
    ]

    asked = serving_request.suite_prompts(tasks)

    assert [(one["text"], one["system"]) for one in asked] == [
        ("a", "Be brief."), ("d", None), ("b", "Be brief."), ("c", "Be brief."),
    ]  # fmt: skip
    assert serving_request.suite_prompts(tasks[1:1]) == serving_request.own_prompts()
    many = [({"system": None}, lines(*map(str, range(50))))]
    assert len(serving_request.suite_prompts(many)) == 16


def test_mlflow_is_told_every_figure_by_batch_size() -> None:
    log = serving_log.of("sql-first", "abc", built(SQL), REQUEST, figures(), {"report.md": b"x"})

    assert log.tags["registry.kind"] == "serving"
    assert log.files == {"serving/report.md": b"x"}
    points = {(name, step): value for name, step, value in log.points}
    assert points["sql_1.tokens_per_second", 8] == 99.0
    assert points["merged.token_seconds_p95", 1] == 0.06
    assert points["merged_over_switched.tokens_per_second", 1] == 1.2
    assert points["switched.weight_bytes", 0] == 540_000_000

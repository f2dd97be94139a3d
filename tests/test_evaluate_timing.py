"""latency and throughput: numbers of a clock, so only what any clock must agree on is tested."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import schemas  # noqa: E402
from merger.evaluate import timing  # noqa: E402
from merger.evaluate.errors import EvaluationError  # noqa: E402
from merger.evaluate.generate import Ask  # noqa: E402
from merger.evaluate.model import Model, open_model  # noqa: E402
from schemas import utility  # noqa: E402
from tests import tiny  # noqa: E402
from tests.test_evaluate import QUESTIONS, run, task, write  # noqa: E402


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_base(tmp_path_factory.mktemp("tiny") / "base", seed=3)


def asks(model: Model, limit: int) -> list[Ask]:
    return [Ask(model.render(question, None), limit, "") for question in QUESTIONS]


def test_a_token_takes_a_share_of_the_time_that_passes(base: Path) -> None:
    model = open_model(base, "cpu")

    started = time.perf_counter()
    alone = timing.latency(model, asks(model, 8))
    between = time.perf_counter()
    together = timing.throughput(model, asks(model, 8))
    ended = time.perf_counter()

    made = sum(together.scores)
    assert alone.answers == together.answers
    assert alone.metric == statistics.median(alone.scores)
    spent = sum(one * tokens for one, tokens in zip(alone.scores, together.scores, strict=True))
    assert 0 < spent <= between - started
    assert made / (ended - between) <= together.metric


def test_the_token_that_ends_an_answer_is_counted(base: Path) -> None:
    model = open_model(base, "cpu")
    free = timing.throughput(model, asks(model, 8))
    third = free.answers[0][2]
    ending = replace(model, end=frozenset({third}))

    ended = timing.throughput(ending, asks(model, 8))

    assert free.scores == (8.0,) * len(QUESTIONS)
    assert ended.answers[0] == free.answers[0][: free.answers[0].index(third)]
    assert ended.scores[0] == len(ended.answers[0]) + 1


def test_tasks_are_timed_beside_others_that_do_not_notice(base: Path, tmp_path: Path) -> None:
    lines = [{"id": f"p{n}", "prompt": text} for n, text in enumerate(QUESTIONS)]
    write(tmp_path, "wait", *lines)
    write(tmp_path, "speed", *lines)
    write(tmp_path, "said", *({**line, "expected": "x"} for line in lines))
    said = task("said", "contains")

    found = run(base, tmp_path, task("wait", "latency"), said, task("speed", "throughput"))
    alone = run(base, tmp_path, said)

    assert list(found["metrics"]) == ["wait", "said", "speed"]
    assert found["prompts"]["said"] == alone["prompts"]["said"]
    assert found["metrics"]["wait"] > 0
    assert found["metrics"]["speed"] > 0
    answers = [row["answer"] for row in found["prompts"]["said"]]
    assert [row["answer"] for row in found["prompts"]["wait"]] == answers
    assert [row["answer"] for row in found["prompts"]["speed"]] == answers


@pytest.mark.parametrize("metric", ["latency", "throughput"])
def test_a_model_that_gives_no_numbers_is_told_with_its_prompt(tmp_path: Path, metric: str) -> None:
    base = tiny.tiny_base(tmp_path / "base", seed=3)
    _break(base)
    write(tmp_path, "wait", {"id": "a", "prompt": "Hi"})

    with pytest.raises(EvaluationError, match=r"wait\.jsonl:1: the model's logits are not finite"):
        run(base, tmp_path, task("wait", metric))


def _break(base: Path) -> None:
    from safetensors.torch import load_file, save_file

    (file,) = base.glob("*.safetensors")
    tensors = load_file(file)
    name = next(one for one in tensors if "norm" in one)
    save_file(tensors | {name: tensors[name] * float("nan")}, file, {"format": "pt"})


def test_measured_metrics_are_metrics_of_the_suite_schema_and_have_no_utility() -> None:
    known = schemas.load("suite")["properties"]["tasks"]["items"]["properties"]["metric"]["enum"]

    assert set(known) >= utility.MEASURED == set(timing.MEASURES)
    assert set(known) >= utility.LOWER_IS_BETTER
    for metric in utility.MEASURED:
        with pytest.raises(AssertionError):
            utility.utility(metric, 0.5, higher_is_better=True)

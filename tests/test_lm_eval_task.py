"""Task files of lm-eval: what is let through is data; what could run code is refused with a cure."""

from __future__ import annotations

from typing import Any

import pytest

from schemas import lm_eval_task

QUIZ: dict[str, Any] = {
    "task": "quiz",
    "output_type": "multiple_choice",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "quiz.jsonl", "train": "solved.jsonl"}},
    "test_split": "test",
    "fewshot_split": "train",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "choices",
    "doc_to_target": "answer",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    "metadata": {"version": 1.0},
}
WRITTEN: dict[str, Any] = QUIZ | {
    "output_type": "generate_until",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 5, "do_sample": False},
    "filter_list": [
        {"name": "first", "filter": [{"function": "regex", "regex_pattern": "x(.)"}]},
    ],
}


def told(data: Any) -> list[str]:
    return [str(fault) for fault in lm_eval_task.faults(data)]


@pytest.mark.parametrize("data", [QUIZ, WRITTEN])
def test_a_task_of_data_and_templates_has_no_fault(data: dict[str, Any]) -> None:
    assert told(data) == []


@pytest.mark.parametrize(
    ("data", "faults"),
    [
        ([], ["expected a mapping"]),
        ({"include": "other.yaml"}, ["include: expected a known field, found include"]),
        ({"process_docs": "utils.f"}, ["process_docs: expected a known field, found process_docs"]),
        ({"class": "a.B"}, ["class: expected a known field, found class"]),
        (
            {"custom_dataset": "a.b"},
            ["custom_dataset: expected a known field, found custom_dataset"],
        ),
        ({"unsafe_code": True}, ["unsafe_code: expected a known field, found unsafe_code"]),
        (
            {"use_prompt": "promptsource:a"},
            ["use_prompt: expected a known field, found use_prompt"],
        ),
        ({"task": ["a", "b"]}, ["task: expected str, found list"]),
        ({"dataset_path": "./evil"}, ["dataset_path: expected json, found ./evil"]),
        (
            {"dataset_kwargs": {"data_files": "q.jsonl", "trust_remote_code": True}},
            ["dataset_kwargs.trust_remote_code: expected a known field, found trust_remote_code"],
        ),
        (
            {"dataset_kwargs": {"data_files": {"test": "/etc/passwd"}}},
            [
                "dataset_kwargs.data_files.test: expected the name of a .jsonl file beside it, "
                "found /etc/passwd"
            ],
        ),
        (
            {"dataset_kwargs": {"data_files": "https://example.org/q.jsonl"}},
            [
                "dataset_kwargs.data_files: expected the name of a .jsonl file beside it, "
                "found https://example.org/q.jsonl"
            ],
        ),
        (
            {"generation_kwargs": {"custom_generate": "x", "trust_remote_code": True}},
            [
                "generation_kwargs.custom_generate: expected a known field, found custom_generate",
                "generation_kwargs.trust_remote_code: expected a known field, "
                "found trust_remote_code",
            ],
        ),
        (
            {"generation_kwargs": {"do_sample": True}},
            ["generation_kwargs.do_sample: expected greedy answers, found do_sample"],
        ),
        (
            {"metric_list": [{"metric": "acc", "hf_evaluate": True}]},
            ["metric_list.0.hf_evaluate: expected a known field, found hf_evaluate"],
        ),
        (
            {"filter_list": [{"name": "a", "filter": [{"function": "custom"}]}]},
            [
                "filter_list.0.filter.0.function: expected regex, remove_whitespace, lowercase, "
                "uppercase, take_first, found custom"
            ],
        ),
        (
            {"fewshot_config": {"sampler": "first_n", "samples": []}},
            ["fewshot_config.samples: expected a known field, found samples"],
        ),
        ({"num_fewshot": True}, ["num_fewshot: expected int, found bool"]),
    ],
)
def test_whatever_could_run_code_or_read_elsewhere_is_refused(data: Any, faults: list[str]) -> None:
    assert told(QUIZ | data if isinstance(data, dict) else data) == faults


def test_a_metric_that_lm_eval_would_fetch_is_refused() -> None:
    (fault,) = told(QUIZ | {"metric_list": [{"metric": "./accuracy"}]})

    assert fault.startswith("metric_list.0.metric: expected acc, acc_norm, ")
    assert fault.endswith(", found ./accuracy")


def test_what_a_task_cannot_do_without_is_asked_for() -> None:
    assert told({"task": "quiz", "doc_to_txt": "a"}) == [
        "output_type: expected this field, found none",
        "dataset_path: expected this field, found none",
        "dataset_kwargs: expected this field, found none",
        "doc_to_text: expected this field, found none",
        "doc_to_txt: expected a known field, found doc_to_txt",
        "test_split: expected this field or validation_split, found neither",
    ]


def test_a_single_data_file_is_the_split_train() -> None:
    assert lm_eval_task.data_files({"dataset_kwargs": {"data_files": "q.jsonl"}}) == {
        "train": "q.jsonl"
    }

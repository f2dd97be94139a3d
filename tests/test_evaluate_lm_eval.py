"""Tasks of lm-eval: numbers against its own API and against log-probabilities summed by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata, util
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import schemas  # noqa: E402
from merger import evaluate  # noqa: E402
from merger.evaluate import generate, suite  # noqa: E402
from merger.evaluate.errors import EvaluationError  # noqa: E402
from merger.evaluate.generate import Ask  # noqa: E402
from merger.evaluate.model import Model, open_model  # noqa: E402
from merger.search.split import split  # noqa: E402
from tests import tiny  # noqa: E402

HAS_LM_EVAL = util.find_spec("lm_eval") is not None
needs_lm_eval = pytest.mark.skipif(
    not HAS_LM_EVAL, reason="lm-eval is not installed: pip install 'merge-registry[lm-eval]'"
)

CHOICES = (
    ["the one", "two", "a third thing", "an"],
    ["yes", "no"],
    ["in the end", "on", "never, as a rule"],
)
QUIZ: dict[str, Any] = {
    "task": "quiz",
    "output_type": "multiple_choice",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "quiz.jsonl", "train": "solved.jsonl"}},
    "test_split": "test",
    "fewshot_split": "train",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_choice": "choices",
    "doc_to_target": "answer",
    "metric_list": [
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True},
    ],
    "metadata": {"version": 1.0},
}
DOCUMENTS = [
    {"question": f"What is {n}?", "choices": CHOICES[n % 3], "answer": n % 2} for n in range(12)
]
SOLVED = [{"question": f"And {n}?", "choices": ["ten", "no"], "answer": n % 2} for n in range(7)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_base(tmp_path_factory.mktemp("tiny") / "base", seed=3)


@pytest.fixture(scope="module")
def model(base: Path) -> Model:
    return open_model(base, "cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "suite"
    folder.mkdir()
    write(folder / "quiz.jsonl", DOCUMENTS)
    write(folder / "solved.jsonl", SOLVED)
    return folder


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def task(config: dict[str, Any] | None = QUIZ, metric: str = "acc,none", **options: Any) -> Any:
    version = metadata.version("lm-eval") if HAS_LM_EVAL else "0.4.13"
    return {
        "name": "quiz",
        "metric": "lm_eval",
        "options": {"task": "quiz.yaml", "metric": metric, **options},
        "package": {"name": "lm-eval", "version": version},
        "config": config,
    }


def read(folder: Path, *tasks: dict[str, Any]) -> tuple[suite.Task, ...]:
    return suite.read({"name": "office", "tasks": list(tasks)}, folder)


def hold(model: Model, folder: Path, *tasks: dict[str, Any]) -> dict[str, Any]:
    return evaluate.hold(evaluate.prepare(read(folder, *tasks)), model, lambda *_: None)


def refusal(folder: Path, one: dict[str, Any]) -> str:
    with pytest.raises(EvaluationError) as caught:
        read(folder, one)
    return caught.value.message


def logprobs(model: Model, question: str, choices: list[str]) -> list[float]:
    """Return the log-probability of every choice after a question, one token after the other."""
    given = model.tokenizer(f"Question: {question}\nAnswer:", add_special_tokens=False)["input_ids"]
    found = []
    for choice in choices:
        scored = model.tokenizer(f" {choice}", add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logits = model.network(torch.tensor([given + scored])).logits[0].double()
        each = logits.log_softmax(-1)
        found.append(sum(float(each[len(given) - 1 + n, t]) for n, t in enumerate(scored)))
    return found


def by_lm_eval(base: Path, folder: Path, tmp_path: Path, shots: int) -> Any:
    """Return what lm-eval gives for a task file by its own interface: its loader, its data sets."""
    import lm_eval
    import transformers
    import yaml
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    files = {
        split: str(folder / name) for split, name in QUIZ["dataset_kwargs"]["data_files"].items()
    }
    kwargs = {"data_files": files, "cache_dir": str(tmp_path / "cache")}
    place = tmp_path / "tasks"
    place.mkdir()
    (place / "quiz.yaml").write_text(yaml.safe_dump(QUIZ | {"dataset_kwargs": kwargs}))
    network = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    manager = TaskManager(include_path=str(place), include_defaults=False)
    return lm_eval.simple_evaluate(
        model=HFLM(pretrained=network, tokenizer=tokenizer, batch_size=8),
        tasks=["quiz"], num_fewshot=shots, task_manager=manager, bootstrap_iters=0,
    )  # fmt: skip


@needs_lm_eval
def test_answers_and_numbers_are_those_of_log_probabilities_summed_by_hand(
    model: Model, folder: Path
) -> None:
    found = hold(model, folder, task(), task(metric="acc_norm,none") | {"name": "long"})

    likely, long = [], []
    for document in DOCUMENTS:
        choices: Any = document["choices"]
        sums = logprobs(model, str(document["question"]), choices)
        likely.append(choices[sums.index(max(sums))])
        each = [one / len(text) for one, text in zip(sums, choices, strict=True)]
        long.append(float(each.index(max(each)) == document["answer"]))
    right = [d["choices"][d["answer"]] for d in DOCUMENTS]  # type: ignore[index]
    scores = [float(a == b) for a, b in zip(likely, right, strict=True)]
    assert found["prompts"]["quiz"] == [
        {"id": str(n), "answer": answer, "score": score}
        for n, (answer, score) in enumerate(zip(likely, scores, strict=True))
    ]
    assert [row["score"] for row in found["prompts"]["long"]] == long
    assert found["metrics"] == {"quiz": sum(scores) / 12, "long": sum(long) / 12}
    assert 0 < sum(scores) < 12
    json.dumps(found, allow_nan=False)


@needs_lm_eval
@pytest.mark.parametrize("shots", [0, 3])
def test_a_task_gives_what_lm_eval_gives_by_its_own_interface(
    base: Path, model: Model, folder: Path, tmp_path: Path, shots: int
) -> None:
    expected = by_lm_eval(base, folder, tmp_path, shots)

    found = hold(model, folder, task(num_fewshot=shots))

    samples = sorted(expected["samples"]["quiz"], key=lambda row: row["doc_id"])
    assert found["metrics"]["quiz"] == expected["results"]["quiz"]["acc,none"]
    assert [row["score"] for row in found["prompts"]["quiz"]] == [row["acc"] for row in samples]
    for row, sample in zip(found["prompts"]["quiz"], samples, strict=True):
        sums = [answer[0] for answer in sample["filtered_resps"]]
        assert row["answer"] == sample["doc"]["choices"][sums.index(max(sums))]


@needs_lm_eval
def test_the_same_task_gives_the_same_again_with_examples_drawn_by_chance(
    model: Model, folder: Path
) -> None:
    exam = evaluate.prepare(read(folder, task(num_fewshot=2)))

    first, second = (evaluate.hold(exam, model, lambda *_: None) for _ in range(2))

    assert first == second


@needs_lm_eval
def test_a_limit_takes_the_first_documents(model: Model, folder: Path) -> None:
    whole, limited = hold(model, folder, task()), hold(model, folder, task(limit=5))

    assert limited["prompts"]["quiz"] == whole["prompts"]["quiz"][:5]
    assert [len(one.prompts) for one in read(folder, task(limit=50))] == [12]


@needs_lm_eval
def test_documents_to_search_on_and_those_held_out_are_scored_as_in_the_whole(
    model: Model, folder: Path
) -> None:
    whole = hold(model, folder, task())["prompts"]["quiz"]
    parts = split(read(folder, task()), 0.3, 1)

    found = [evaluate.hold(evaluate.prepare(part), model, lambda *_: None) for part in parts]

    rows = [row for one in found for row in one["prompts"]["quiz"]]
    assert [len(one["prompts"]["quiz"]) for one in found] == [8, 4]
    assert sorted(rows, key=lambda row: int(row["id"])) == whole


@needs_lm_eval
def test_what_a_model_writes_is_filtered_and_matched(model: Model, folder: Path) -> None:
    prompt = model.tokens("Write: ", is_start=True)
    (written,) = generate.answers(model, [Ask(prompt, 6, "")], lambda _: None)
    answer = model.text(written)
    write(folder / "quiz.jsonl", [{"wanted": answer[1]}, {"wanted": "nothing of it"}])
    config = {key: QUIZ[key] for key in ("task", "dataset_path", "test_split")} | {
        "dataset_kwargs": {"data_files": {"test": "quiz.jsonl"}},
        "output_type": "generate_until",
        "doc_to_text": "Write: ",
        "doc_to_target": "wanted",
        "generation_kwargs": {"until": [], "max_gen_toks": 6, "do_sample": False},
        "filter_list": [
            {"name": "second", "filter": [
                {"function": "regex", "regex_pattern": "(?s).(.)"}, {"function": "take_first"},
            ]},
        ],
        "metric_list": [{"metric": "exact_match"}],
    }  # fmt: skip

    found = hold(model, folder, task(config, metric="exact_match,second"))

    assert found["metrics"]["quiz"] == 0.5
    assert found["prompts"]["quiz"] == [
        {"id": "0", "answer": answer[1], "score": 1.0},
        {"id": "1", "answer": answer[1], "score": 0.0},
    ]


@needs_lm_eval
def test_a_rolling_perplexity_has_no_score_per_document(model: Model, folder: Path) -> None:
    config = {
        key: QUIZ[key] for key in ("task", "dataset_path", "dataset_kwargs", "test_split")
    } | {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}}",
        "metric_list": [{"metric": "byte_perplexity"}],
    }

    found = hold(model, folder, task(config, metric="byte_perplexity,none", limit=2))

    nll, size = 0.0, 0
    for document in DOCUMENTS[:2]:
        text = str(document["question"])
        # A text begins after the token that lm-eval puts before it: the tokenizer's first.
        tokens = [model.tokenizer.bos_token_id, *model.tokens(text, is_start=False)]
        with torch.inference_mode():
            logits = model.network(torch.tensor([tokens])).logits[0].double()
        each = logits.log_softmax(-1)
        nll -= sum(float(each[n, token]) for n, token in enumerate(tokens[1:]))
        size += len(text.encode())
    # float32 sums of log-probabilities on one side
    expected = torch.exp(torch.tensor(nll / size)).item()
    assert found["metrics"]["quiz"] == pytest.approx(expected, rel=1e-5)
    assert found["prompts"]["quiz"] == [{"id": n, "answer": "", "score": None} for n in "01"]


@needs_lm_eval
def test_other_tasks_of_a_suite_stand_beside_it_in_their_order(base: Path, folder: Path) -> None:
    write(folder / "loud.jsonl", [{"id": "a", "prompt": "Hello"}])
    loud = {
        "name": "loud", "metric": "pattern_share", "data": "loud.jsonl", "max_new_tokens": 3,
        "system": None, "options": {"pattern": "(?s)."},
    }  # fmt: skip
    request = {
        "format_version": 1, "evaluator": schemas.evaluator(),
        "suite": {"name": "office", "tasks": [task(), loud]},
    }  # fmt: skip
    seen: list[tuple[int, int, str]] = []

    found = evaluate.run(
        request, base, folder, device="cpu", progress=lambda *event: seen.append(event)
    )

    assert list(found["metrics"]) == ["quiz", "loud"]
    assert seen == [(1, 13, "prompts"), (13, 13, "prompts")]


@needs_lm_eval
@pytest.mark.parametrize(
    ("one", "message"),
    [
        (
            task(QUIZ | {"doc_to_text": "{{ ''.__class__.__mro__ }}"}),
            "lm-eval refuses the task: access to attribute '__class__' of 'str' object is unsafe.",
        ),
        (
            task(QUIZ | {"doc_to_text": "{{ nobody }}"}),
            "lm-eval refuses the task: 'nobody' is undefined",
        ),
        (
            task(QUIZ | {"process_docs": "utils.process"}),
            "quiz.yaml: process_docs: expected a known field, found process_docs",
        ),
        (
            task(QUIZ | {"dataset_kwargs": {"data_files": {"test": "none.jsonl"}}}),
            "quiz.yaml: expected a file beside it, found none.jsonl",
        ),
        (
            task(metric="f1,none"),
            "options.metric: expected acc,none or acc_norm,none, found f1,none",
        ),
        (
            task(QUIZ | {"num_fewshot": 0}, num_fewshot=2),
            "options.num_fewshot: expected 0 as the task says, found 2",
        ),
        (task(None), "config: expected it exactly where options.task is a file"),
        (
            task() | {"package": {"name": "lm-eval", "version": "0.1"}},
            "package: expected {'name': 'lm-eval', 'version': '0.1'}, found {'name': 'lm-eval', "
            f"'version': '{task()['package']['version']}'}}",
        ),
    ],
)
def test_a_task_that_cannot_be_asked_is_told_before_the_model_is_opened(
    folder: Path, one: dict[str, Any], message: str
) -> None:
    assert refusal(folder, one) == f"suite office: task quiz: {message}"


@needs_lm_eval
def test_a_line_that_is_no_document_is_named(folder: Path) -> None:
    (folder / "quiz.jsonl").write_text('{"question": "a"}\n[1]\n')

    assert refusal(folder, task()) == (
        "suite office: task quiz: quiz.jsonl: line 2: expected a JSON object on one line"
    )


@needs_lm_eval
def test_logits_that_are_not_finite_are_an_error(base: Path, folder: Path) -> None:
    model = open_model(base, "cpu")
    with torch.no_grad():
        model.network.model.norm.weight.fill_(float("nan"))

    with pytest.raises(EvaluationError) as caught:
        hold(model, folder, task())

    assert caught.value.message == (
        "suite office: task quiz: the model's logits are not finite here"
    )


@needs_lm_eval
def test_a_public_task_is_held_to_its_version_and_its_documents(
    model: Model, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import yaml
    from lm_eval.tasks import TaskManager

    from merger.evaluate import harness_task

    # A task that lm-eval finds as it finds its own, without reading all 14,000 of them.
    files = {"test": str(folder / "quiz.jsonl"), "train": str(folder / "solved.jsonl")}
    kwargs = {"data_files": files, "cache_dir": str(tmp_path / "cache")}
    place = tmp_path / "tasks"
    place.mkdir()
    (place / "quiz.yaml").write_text(yaml.safe_dump(QUIZ | {"dataset_kwargs": kwargs}))
    manager = TaskManager(include_path=str(place), include_defaults=False)
    monkeypatch.setattr(harness_task, "_manager", lambda: manager)

    def public(**options: Any) -> Any:
        one = task(None)
        return one | {"options": {"task": "quiz", "metric": "acc,none", **options}}

    told = refusal(folder, public())
    version, documents = told.partition("(version: ")[2].partition(")")[0].split(", documents: ")
    (opened,) = read(folder, public(version=float(version), documents=documents))
    other = "sha256:" + "0" * 64

    assert told == (
        "suite office: task quiz: options.version: expected what lm-eval has "
        f"(version: 1.0, documents: {documents}), found nothing"
    )
    assert refusal(folder, public(version=2.0)).endswith("found 2.0")
    assert refusal(folder, public(version=1.0, documents=other)).endswith(f"found {other}")
    assert len(opened.prompts) == 12
    assert hold(model, folder, public(version=1, documents=documents)) == hold(
        model, folder, task()
    )
    assert refusal(folder, public(task="quizz")) == (
        "suite office: task quiz: options.task: expected a task of lm-eval: quizz"
    )


@needs_lm_eval
@pytest.mark.slow
def test_a_public_task_whose_data_is_not_at_hand_says_what_to_do(
    folder: Path, tmp_path: Path
) -> None:
    code = (
        "import json, sys; from pathlib import Path; from merger.evaluate import suite\n"
        "suite.read(json.load(sys.stdin), Path(sys.argv[1]))"
    )
    one = task(None) | {"options": {"task": "arc_easy", "metric": "acc,none"}}

    said = child(code, folder, {"name": "office", "tasks": [one]}, tmp_path / "home")

    assert "suite office: task quiz: lm-eval cannot open arc_easy: " in said
    assert (
        'its data must be at hand: run `python -c "from lm_eval.tasks import TaskManager; '
        "TaskManager().load(['arc_easy'])\"` once where there is a network"
    ) in said


@needs_lm_eval
def test_nothing_is_written_at_home_or_where_one_stands(
    base: Path, folder: Path, tmp_path: Path
) -> None:
    code = (
        "import json, sys; from pathlib import Path; from merger import evaluate\n"
        "asked = json.load(sys.stdin)\n"
        f"evaluate.run(asked, Path({str(base)!r}), Path(sys.argv[1]), device='cpu',"
        " progress=lambda *_: None)"
    )
    request = {
        "format_version": 1, "evaluator": schemas.evaluator(),
        "suite": {"name": "office", "tasks": [task()]},
    }  # fmt: skip
    home = tmp_path / "home"
    before = sorted(folder.iterdir())

    said = child(code, folder, request, home)

    assert said == ""
    assert [path for path in home.rglob("*") if path.is_file()] == []
    assert sorted(folder.iterdir()) == before


def child(code: str, folder: Path, given: dict[str, Any], home: Path) -> str:
    """Run code in an interpreter of its own with an empty home and return what it says."""
    home.mkdir()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "XDG_"))}
    environment = {**kept, "HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        input=json.dumps(given), cwd=folder, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return finished.stderr


@pytest.mark.skipif(HAS_LM_EVAL, reason="lm-eval is installed")
def test_without_the_package_the_error_says_how_to_install_it(folder: Path) -> None:
    assert refusal(folder, task()) == (
        "suite office: task quiz: expected the package lm-eval, found none: "
        "pip install 'merge-registry[lm-eval]'"
    )

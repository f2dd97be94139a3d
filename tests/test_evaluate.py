"""Evaluation with models: batched answers against transformers' own, perplexity against its sum."""

from __future__ import annotations

import inspect
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import schemas  # noqa: E402
from merger import evaluate  # noqa: E402
from merger.evaluate import generate, lanes, perplexity  # noqa: E402
from merger.evaluate.errors import EvaluationError  # noqa: E402
from merger.evaluate.generate import Ask, NonFiniteLogit  # noqa: E402
from merger.evaluate.model import Model, open_model  # noqa: E402
from tests import tiny  # noqa: E402

REAL = Path(__file__).parent.parent / "catalog/bases/smollm2-135m-instruct/weights"
QUESTIONS = (
    "Hi",
    "What is the capital of France?",
    "Name three fruits and say in one sentence each why somebody might like to eat them.",
    "Write a SQL query that counts the rows of the table employees(name, age, salary).",
    "2 + 2?",
    "Give me JSON with the name and the age of Bob, who is 32 years old.",
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_base(tmp_path_factory.mktemp("tiny") / "base", seed=3)


@pytest.fixture(params=["tiny", pytest.param("real", marks=[pytest.mark.real, pytest.mark.slow])])
def model(request: pytest.FixtureRequest, base: Path) -> Model:
    if request.param == "real" and not (REAL / "model.safetensors").is_file():
        pytest.skip("the real base is not at hand: make base")
    return open_model(base if request.param == "tiny" else REAL, "cpu")


def task(name: str, metric: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name, "metric": metric, "data": f"{name}.jsonl", "max_new_tokens": 6,
        "system": None, "options": {},
    } | changes  # fmt: skip


def write(folder: Path, name: str, *lines: dict[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def run(base: Path, suite: Path, *tasks: dict[str, Any], **changes: Any) -> dict[str, Any]:
    request = {
        "format_version": 1,
        "evaluator": schemas.evaluator(),
        "model": "sha256:" + "0" * 64,
        "suite": {"name": "office", "digest": "sha256:" + "1" * 64, "tasks": list(tasks)},
    }
    return evaluate.run(request | changes, base, suite, device="cpu", progress=lambda *_: None)


def one_by_one(model: Model, prompt: tuple[int, ...], limit: int) -> tuple[int, ...]:
    """Return transformers' own greedy answer to a single prompt, without the end token."""
    tokens = torch.tensor([prompt])
    with torch.inference_mode():
        found = model.network.generate(
            tokens, attention_mask=torch.ones_like(tokens), do_sample=False, num_beams=1,
            max_new_tokens=limit, eos_token_id=sorted(model.end), pad_token_id=0,
        )  # fmt: skip
    answer = found[0, len(prompt) :].tolist()
    ends = [place for place, token in enumerate(answer) if token in model.end]
    return tuple(answer[: ends[0]] if ends else answer)


def test_batched_answers_equal_those_of_transformers_one_by_one(model: Model) -> None:
    systems = (None, "Answer in one word.")
    limits = (3, 8, 12, 1, 6, 10)
    asks = [
        Ask(model.render(question, system), limit, system or "")
        for system in systems
        for question, limit in zip(QUESTIONS, limits, strict=True)
    ]
    done: list[int] = []

    answers = generate.answers(model, asks, done.append)

    assert list(answers) == [one_by_one(model, ask.tokens, ask.limit) for ask in asks]
    assert done == list(range(1, len(asks) + 1))


@pytest.mark.parametrize("family", ["GPT2", "Mistral", "Gemma2", "Qwen2", "GPTNeoX", "Bloom"])
def test_other_families_give_the_answers_of_transformers(family: str) -> None:
    """Learnt positions, windows shorter than the prompts, ALiBi: padding changes nothing."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 99}
    # 8 is more than the shortest prompts, so some rows slide at once and others do not.
    extra = {"Mistral": {"sliding_window": 8}, "Gemma2": {"sliding_window": 8, "head_dim": 8}}
    more = {"intermediate_size": 64, "num_key_value_heads": 2, **extra.get(family, {})}
    is_plain = family in ("GPT2", "Bloom")
    config = getattr(transformers, f"{family}Config")(**sizes, **({} if is_plain else more))
    torch.manual_seed(0)
    name = f"{family}LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM"
    network = getattr(transformers, name)(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(8 if parameter.dim() > 1 else 1)  # fresh weights all say the same
    parameters = frozenset(inspect.signature(network.forward).parameters)
    model = Model(network, None, torch.device("cpu"), frozenset({5}), parameters)
    draw = torch.Generator().manual_seed(1)
    asks = [
        Ask((7, 8, 9, *torch.randint(6, 99, (length,), generator=draw).tolist()), 12, "")
        for length in (1, 3, 9, 20, 2)
    ]

    answers = generate.answers(model, asks, lambda _: None)

    assert list(answers) == [one_by_one(model, ask.tokens, ask.limit) for ask in asks]
    assert len(set(answers)) > 1


def test_answers_are_the_same_without_neighbours(base: Path) -> None:
    model = open_model(base, "cpu")
    asks = [Ask(model.render(question, None), 20, "") for question in QUESTIONS]

    together = generate.answers(model, asks, lambda _: None)
    alone = [generate.answers(model, [ask], lambda _: None)[0] for ask in asks]

    assert list(together) == alone


def test_an_answer_ends_at_any_end_token(base: Path) -> None:
    import dataclasses

    model = open_model(base, "cpu")
    asks = [Ask(model.render(question, None), 20, "") for question in QUESTIONS]
    free = generate.answers(model, asks, lambda _: None)
    ending = dataclasses.replace(model, end=frozenset({free[0][2], free[3][5]}))

    answers = generate.answers(ending, asks, lambda _: None)

    for whole, answer in zip(free, answers, strict=True):
        ends = [place for place, token in enumerate(whole) if token in ending.end]
        assert answer == (whole[: ends[0]] if ends else whole)


def test_batches_are_bounded_in_rows_tokens_and_padding() -> None:
    asks = [Ask((1,) * length, 10, "") for length in (*range(1, 40), 300, 301, 9000, 9001)]

    found = list(generate.batches(asks, 32))

    assert sorted(index for batch in found for index in batch) == list(range(len(asks)))
    assert [len(batch) for batch in found] == [32, 7, 2, 1, 1]


def test_prompts_with_one_system_message_share_a_batch() -> None:
    asks = [Ask((1,) * length, 10, group) for length, group in ((5, "b"), (6, "a"), (1, "b"))]

    assert list(generate.batches(asks, 32)) == [[1, 2, 0]]


@pytest.fixture
def on_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_batches_side_by_side_find_the_same_bits_as_one_after_the_other(
    base: Path, on_threads: Callable[[int], None]
) -> None:
    model = open_model(base, "cpu")
    texts = [f"{question} {number}" for number in range(10) for question in QUESTIONS]
    asks = [Ask(model.render(text, None), 8, "") for text in texts]
    passages = [perplexity.Passage(ask.tokens, (5, 6, 7)) for ask in asks]
    found = []
    for threads in (1, 2, 4):
        on_threads(threads)
        told: list[int] = []
        answers = generate.answers(model, asks, told.append)
        assert told == list(range(1, 61))
        assert torch.get_num_threads() == threads
        found.append((answers, perplexity.surprise(model, passages, lambda _: None)))

    assert found[0] == found[1] == found[2]


def test_of_several_batches_that_fail_the_first_is_told_and_the_rest_left(
    base: Path, on_threads: Callable[[int], None]
) -> None:
    model = open_model(base, "cpu")
    on_threads(2)
    begun = []

    def fail(piece: int) -> None:
        begun.append(piece)
        if piece == 0:
            time.sleep(0.2)
        raise NonFiniteLogit(piece)

    with pytest.raises(NonFiniteLogit) as caught:
        lanes.each(model, fail, range(2))
    assert caught.value.index == 0
    assert sorted(begun) == [0, 1]
    lanes.each(model, fail, ())


@pytest.mark.parametrize(
    ("rotary", "shared"),
    [
        ({"rope_type": "default", "rope_theta": 1e4}, True),
        ({"rope_type": "dynamic", "factor": 2.0}, False),
        ({"full_attention": {"rope_type": "longrope"}, "sliding": {"rope_type": "default"}}, False),
        (None, True),
    ],
)
def test_a_network_that_remembers_the_last_prompt_is_asked_by_one_thread(
    base: Path, rotary: dict[str, Any] | None, shared: bool
) -> None:
    model = open_model(base, "cpu")

    model.network.config.rope_parameters = rotary

    assert model.can_share is shared


def test_perplexity_equals_the_direct_computation(model: Model) -> None:
    texts = ("Paris", "The sky is blue, as a rule.", "Yes, of course it is.")
    passages = [
        perplexity.Passage(model.render(question, None), model.tokens(text, is_start=False))
        for question, text in zip(QUESTIONS[:3], texts, strict=True)
    ]
    passages.append(perplexity.Passage(passages[1].scored[:1], passages[1].scored[1:]))

    found = perplexity.surprise(model, passages, lambda _: None)

    for passage, surprise in zip(passages, found, strict=True):
        tokens = torch.tensor([passage.given + passage.scored])
        labels = tokens.clone()
        labels[:, : len(passage.given)] = -100
        with torch.inference_mode():
            mean = model.network(tokens, labels=labels).loss.item()
        assert surprise.tokens == len(passage.scored)
        # float32 sums in another order
        assert surprise.nll / surprise.tokens == pytest.approx(mean, rel=2e-5)


def test_perplexity_in_pieces_is_that_of_the_whole(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model(base, "cpu")
    passages = [
        perplexity.Passage((5, 6, 7)[:length], tuple(range(3, 3 + 9 * length)))
        for length in (1, 2, 3)
    ]
    whole = perplexity.surprise(model, passages, lambda _: None)

    monkeypatch.setattr(perplexity, "_LOGITS", 3 * tiny.VOCABULARY * 2)
    pieces = perplexity.surprise(model, passages, lambda _: None)

    for one, other in zip(whole, pieces, strict=True):
        assert one.nll == pytest.approx(other.nll, rel=2e-6)


def test_a_suite_gives_a_number_per_task_and_a_row_per_prompt(base: Path, tmp_path: Path) -> None:
    write(tmp_path, "facts", *({"id": q, "prompt": q, "expected": "e"} for q in QUESTIONS))
    write(tmp_path, "loud", {"id": "a", "prompt": "Hello"}, {"id": "b", "prompt": "Bye"})
    write(
        tmp_path, "texts",
        {"id": "a", "prompt": "Hello", "expected": "you there"},
        {"id": "b", "prompt": "", "expected": "the end"},
        {"id": "c", "expected": "the end"},
    )  # fmt: skip
    tasks = (
        task("texts", "perplexity"),
        task("facts", "contains"),
        task("loud", "pattern_share", options={"pattern": "(?s)."}),
    )
    seen: list[tuple[int, int, str]] = []

    request = {
        "format_version": 1, "evaluator": schemas.evaluator(),
        "suite": {"name": "office", "tasks": tasks},
    }  # fmt: skip
    found = evaluate.run(
        request, base, tmp_path, device="cpu", progress=lambda *event: seen.append(event)
    )

    assert list(found["metrics"]) == ["texts", "facts", "loud"]
    facts = found["prompts"]["facts"]
    assert [row["id"] for row in facts] == list(QUESTIONS)
    assert found["metrics"]["facts"] == sum("e" in row["answer"].lower() for row in facts) / 6
    assert found["metrics"]["loud"] == 1
    texts = found["prompts"]["texts"]
    assert texts[1]["score"] == texts[2]["score"]
    assert min(row["score"] for row in texts) <= found["metrics"]["texts"]
    assert found["metrics"]["texts"] <= max(row["score"] for row in texts)
    assert seen[-1] == (11, 11, "prompts")
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert found == run(base, tmp_path, *tasks)
    json.dumps(found, allow_nan=False)


def test_perplexity_is_weighted_by_tokens(base: Path, tmp_path: Path) -> None:
    lines = [{"id": "a", "expected": "the"}, {"id": "b", "expected": "a much longer text " * 3}]
    write(tmp_path, "texts", *({**line, "prompt": "Hi"} for line in lines))
    model = open_model(base, "cpu")
    counts = [len(model.tokens(line["expected"], is_start=False)) for line in lines]

    found = run(base, tmp_path, task("texts", "perplexity"))

    logs = [math.log(row["score"]) for row in found["prompts"]["texts"]]
    mean = sum(log * count for log, count in zip(logs, counts, strict=True)) / sum(counts)
    assert found["metrics"]["texts"] == pytest.approx(math.exp(mean), rel=1e-12)


def test_without_a_chat_template_the_prompt_is_used_as_it_is(tmp_path: Path) -> None:
    base = tiny.tiny_base(tmp_path / "base")
    settings = json.loads((base / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    tiny.write_json(base / "tokenizer_config.json", settings)
    model = open_model(base, "cpu")

    assert model.render("Hello", None) == model.tokens("Hello", is_start=True)
    assert model.render("Hello", "Be kind.") == model.tokens("Be kind.\n\nHello", is_start=True)


def test_the_system_message_stands_before_every_prompt(base: Path) -> None:
    model = open_model(base, "cpu")

    rendered = model.tokenizer.decode(list(model.render("Hello", "Be kind.")))

    assert rendered.index("system\nBe kind.") < rendered.index("user\nHello")
    assert rendered.endswith("<|im_start|>assistant\n")


def spoiled(base: Path, folder: Path, **changes: Any) -> Path:
    """Copy a tiny base with changed tensors; None leaves one out."""
    import shutil

    shutil.copytree(base, folder)
    tensors = tiny.read_tensors(base) | changes.pop("tensors", {})
    tiny.write_safetensors(
        folder / "model.safetensors", {n: t for n, t in tensors.items() if t is not None}
    )
    return folder


def test_logits_that_are_not_finite_are_an_error(base: Path, tmp_path: Path) -> None:
    broken = tiny.read_tensors(base)["model.norm.weight"] * float("nan")
    folder = spoiled(base, tmp_path / "base", tensors={"model.norm.weight": broken})
    write(tmp_path, "facts", {"id": "a", "prompt": "Hi", "expected": "x y"})

    for metric in ("contains", "perplexity"):
        with pytest.raises(EvaluationError) as caught:
            run(folder, tmp_path, task("facts", metric))
        assert caught.value.message == (
            "suite office: task facts: facts.jsonl:1: the model's logits are not finite here"
        )
        assert (caught.value.task, caught.value.prompt) == ("facts", "a")


def test_a_tensor_that_the_weights_lack_is_an_error(base: Path, tmp_path: Path) -> None:
    folder = spoiled(base, tmp_path / "base", tensors={"model.norm.weight": None})

    with pytest.raises(EvaluationError, match=r"missing keys in the weights: model.norm.weight"):
        open_model(folder, "cpu")


def test_a_folder_that_is_no_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="expected a folder that transformers opens"):
        open_model(tmp_path, "cpu")


@pytest.mark.parametrize(
    ("line", "changes", "message"),
    [
        (
            {"prompt": "word " * 400, "expected": "x"},
            {},
            "facts.jsonl:1: expected at most 512 tokens with the answer, found ",
        ),
        (
            {"prompt": "", "expected": "x"},
            {"metric": "perplexity"},
            "facts.jsonl:1: expected: expected a text of more than one token",
        ),
        ({"prompt": "Hi"}, {"metric": "perplexity"}, "facts.jsonl:1: expected: missing"),
    ],
)
def test_what_the_model_cannot_read_is_named_with_its_place(
    base: Path, tmp_path: Path, line: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    write(tmp_path, "facts", {"id": "a", **line})

    with pytest.raises(EvaluationError) as caught:
        run(base, tmp_path, task("facts", "contains") | changes)

    assert caught.value.message.startswith(f"suite office: task facts: {message}")


def test_a_template_that_refuses_a_role_is_an_error(base: Path, tmp_path: Path) -> None:
    folder = spoiled(base, tmp_path / "base")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{{ raise_exception('no system role') }}"
    tiny.write_json(folder / "tokenizer_config.json", settings)
    write(tmp_path, "facts", {"id": "a", "prompt": "Hi", "expected": "x"})

    with pytest.raises(EvaluationError, match="chat template refuses this: no system role"):
        run(folder, tmp_path, task("facts", "contains", system="Be kind."))


@pytest.mark.parametrize("field", ["format_version", "evaluator"])
def test_a_request_of_another_version_is_refused(base: Path, tmp_path: Path, field: str) -> None:
    with pytest.raises(EvaluationError, match=f"{field}: this evaluator is 1, found 999"):
        run(base, tmp_path, **{field: 999})

"""python_pass_at_k: programs taken from answers, pass@k by hand, samples, and who must allow it."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import schemas  # noqa: E402
from merger import evaluate  # noqa: E402
from merger.evaluate import (  # noqa: E402
    generate,
    metrics,
    python_pass,
    python_program,
    sandbox,
    sandbox_script,
)
from merger.evaluate.draw import Draw  # noqa: E402
from merger.evaluate.errors import EvaluationError  # noqa: E402
from merger.evaluate.generate import Ask  # noqa: E402
from merger.evaluate.model import open_model  # noqa: E402
from registry.errors import BuildFailed  # noqa: E402
from registry.worker import Worker  # noqa: E402
from tests import tiny  # noqa: E402
from tests.test_evaluate import run, task, write  # noqa: E402
from tests.test_evaluate_metrics import read  # noqa: E402


def _has_sandbox() -> bool:
    try:
        sandbox.check(sandbox.Limits(5, 512))
    except sandbox.NoSandbox:
        return False
    return True


needs_sandbox = pytest.mark.skipif(not _has_sandbox(), reason="the kernel gives no sandbox")

PROMPT = '''from typing import List


def third(x):
    return x / 3


def thirds(numbers: List[int]) -> List[float]:
    """Return a third of every number.
    >>> thirds([3])
    [1.0]
    """
'''
TEST = """
def check(candidate):
    assert candidate([3, 6]) == [1.0, 2.0]
    assert candidate([]) == []
"""
EXPECTED = {"test": TEST, "entry_point": "thirds"}
BODY = "    return [third(x) for x in numbers]\n"
WHOLE = "def thirds(numbers: List[int]) -> List[float]:\n" + BODY
WRONG = "    return numbers\n"
ALLOWED = {"run_untrusted_code": True}


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(python_pass.VARIABLE, "1")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_base(tmp_path_factory.mktemp("tiny") / "base", seed=3)


def python_task(folder: Path, *expected: Any, **options: Any) -> Any:
    lines = [
        {"id": f"p{number}", "prompt": PROMPT, "expected": value}
        for number, value in enumerate(expected)
    ]
    write(folder, "data", *lines)
    return read(folder, metric="python_pass_at_k", options={**ALLOWED, **options})


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_share_of_choices_that_hold_a_right_program(n: int) -> None:
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        choices = list(itertools.combinations([1] * c + [0] * (n - c), k))

        wanted = sum(any(choice) for choice in choices) / len(choices)

        assert python_pass.pass_at_k(n, c, k) == pytest.approx(wanted, abs=1e-12)


def test_pass_at_k_of_many_samples_is_that_of_exact_arithmetic() -> None:
    wanted = 1 - math.comb(1000 - 7, 100) / math.comb(1000, 100)

    assert python_pass.pass_at_k(1000, 7, 100) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(
    "answer",
    [
        BODY,
        "\n\n" + BODY,
        BODY + "\n\ndef unrelated(:",
        BODY + "```\nThis goes through the list.",
        BODY + "\n# Test it\nprint(thirds(",
        "```python\n" + BODY + "```",
        "```python\n" + WHOLE + "```",
        "Sure! Here it is:\n\n```python\n" + WHOLE + "```\nIt calls third().",
        "Run `pip`:\n```sh\npip install x\n```\nthen\n```py\n" + WHOLE + "```",
        "```\n" + WHOLE,
        WHOLE,
        "from typing import List\n\n" + WHOLE,
        "It goes through the list:\n\nfrom typing import List\n\n" + WHOLE,
        WHOLE + "```\n\nIt goes through the list.",
        WHOLE + "\nthirds([3])\nthirds([",
        "    a = (\n1\n)\n".replace("\n1\n)", "1\n)") + BODY,
    ],
)
@pytest.mark.parametrize(
    "prompt", [PROMPT, f"Complete this:\n```python\n{PROMPT}```\n", f"```python\n{PROMPT}"]
)
def test_an_answer_gives_a_program_that_defines_the_function(prompt: str, answer: str) -> None:
    scope: dict[str, Any] = {}

    exec(sandbox_script._compiled(python_program.program(prompt, answer, "thirds")), scope)

    assert scope["thirds"]([3]) == [1.0]


def test_a_prompt_in_prose_gives_nothing_to_the_program() -> None:
    code = "def double(x):\n    return 2 * x\n"

    assert python_program.program("Write double(x).", f"```python\n{code}```", "double") == code
    assert python_program.program("def of course:\n\nWrite double.", code, "double") == code
    asked = python_program.program("Go on:\n\ndef double(x):\n", "    return 2 * x", "double")
    assert asked == code


@needs_sandbox
def test_right_programs_score_and_wrong_ones_do_not(tmp_path: Path, allowed: None) -> None:
    scorer = metrics.prepare(python_task(tmp_path, EXPECTED, EXPECTED, EXPECTED))

    assert scorer([BODY, WRONG, "I cannot do that."]) == [1, 0, 0]


@needs_sandbox
def test_samples_of_a_prompt_are_counted_together(tmp_path: Path, allowed: None) -> None:
    scorer = metrics.prepare(python_task(tmp_path, EXPECTED, EXPECTED, k=2, samples=3))

    assert scorer([BODY, WRONG, WRONG, WRONG, WRONG, WRONG]) == [pytest.approx(2 / 3), 0]


@needs_sandbox
def test_limits_are_those_of_the_suite(tmp_path: Path, allowed: None) -> None:
    hungry = "    kept = bytearray(200 << 20)\n" + BODY

    for memory, score in ((128, 0), (512, 1)):
        scorer = metrics.prepare(python_task(tmp_path, EXPECTED, memory_mb=memory, seconds=2))
        assert scorer([hungry]) == [score]


@pytest.mark.parametrize(
    ("expected", "options", "message"),
    [
        (..., {}, "data.jsonl:1: expected: expected an object {test, entry_point}"),
        ({"test": TEST}, {}, "data.jsonl:1: expected: expected an object {test, entry_point}"),
        (
            EXPECTED | {"entry_point": "a b"},
            {},
            "data.jsonl:1: expected.entry_point: expected the name of a function",
        ),
        (
            EXPECTED | {"test": "assert f() == 1"},
            {},
            "data.jsonl:1: expected.test: expected Python that defines check(candidate)",
        ),
        (
            EXPECTED | {"test": "def check(:"},
            {},
            "data.jsonl:1: expected.test: expected Python that defines check(candidate)",
        ),
        (EXPECTED, {"k": 3, "samples": 2}, "options.samples: expected at least k, 3, found 2"),
        (EXPECTED, {"k": 0}, "options.k: expected a whole number from 1 to 1000, found 0"),
        (EXPECTED, {"k": True}, "options.k: expected a whole number from 1 to 1000, found True"),
        (
            EXPECTED,
            {"temperature": 0},
            "options.temperature: expected a number from 0.01 to 2, found 0",
        ),
        (
            EXPECTED,
            {"run_untrusted_code": False},
            "options.run_untrusted_code: python_pass_at_k runs programs that a model wrote: "
            "allow it by run_untrusted_code: true",
        ),
    ],
)
def test_a_mistake_of_the_suite_is_named(
    tmp_path: Path, allowed: None, expected: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(EvaluationError) as caught:
        metrics.prepare(python_task(tmp_path, None if expected is ... else expected, **options))

    assert caught.value.message == f"suite office: task skill: {message}"


def test_a_machine_that_does_not_allow_it_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in (None, "0", "yes"):
        monkeypatch.delenv(python_pass.VARIABLE, raising=False)
        if value:
            monkeypatch.setenv(python_pass.VARIABLE, value)
        with pytest.raises(EvaluationError) as caught:
            metrics.prepare(python_task(tmp_path, EXPECTED))
        assert caught.value.message == (
            "suite office: task skill: python_pass_at_k runs programs that a model wrote, which "
            "this machine does not allow: set MERGE_REGISTRY_RUN_UNTRUSTED_CODE=1 in the "
            "environment of the worker if it may"
        )


@needs_sandbox
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs util-linux")
def test_a_kernel_without_user_namespaces_is_told_with_suite_and_task(tmp_path: Path) -> None:
    python_task(tmp_path, EXPECTED)
    script = f"""
from pathlib import Path
from merger.evaluate import metrics
from tests.test_evaluate_metrics import read
try:
    metrics.prepare(
        read(Path({str(tmp_path)!r}), metric="python_pass_at_k", options={ALLOWED!r})
    )
except Exception as error:
    print(type(error).__name__, error.message)
"""
    command = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'

    found = subprocess.run(
        ["unshare", "-Ur", "sh", "-c", command, "sh", sys.executable, "-c", script],
        env={"PYTHONPATH": str(Path(__file__).parent.parent), python_pass.VARIABLE: "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert found.stdout == (
        "EvaluationError suite office: task skill: python_pass_at_k needs user namespaces and a "
        "filter of system calls: unshare: No space left on device\n"
    ), found.stderr


def test_noise_draws_tokens_as_often_as_softmax_has_it() -> None:
    logits = torch.tensor([2.0, 0.0, -1.0, 1.0])
    wanted = torch.softmax(logits / 0.7, dim=-1).tolist()

    found = Counter(Draw(0.7, 0, "p", sample).token(logits, 3) for sample in range(20_000))

    # Four standard deviations of a share of 20,000 draws are at most 0.014.
    assert [found[token] / 20_000 for token in range(4)] == pytest.approx(wanted, abs=0.014)


def test_noise_is_named_by_seed_prompt_sample_and_step_alone() -> None:
    one = Draw(0.5, 1, "p", 2)

    assert (one.noise(8, 3) == one.noise(9, 3)[:8]).all()
    for other in (Draw(0.5, 2, "p", 2), Draw(0.5, 1, "q", 2), Draw(0.5, 1, "p", 1)):
        assert (other.noise(8, 3) != one.noise(8, 3)).all()
    assert (one.noise(8, 4) != one.noise(8, 3)).all()
    assert one.noise(4, 3).tolist() == pytest.approx(NOISE, abs=1e-12)


# -ln(-ln u) of the first four words of Philox4x64-10, whose key is that of the SHA-256 of
# {"prompt":"p","sample":2,"seed":1,"step":3}, made with Python's own whole numbers.
NOISE = [0.5683241886412, -0.0309936662188, -0.231028882226, -1.2796764354442]


def test_samples_are_the_same_without_neighbours_and_in_any_order(base: Path) -> None:
    model = open_model(base, "cpu")
    asks = [
        Ask(model.render(question, None), 8, "", Draw(1.0, 0, question, sample))
        for question in ("Hi", "What is the capital of France?")
        for sample in range(3)
    ]

    together = generate.answers(model, asks, lambda _: None)
    backwards = generate.answers(model, asks[::-1], lambda _: None)
    alone = [generate.answers(model, [ask], lambda _: None)[0] for ask in asks]

    assert list(together) == alone == list(backwards[::-1])
    assert len(set(together)) == len(asks)


def test_greedy_answers_and_samples_share_a_batch(base: Path) -> None:
    model = open_model(base, "cpu")
    tokens = model.render("Hi", None)
    greedy, drawn = Ask(tokens, 12, ""), Ask(tokens, 12, "", Draw(1.0, 0, "p", 0))
    cold = Ask(tokens, 12, "", Draw(0.0001, 0, "p", 0))

    answers = generate.answers(model, [drawn, greedy, cold], lambda _: None)

    assert answers[1] == answers[2] == generate.answers(model, [greedy], lambda _: None)[0]
    assert answers[0] != answers[1]


@needs_sandbox
def test_a_model_is_asked_for_programs(base: Path, tmp_path: Path, allowed: None) -> None:
    # A comment may say anything, so every answer that stays on the line of the prompt is right.
    prompt = "def f():\n    return 1\n# "
    lines = [
        {"id": f"p{n}", "prompt": prompt + n, "expected": {"test": test, "entry_point": "f"}}
        for n, test in (("a", TRUE), ("b", FALSE))
    ]
    for name in ("greedy", "drawn"):
        write(tmp_path, name, *lines)
    write(tmp_path, "said", {"id": "a", "prompt": "Hi", "expected": "x"})
    said = task("said", "contains")
    tasks = [
        task("greedy", python_pass.METRIC, options=ALLOWED),
        said,
        task("drawn", python_pass.METRIC, options={**ALLOWED, "k": 2, "samples": 4}),
    ]
    seen: list[int] = []

    found = run(base, tmp_path, *tasks)
    exam = evaluate.prepare(evaluate.suites.read({"name": "office", "tasks": tasks}, tmp_path))
    again = evaluate.hold(exam, open_model(base, "cpu"), lambda done, *_: seen.append(done))

    assert found == again
    assert found["prompts"]["said"] == run(base, tmp_path, said)["prompts"]["said"]
    assert found["prompts"]["greedy"][1]["score"] == found["prompts"]["drawn"][1]["score"] == 0
    assert [row["id"] for row in found["prompts"]["drawn"]] == ["pa", "pb"]
    assert found["prompts"]["drawn"][0]["answer"] != found["prompts"]["greedy"][0]["answer"]
    assert seen[-1] == exam.prompts == 5
    assert seen == sorted(seen)


TRUE, FALSE = (f"def check(candidate):\n    assert candidate() == {n}\n" for n in (1, 2))


@needs_sandbox
def test_the_workers_environment_decides_whether_programs_run(base: Path, tmp_path: Path) -> None:
    write(tmp_path / "suite", "code", {"id": "a", "prompt": PROMPT, "expected": EXPECTED})
    digests = [f"sha256:{letter * 64}" for letter in "ab"]
    tasks = [task("code", python_pass.METRIC, options=ALLOWED)]
    order = {
        "format_version": 1, "task": "evaluate", "device": "cpu", "threads": 1,
        "memory_bytes": None,
        "inputs": {digests[0]: str(base), digests[1]: str(tmp_path / "suite")},
        "request": {
            "format_version": 1, "evaluator": schemas.evaluator(), "model": digests[0],
            "suite": {"name": "office", "digest": digests[1], "tasks": tasks},
        },
    }  # fmt: skip
    without = {name: value for name, value in os.environ.items() if name != python_pass.VARIABLE}

    with Worker(environment={**without, python_pass.VARIABLE: "1"}) as worker:
        report = worker.run(order)
    with Worker(environment=without) as worker, pytest.raises(BuildFailed) as refused:
        worker.run(order)

    assert report["metrics"] == {"code": 0}
    assert str(refused.value).startswith("suite office: task code: python_pass_at_k runs programs")


def test_a_line_of_human_eval_maps_onto_a_line_of_ours(tmp_path: Path) -> None:
    theirs = {
        "task_id": "HumanEval/0", "prompt": PROMPT, "entry_point": "thirds",
        "canonical_solution": BODY, "test": "\n\nMETADATA = {'author': 'x'}\n\n" + TEST,
    }  # fmt: skip
    ours = {
        "id": theirs["task_id"], "prompt": theirs["prompt"],
        "expected": {"test": theirs["test"], "entry_point": theirs["entry_point"]},
    }  # fmt: skip
    (tmp_path / "data.jsonl").write_text(json.dumps(ours) + "\n")

    (prompt,) = read(tmp_path, metric="python_pass_at_k").prompts
    program = python_program.program(prompt.text, theirs["canonical_solution"], "thirds")

    assert program == PROMPT + BODY + "\n"
    assert prompt.id == "HumanEval/0"

"""python_pass_at_k: how likely one of k programs passes a prompt's tests. Knows no model.

The programs are run, so two must allow it: who writes the suite, by an option, and who runs the
worker, by a variable of its environment. And the kernel must give a sandbox.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from merger.evaluate import python_program, sandbox
from merger.evaluate.draw import Draw
from merger.evaluate.suite import Prompt, Task

METRIC = "python_pass_at_k"
VARIABLE = "MERGE_REGISTRY_RUN_UNTRUSTED_CODE"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How often a prompt is answered, and how; one answer alone is greedy."""

    k: int
    samples: int
    temperature: float
    seed: int


def sampling(task: Task) -> Sampling:
    """Return a task's sampling with its defaults. Raises EvaluationError."""
    k = task.number_option("k")
    samples = task.number_option("samples", k)
    if samples < k:
        raise task.fault(f"options.samples: expected at least k, {k}, found {samples}")
    return Sampling(k, samples, task.number_option("temperature"), task.number_option("seed"))


def draws(task: Task, prompt: Prompt) -> list[Draw | None]:
    """Return how each of a prompt's answers is drawn."""
    chosen = sampling(task)
    if chosen.samples == 1:
        return [None]
    return [
        Draw(chosen.temperature, chosen.seed, prompt.id, sample) for sample in range(chosen.samples)
    ]


def prepare(task: Task) -> Callable[[Sequence[str]], list[float]]:
    """Return the scorer of python_pass_at_k: of each prompt's `samples` answers, pass@k.

    Nothing is run before both have allowed it and an empty program has passed in the sandbox.
    """
    chosen = sampling(task)
    tests = [_test(task, prompt) for prompt in task.prompts]
    limits = sandbox.Limits(task.number_option("seconds"), task.number_option("memory_mb"))
    _require_permission(task)
    try:
        sandbox.check(limits)
    except sandbox.NoSandbox as error:
        msg = f"{METRIC} needs user namespaces and a filter of system calls: {error}"
        raise task.fault(msg) from error

    def score(answers: Sequence[str]) -> list[float]:
        scores = []
        for number, (prompt, (test, name)) in enumerate(zip(task.prompts, tests, strict=True)):
            own = answers[number * chosen.samples : (number + 1) * chosen.samples]
            programs = [python_program.program(prompt.text, answer, name) for answer in own]
            passed = sum(
                sandbox.passes(sandbox.Program(program, test, name), limits) for program in programs
            )
            scores.append(pass_at_k(chosen.samples, passed, chosen.k))
        return scores

    return score


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the chance that of k different answers out of n, of which c are right, one is right.

    1 - C(n-c, k) / C(n, k), unbiased for pass@k (Chen et al. 2021, equation 1), as the product of
    their appendix A: no large number occurs.
    """
    if n - c < k:
        return 1.0
    return 1.0 - prod(1.0 - k / i for i in range(n - c + 1, n + 1))


def _test(task: Task, prompt: Prompt) -> tuple[str, str]:
    """Return the tests of a prompt and the name of what they test."""
    task.require_expected(prompt)
    expected: Any = prompt.expected
    if not isinstance(expected, dict) or set(expected) != {"test", "entry_point"}:
        raise task.fault("expected: expected an object {test, entry_point}", prompt)
    test, name = expected["test"], expected["entry_point"]
    if not isinstance(name, str) or not name.isidentifier():
        raise task.fault("expected.entry_point: expected the name of a function", prompt)
    if not isinstance(test, str) or not _defines_check(test):
        raise task.fault("expected.test: expected Python that defines check(candidate)", prompt)
    return test, name


def _defines_check(test: str) -> bool:
    try:
        body = ast.parse(test).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(isinstance(one, ast.FunctionDef) and one.name == "check" for one in body)


def _require_permission(task: Task) -> None:
    if task.options.get("run_untrusted_code") is not True:
        msg = f"{METRIC} runs programs that a model wrote: allow it by run_untrusted_code: true"
        raise task.fault(f"options.run_untrusted_code: {msg}")
    if os.environ.get(VARIABLE) != "1":
        msg = (
            f"{METRIC} runs programs that a model wrote, which this machine does not allow: "
            f"set {VARIABLE}=1 in the environment of the worker if it may"
        )
        raise task.fault(msg)

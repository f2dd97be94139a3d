"""exact_match and contains: the answer's text against the expected one. Knows no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from merger.evaluate.suite import Task


def exact(task: Task) -> Callable[[Sequence[str]], list[float]]:
    """Return the scorer of exact_match: equal texts, white space around them dropped."""
    expected = [task.expected_text(prompt).strip() for prompt in task.prompts]

    def score(answers: Sequence[str]) -> list[float]:
        return [float(a.strip() == e) for a, e in zip(answers, expected, strict=True)]

    return score


def contains(task: Task) -> Callable[[Sequence[str]], list[float]]:
    """Return the scorer of contains: the expected text stands in the answer, in any case."""
    expected = [task.expected_text(prompt).strip().casefold() for prompt in task.prompts]

    def score(answers: Sequence[str]) -> list[float]:
        return [float(e in a.casefold()) for a, e in zip(answers, expected, strict=True)]

    return score

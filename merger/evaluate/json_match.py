"""json_match: the first JSON value in the answer equals the expected one. Knows no model.

Equal as JSON: `1` is `1.0`, but `true` is not `1`; the order of keys means nothing, that of list
items does. Where an object or a list is expected, numbers and words of the surrounding prose are
no values: the first object or list counts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from merger.evaluate.suite import Prompt, Task

_NOTHING = object()
_CONTAINERS = frozenset("{[")
_STARTS = frozenset('{["-0123456789tfn')


def prepare(task: Task) -> Callable[[Sequence[str]], list[float]]:
    """Return the scorer of json_match; `expected` is a JSON text, or any other JSON value."""
    expected = [_expected(task, prompt) for prompt in task.prompts]

    def score(answers: Sequence[str]) -> list[float]:
        return [_score(a, e) for a, e in zip(answers, expected, strict=True)]

    return score


def _expected(task: Task, prompt: Prompt) -> Any:
    task.require_expected(prompt)
    if not isinstance(prompt.expected, str):
        return prompt.expected
    try:
        return decode(prompt.expected)
    except (ValueError, RecursionError) as error:
        raise task.fault("expected: expected a JSON value or the text of one", prompt) from error


def _score(answer: str, expected: Any) -> float:
    starts = _CONTAINERS if isinstance(expected, dict | list) else _STARTS
    found = _first_value(answer, starts)
    return float(found is not _NOTHING and is_equal(found, expected))


def _first_value(answer: str, starts: frozenset[str]) -> Any:
    for place, letter in enumerate(answer):
        if letter not in starts:
            continue
        try:
            return _DECODER.raw_decode(answer, place)[0]
        except ValueError:
            continue
        except RecursionError:  # and so would be the next thousand brackets, each as slowly
            return _NOTHING
    return _NOTHING


def is_equal(one: Any, other: Any) -> bool:
    """Return whether two JSON values are equal; Python alone would call true and 1 equal."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_equal(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_equal, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def decode(text: str) -> Any:
    """Return the value of a whole text; ValueError or RecursionError if it is no JSON."""
    return _DECODER.decode(text)


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


_DECODER = json.JSONDecoder(parse_constant=_refuse)  # NaN and Infinity are no JSON

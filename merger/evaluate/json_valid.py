"""json_valid: the whole answer is JSON, and fits a JSON Schema if one is given. Knows no model.

A code fence around the answer is taken off, since models put one there; prose is not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from merger.evaluate.json_match import decode
from merger.evaluate.suite import Task

_FENCE = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", re.DOTALL | re.IGNORECASE)


def prepare(task: Task) -> Callable[[Sequence[str]], list[float]]:
    """Return the scorer of json_valid; `options.schema` names a file with a JSON Schema."""
    fits = _fits(task) if "schema" in task.options else None

    def score(answers: Sequence[str]) -> list[float]:
        return [_score(answer, fits) for answer in answers]

    return score


def _fits(task: Task) -> Callable[[Any], bool]:
    from jsonschema import Draft202012Validator, SchemaError

    file = task.beside("schema")
    try:
        schema = json.loads(file.read_text("utf-8"))
        Draft202012Validator.check_schema(schema)
    except (ValueError, RecursionError, SchemaError) as error:
        first = str(error).splitlines()[0]
        raise task.fault(f"options.schema: {file.name}: expected a JSON Schema, {first}") from error
    validator = Draft202012Validator(schema)
    return lambda value: bool(validator.is_valid(value))


def _score(answer: str, fits: Callable[[Any], bool] | None) -> float:
    fenced = _FENCE.fullmatch(answer)
    try:
        value = decode(fenced.group(1) if fenced else answer)
    except (ValueError, RecursionError):
        return 0.0
    return float(fits is None or fits(value))

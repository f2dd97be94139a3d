"""The table of metrics that judge answers: name to the function that prepares a task's scorer.

Knows no model. A preparation checks everything that the suite's author can get wrong, before the
first token is made; the scorer it returns only judges. Perplexity and choice judge no answers: they
are read, in `perplexity` and `choice`; nor do latency and throughput, measured in `timing`. A
metric is added here, in the suite schema and in the documentation, by issue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from merger.evaluate import (
    json_match,
    json_valid,
    pattern_share,
    python_pass,
    sql_execution,
    text_match,
)
from merger.evaluate.suite import Task
from schemas.utility import LM_EVAL, MEASURED

PERPLEXITY, CHOICE = READ = ("perplexity", "choice")
JUDGED_OUTSIDE = (LM_EVAL,)

Scorer = Callable[[Sequence[str]], list[float]]
"""Answers in the order of the task's prompts, all of one together, to a score each, 0 to 1."""

_TABLE: Mapping[str, Callable[[Task], Scorer]] = MappingProxyType(
    {
        "exact_match": text_match.exact,
        "contains": text_match.contains,
        "json_match": json_match.prepare,
        "json_valid": json_valid.prepare,
        "sql_execution": sql_execution.prepare,
        "pattern_share": pattern_share.prepare,
        python_pass.METRIC: python_pass.prepare,
    }
)


def names() -> tuple[str, ...]:
    """Return the names of all metrics, sorted."""
    return tuple(sorted((*_TABLE, *READ, *MEASURED, *JUDGED_OUTSIDE)))


def prepare(task: Task) -> Scorer:
    """Return the scorer of a generation task. Raises EvaluationError."""
    if task.metric not in _TABLE:
        expected = ", ".join(names())
        raise task.fault(f"metric: expected one of {expected}, found {task.metric}")
    return _TABLE[task.metric](task)

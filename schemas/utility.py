"""A metric as a number of which more is better: what searches maximise and means are made of.

Both sides need it: `merger` to choose among candidates, `registry` to judge a mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PERPLEXITY, LATENCY, THROUGHPUT = "perplexity", "latency", "throughput"
LM_EVAL = "lm_eval"

MEASURED = frozenset({LATENCY, THROUGHPUT})
"""Metrics that a clock gives: no two runs agree, no scale from 0 to 1 is theirs.

They are kept like any other number, once per model and suite, but nothing is chosen by them and no
two models' are compared: they have no utility.
"""

LOWER_IS_BETTER = frozenset({PERPLEXITY, LATENCY})
"""Metrics of which less is better whatever a suite says."""


def kind_of(task: Mapping[str, Any]) -> str:
    """Return the metric of a suite's task; lm-eval's perplexities are perplexities like ours."""
    metric = str(task["metric"])
    if metric == LM_EVAL and task["options"]["metric"].partition(",")[0].endswith(PERPLEXITY):
        return PERPLEXITY
    return metric


def utility(metric: str, value: float, *, higher_is_better: bool) -> float:
    """Return a metric's value in [0, 1], more is better.

    A share s stays what it is, or is 1 - s where less is better; a perplexity p is 1 / p, the
    geometric mean of the probabilities that the model gave to the expected tokens. What is measured
    by a clock has no such value: the caller leaves it out.
    """
    assert metric not in MEASURED, metric
    if metric == PERPLEXITY:
        return 1.0 / value
    return value if higher_is_better else 1.0 - value

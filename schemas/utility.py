"""A metric as a number of which more is better: what searches maximise and means are made of.

Both sides need it: `merger` to choose among candidates, `registry` to judge a mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PERPLEXITY = "perplexity"
LM_EVAL = "lm_eval"


def kind_of(task: Mapping[str, Any]) -> str:
    """Return the metric of a suite's task; lm-eval's perplexities are perplexities like ours."""
    metric = str(task["metric"])
    if metric == LM_EVAL and task["options"]["metric"].partition(",")[0].endswith(PERPLEXITY):
        return PERPLEXITY
    return metric


def utility(metric: str, value: float, *, higher_is_better: bool) -> float:
    """Return a metric's value in [0, 1], more is better.

    A share s stays what it is, or is 1 - s where less is better; a perplexity p is 1 / p, the
    geometric mean of the probabilities that the model gave to the expected tokens.
    """
    if metric == PERPLEXITY:
        return 1.0 / value
    return value if higher_is_better else 1.0 - value

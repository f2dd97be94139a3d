"""lm_eval: a model put to a task of lm-evaluation-harness, by its own code.

The wrapper, the prompts, the filters and the metrics are lm-eval's, so numbers are those that its
command line gives for the same float32 model, in batches of the same size.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from merger.evaluate.harness_task import apart
from merger.evaluate.model import Model
from merger.evaluate.suite import Task

# A size of its own for what free memory allows would make the last bits depend on the machine.
_ROWS = 8
# lm-eval's own: `random`, then numpy, torch and the choice of solved examples.
_SEED, _OTHER_SEED = 0, 1234


@dataclass(frozen=True, slots=True)
class Outcome:
    """A result of lm-eval: the number, and of every document answer and score.

    A metric that has no number per document, a rolling perplexity for example, has no scores.
    """

    metric: float
    answers: tuple[str, ...]
    scores: tuple[float | None, ...]


def hold(model: Model, task: Task) -> Outcome:
    """Put the prompts of a task to a model. Raises EvaluationError.

    Solved examples that are drawn by chance depend on the documents before, so those of a part of a
    task are others than those of the whole; of the same part they are always the same.
    """
    name, kind = task.opened.task_name, task.options["metric"].partition(",")[2]
    with apart(task, "lm-eval stopped: {}"):
        found = _evaluate(model, task, name)
        rows = [row for row in found["samples"][name] if row["filter"] == kind]
        answers = tuple(_answer(task.opened, row) for row in rows)
    value = float(found["results"][name][task.options["metric"]])
    if not math.isfinite(value):
        raise task.fault(f"lm-eval gives {value} as {task.options['metric']}")
    metric = task.options["metric"].partition(",")[0]
    return Outcome(value, answers, tuple(_score(row.get(metric)) for row in rows))


def _evaluate(model: Model, task: Task, name: str) -> Any:
    import numpy as np
    from lm_eval import evaluate
    from lm_eval.models.huggingface import HFLM

    random.seed(_SEED)
    np.random.seed(_OTHER_SEED)  # noqa: NPY002  what lm-eval draws from
    torch.manual_seed(_OTHER_SEED)
    task.opened.set_fewshot_seed(_OTHER_SEED)
    documents = [int(prompt.id) for prompt in task.prompts]
    is_start = documents == list(range(len(documents)))
    # A copy: lm-eval gives the tokenizer a padding token of its choice.
    tokenizer = copy.deepcopy(model.tokenizer)
    watched = model.network.register_forward_hook(_check_logits(task))
    try:
        return evaluate(
            lm=HFLM(pretrained=model.network, tokenizer=tokenizer, batch_size=_ROWS),
            task_dict={"tasks": {name: task.opened}, "groups": {}},
            limit=len(documents) if is_start else None,
            samples=None if is_start else {name: documents},
            bootstrap_iters=0,
        )
    finally:
        watched.remove()


def _check_logits(task: Task) -> Callable[[Any, Any, Any], None]:
    def check(_: Any, __: Any, output: Any) -> None:
        # lm-eval compares, and whatever is compared with no number gives an answer.
        if not bool(torch.isfinite(output.logits).all()):
            raise task.fault("the model's logits are not finite here")

    return check


def _answer(opened: Any, row: Any) -> str:
    """Return the choice that the model finds the most likely, or what it wrote."""
    answers = row["filtered_resps"]
    if opened.OUTPUT_TYPE == "multiple_choice":
        choices = opened.doc_to_choice(row["doc"])
        likely = [answer[0] for answer in answers[: len(choices)]]
        return str(choices[likely.index(max(likely))])
    return str(answers[0]) if opened.OUTPUT_TYPE == "generate_until" else ""


def _score(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None

"""Evaluation of a model on a suite: one number per task, and every answer with its score.

Knows no recipe, no gate and no key: whether a number is good enough is judged elsewhere.

    suite          tasks and data lines, checked
    model          a model folder opened for reading
    adapter        an adapter folded into the model under it
    asking         what a model is given for a task, and what it gives back
    generate       answers for many prompts at once
    draw           tokens of sampled answers
    lanes          several batches at once on a processor
    perplexity     how surprised the model is by a text
    choice         which of several texts surprises it least
    timing         how long answers take
    metrics        the table of metrics: text_match, json_match, json_valid, sql_execution,
                   pattern_share, python_pass (python_program, sandbox)
    harness        what lm-evaluation-harness asks and judges, if it is installed; harness_task
                   opens its tasks
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import schemas
from merger.evaluate import asking, choice, harness, metrics, timing
from merger.evaluate import suite as suites
from merger.evaluate.adapter import open_adapter
from merger.evaluate.errors import EvaluationError
from merger.evaluate.model import Model, open_model
from merger.evaluate.perplexity import Surprise
from merger.evaluate.suite import Task
from merger.evaluate.timing import Timing

FORMAT_VERSION = 1

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Exam:
    """Tasks whose prompts and options were checked, and what judges their answers."""

    tasks: tuple[Task, ...]
    scorers: Mapping[str, metrics.Scorer]

    @property
    def prompts(self) -> int:
        """How many prompts a model is asked."""
        return sum(len(task.prompts) for task in self.tasks)


@dataclass(frozen=True, slots=True)
class _Result:
    metric: float
    answers: Sequence[str]
    scores: Sequence[float | None]


def run(
    request: Mapping[str, Any],
    model: Path,
    suite: Path,
    *,
    base: Path | None = None,
    device: str,
    progress: Progress,
) -> dict[str, Any]:
    """Evaluate the model in folder `model` on the suite in folder `suite`.

    With `base`, `model` is an adapter and `base` the folder of the model under it. Returns what
    `hold` returns. Raises EvaluationError.
    """
    check_versions(request)
    exam = prepare(suites.read(request["suite"], suite))
    opened = open_model(model, device) if base is None else open_adapter(model, base, device)
    return hold(exam, opened, progress)


def prepare(tasks: tuple[Task, ...]) -> Exam:
    """Return the tasks with their scorers; everything that can be wrong without a model is told."""
    scorers = {task.name: metrics.prepare(task) for task in tasks if _is_asked(task)}
    for task, prompt in asking.places([task for task in tasks if _is_read(task)]):
        if task.metric == metrics.CHOICE:
            choice.check(task, prompt)
        else:
            task.expected_text(prompt)
    return Exam(tasks, scorers)


def hold(exam: Exam, model: Model, progress: Progress) -> dict[str, Any]:
    """Put every task to a model.

    Returns the mean score of every task (perplexity: over all tokens) in `metrics`, and id, answer
    and score of every prompt in `prompts`. Raises EvaluationError.
    """
    read = [task for task in exam.tasks if _is_read(task)]
    asked = [task for task in exam.tasks if _is_asked(task)]
    timed = [task for task in exam.tasks if task.metric in timing.MEASURES]
    later = sum(len(task.prompts) for task in asked)
    last = later + sum(len(task.prompts) for task in read)
    total = exam.prompts
    answers = asking.answers(model, asked, lambda done: progress(done, total, "prompts"))
    surprises = asking.surprises(model, read, lambda done: progress(later + done, total, "prompts"))
    timings = asking.timings(model, timed, lambda done: progress(last + done, total, "prompts"))
    results = {
        **{task.name: _judged(exam.scorers[task.name], answers[task.name]) for task in asked},
        **{task.name: _READERS[task.metric](task, surprises[task.name]) for task in read},
        **{name: _timed(model, timings[name]) for name in timings},
        **_of_lm_eval(model, exam, lambda done: progress(done, total, "prompts")),
    }
    return {
        "metrics": {task.name: results[task.name].metric for task in exam.tasks},
        "prompts": {task.name: _rows(task, results[task.name]) for task in exam.tasks},
    }


def _is_asked(task: Task) -> bool:
    """Return whether a task's prompts are answered and the answers judged here."""
    others = (*metrics.JUDGED_OUTSIDE, *timing.MEASURES)
    return not _is_read(task) and task.metric not in others


def _is_read(task: Task) -> bool:
    """Return whether a task's texts are read by the model instead of answered."""
    return task.metric in metrics.READ


def _of_lm_eval(model: Model, exam: Exam, on_prompts: Callable[[int], None]) -> dict[str, _Result]:
    """Return the results of the tasks of lm-eval, which come after all others."""
    tasks = [task for task in exam.tasks if task.metric in metrics.JUDGED_OUTSIDE]
    done = exam.prompts - sum(len(task.prompts) for task in tasks)
    results = {}
    for task in tasks:
        found = harness.hold(model, task)
        results[task.name] = _Result(found.metric, found.answers, found.scores)
        done += len(task.prompts)
        on_prompts(done)
    return results


def check_versions(request: Mapping[str, Any]) -> None:
    """Raise EvaluationError unless a request is of this format and this evaluator."""
    for field, known in (("format_version", FORMAT_VERSION), ("evaluator", schemas.evaluator())):
        if request.get(field) != known:
            msg = f"{field}: this evaluator is {known}, found {request.get(field)}"
            raise EvaluationError(msg)


def _judged(scorer: metrics.Scorer, answers: Sequence[str]) -> _Result:
    scores = scorer(answers)
    first = answers[:: len(answers) // len(scores)]  # of several samples the report shows one
    return _Result(math.fsum(scores) / len(scores), first, scores)


def _timed(model: Model, found: Timing) -> _Result:
    return _Result(found.metric, [model.text(tokens) for tokens in found.answers], found.scores)


def _read(task: Task, surprises: Sequence[Surprise]) -> _Result:
    nll = math.fsum(each.nll for each in surprises)
    whole = Surprise(nll, sum(each.tokens for each in surprises))
    scores = [each.perplexity for each in surprises]
    for prompt, score in zip(task.prompts, scores, strict=True):
        if not math.isfinite(score):
            raise task.fault("perplexity is beyond all numbers here", prompt)
    return _Result(whole.perplexity, [""] * len(scores), scores)


def _picked(task: Task, surprises: Sequence[Surprise]) -> _Result:
    per_byte = bool(task.options.get("per_byte", False))
    answers, start = [], 0
    for prompt in task.prompts:
        stop = start + len(prompt.choices)
        answers.append(choice.chosen(prompt, surprises[start:stop], per_byte=per_byte))
        start = stop
    pairs = zip(task.prompts, answers, strict=True)
    scores = [float(answer == prompt.expected) for prompt, answer in pairs]
    return _Result(math.fsum(scores) / len(scores), answers, scores)


_READERS = {metrics.PERPLEXITY: _read, metrics.CHOICE: _picked}


def _rows(task: Task, result: _Result) -> list[dict[str, Any]]:
    rows = zip(task.prompts, result.answers, result.scores, strict=True)
    return [{"id": prompt.id, "answer": answer, "score": score} for prompt, answer, score in rows]

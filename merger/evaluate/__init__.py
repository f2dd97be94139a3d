"""Evaluation of a model on a suite: one number per task, and every answer with its score.

Knows no recipe, no gate and no key: whether a number is good enough is judged elsewhere.

    suite          tasks and data lines, checked
    model          a model folder opened for reading
    adapter        an adapter folded into the model under it
    generate       answers for many prompts at once
    draw           tokens of sampled answers
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
from merger.evaluate import choice, generate, harness, metrics, perplexity, python_pass, timing
from merger.evaluate import suite as suites
from merger.evaluate.adapter import open_adapter
from merger.evaluate.draw import Draw
from merger.evaluate.errors import EvaluationError
from merger.evaluate.generate import Ask, NonFiniteLogit
from merger.evaluate.model import Model, open_model
from merger.evaluate.perplexity import Passage, Surprise
from merger.evaluate.suite import Prompt, Task

FORMAT_VERSION = 1

Progress = Callable[[int, int, str], None]
_Place = tuple[Task, Prompt]


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
    for task, prompt in _places([task for task in tasks if _is_read(task)]):
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
    answers = _answers(model, asked, lambda done: progress(done, total, "prompts"))
    surprises = _surprises(model, read, lambda done: progress(later + done, total, "prompts"))
    timings = _timings(model, timed, lambda done: progress(last + done, total, "prompts"))
    results = {
        **{task.name: _judged(exam.scorers[task.name], answers[task.name]) for task in asked},
        **{task.name: _READERS[task.metric](task, surprises[task.name]) for task in read},
        **timings,
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


def _texts(task: Task, prompt: Prompt) -> tuple[str, ...]:
    """Return what a model reads of a prompt: the expected text, or every choice."""
    return prompt.choices if task.metric == metrics.CHOICE else (task.expected_text(prompt),)


def check_versions(request: Mapping[str, Any]) -> None:
    """Raise EvaluationError unless a request is of this format and this evaluator."""
    for field, known in (("format_version", FORMAT_VERSION), ("evaluator", schemas.evaluator())):
        if request.get(field) != known:
            msg = f"{field}: this evaluator is {known}, found {request.get(field)}"
            raise EvaluationError(msg)


def _places(tasks: Sequence[Task]) -> list[_Place]:
    return [(task, prompt) for task in tasks for prompt in task.prompts]


def _answers(
    model: Model, tasks: Sequence[Task], on_prompt: Callable[[int], None]
) -> dict[str, list[str]]:
    """Return the answers of every task in the order of its prompts, the samples of one together."""
    places = [place for place in _places(tasks) for _ in _draws(*place)]
    asks = [ask for place in _places(tasks) for ask in _asks(model, *place)]
    prompts = sum(len(task.prompts) for task in tasks)

    def on_answer(done: int) -> None:
        on_prompt(done * prompts // len(asks))

    try:
        found = generate.answers(model, asks, on_answer)
    except NonFiniteLogit as error:
        raise _not_a_number(places[error.index]) from error
    answers: dict[str, list[str]] = {task.name: [] for task in tasks}
    for (task, _), tokens in zip(places, found, strict=True):
        answers[task.name].append(model.text(tokens))
    return answers


def _asks(model: Model, task: Task, prompt: Prompt) -> list[Ask]:
    tokens = _rendered(model, task, prompt)
    _check_context(model, task, prompt, len(tokens) + task.max_new_tokens)
    return [
        Ask(tokens, task.max_new_tokens, task.system or "", draw) for draw in _draws(task, prompt)
    ]


def _draws(task: Task, prompt: Prompt) -> list[Draw | None]:
    """Return how each answer to a prompt is drawn; the only one of most tasks is greedy."""
    if task.metric != python_pass.METRIC:
        return [None]
    return python_pass.draws(task, prompt)


def _timings(
    model: Model, tasks: Sequence[Task], on_prompt: Callable[[int], None]
) -> dict[str, _Result]:
    """Return what is measured in every task, one after the other."""
    results: dict[str, _Result] = {}
    done = 0
    for task in tasks:
        asks = [ask for prompt in task.prompts for ask in _asks(model, task, prompt)]
        try:
            found = timing.MEASURES[task.metric](model, asks)
        except NonFiniteLogit as error:
            raise _not_a_number((task, task.prompts[error.index])) from error
        answers = [model.text(tokens) for tokens in found.answers]
        results[task.name] = _Result(found.metric, answers, found.scores)
        done += len(asks)
        on_prompt(done)  # not in between: telling takes time too
    return results


def _surprises(
    model: Model, tasks: Sequence[Task], on_prompt: Callable[[int], None]
) -> dict[str, list[Surprise]]:
    """Return how surprising every text of every task is, in the order of its prompts."""
    texts = [(*place, text) for place in _places(tasks) for text in _texts(*place)]
    passages = [_passage(model, *one) for one in texts]
    prompts = sum(len(task.prompts) for task in tasks)

    def on_passage(done: int) -> None:
        on_prompt(done * prompts // len(passages))

    try:
        found = perplexity.surprise(model, passages, on_passage)
    except NonFiniteLogit as error:
        raise _not_a_number(texts[error.index][:2]) from error
    surprises: dict[str, list[Surprise]] = {task.name: [] for task in tasks}
    for (task, *_), surprise in zip(texts, found, strict=True):
        surprises[task.name].append(surprise)
    return surprises


def _passage(model: Model, task: Task, prompt: Prompt, text: str) -> Passage:
    """Return what is given and what is scored; without a prompt, the text by itself."""
    if prompt.text:
        passage = Passage(_rendered(model, task, prompt), model.tokens(text, is_start=False))
    else:
        # Nothing comes before the first token of a text, so no model can be asked for it.
        tokens = model.tokens(text, is_start=True)
        passage = Passage(tokens[:1], tokens[1:])
    if not passage.scored:
        raise task.fault("expected: expected a text of more than one token", prompt)
    _check_context(model, task, prompt, len(passage.given) + len(passage.scored))
    return passage


def _rendered(model: Model, task: Task, prompt: Prompt) -> tuple[int, ...]:
    from jinja2 import TemplateError

    try:
        tokens = model.render(prompt.text, task.system)
    except TemplateError as error:  # templates refuse roles that their model was not trained on
        raise task.fault(f"the model's chat template refuses this: {error}", prompt) from error
    if not tokens:
        raise task.fault("prompt: expected a prompt of at least one token", prompt)
    return tokens


def _check_context(model: Model, task: Task, prompt: Prompt, tokens: int) -> None:
    if model.context is not None and tokens > model.context:
        msg = f"expected at most {model.context} tokens with the answer, found {tokens}"
        raise task.fault(msg, prompt)


def _not_a_number(place: _Place) -> EvaluationError:
    task, prompt = place
    return task.fault("the model's logits are not finite here", prompt)


def _judged(scorer: metrics.Scorer, answers: Sequence[str]) -> _Result:
    scores = scorer(answers)
    first = answers[:: len(answers) // len(scores)]  # of several samples the report shows one
    return _Result(math.fsum(scores) / len(scores), first, scores)


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

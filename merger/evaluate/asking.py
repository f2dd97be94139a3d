"""What a model is given for the tasks of a suite, and what it gives back, by task.

Knows no score: answers, surprises and times are judged elsewhere. Every error names its prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from merger.evaluate import generate, metrics, perplexity, python_pass, timing
from merger.evaluate.draw import Draw
from merger.evaluate.errors import EvaluationError
from merger.evaluate.generate import Ask, NonFiniteLogit
from merger.evaluate.model import Model
from merger.evaluate.perplexity import Passage, Surprise
from merger.evaluate.suite import Prompt, Task
from merger.evaluate.timing import Timing

_Place = tuple[Task, Prompt]


def places(tasks: Sequence[Task]) -> list[_Place]:
    """Return every prompt with its task, in the order of the suite."""
    return [(task, prompt) for task in tasks for prompt in task.prompts]


def answers(
    model: Model, tasks: Sequence[Task], on_prompt: Callable[[int], None]
) -> dict[str, list[str]]:
    """Return the answers of every task in the order of its prompts, the samples of one together."""
    asked = [place for place in places(tasks) for _ in _draws(*place)]
    asks = [ask for place in places(tasks) for ask in _asks(model, *place)]
    prompts = sum(len(task.prompts) for task in tasks)

    def on_answer(done: int) -> None:
        on_prompt(done * prompts // len(asks))

    try:
        found = generate.answers(model, asks, on_answer)
    except NonFiniteLogit as error:
        raise _not_a_number(asked[error.index]) from error
    texts: dict[str, list[str]] = {task.name: [] for task in tasks}
    for (task, _), tokens in zip(asked, found, strict=True):
        texts[task.name].append(model.text(tokens))
    return texts


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


def timings(
    model: Model, tasks: Sequence[Task], on_prompt: Callable[[int], None]
) -> dict[str, Timing]:
    """Return what is measured in every task, one after the other."""
    found: dict[str, Timing] = {}
    done = 0
    for task in tasks:
        asks = [ask for prompt in task.prompts for ask in _asks(model, task, prompt)]
        try:
            found[task.name] = timing.MEASURES[task.metric](model, asks)
        except NonFiniteLogit as error:
            raise _not_a_number((task, task.prompts[error.index])) from error
        done += len(asks)
        on_prompt(done)  # not in between: telling takes time too
    return found


def surprises(
    model: Model, tasks: Sequence[Task], on_prompt: Callable[[int], None]
) -> dict[str, list[Surprise]]:
    """Return how surprising every text of every task is, in the order of its prompts."""
    texts = [(*place, text) for place in places(tasks) for text in _texts(*place)]
    passages = [_passage(model, *one) for one in texts]
    prompts = sum(len(task.prompts) for task in tasks)

    def on_passage(done: int) -> None:
        on_prompt(done * prompts // len(passages))

    try:
        found = perplexity.surprise(model, passages, on_passage)
    except NonFiniteLogit as error:
        raise _not_a_number(texts[error.index][:2]) from error
    by_task: dict[str, list[Surprise]] = {task.name: [] for task in tasks}
    for (task, *_), surprise in zip(texts, found, strict=True):
        by_task[task.name].append(surprise)
    return by_task


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


def _texts(task: Task, prompt: Prompt) -> tuple[str, ...]:
    """Return what a model reads of a prompt: the expected text, or every choice."""
    return prompt.choices if task.metric == metrics.CHOICE else (task.expected_text(prompt),)

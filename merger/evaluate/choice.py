"""choice: which of several texts the model finds the most likely after the prompt. Knows no suite.

As lm-evaluation-harness has it: the largest sum of log-probabilities (its acc), or the largest per
byte of the text (its acc_norm); the first among equals.
"""

from __future__ import annotations

from collections.abc import Sequence

from merger.evaluate.perplexity import Surprise
from merger.evaluate.suite import Prompt, Task


def check(task: Task, prompt: Prompt) -> None:
    """Raise EvaluationError unless a prompt has choices, the expected one among them."""
    expected = task.expected_text(prompt)
    if len(set(prompt.choices)) < 2 or len(set(prompt.choices)) < len(prompt.choices):
        raise task.fault("choices: expected at least two texts, each once", prompt)
    if expected not in prompt.choices:
        raise task.fault(f"expected: expected one of the choices, found {expected}", prompt)


def chosen(prompt: Prompt, surprises: Sequence[Surprise], *, per_byte: bool) -> str:
    """Return the choice that surprises the model least."""
    pairs = zip(prompt.choices, surprises, strict=True)
    costs = [one.nll / (len(text.encode()) if per_byte else 1) for text, one in pairs]
    return prompt.choices[costs.index(min(costs))]

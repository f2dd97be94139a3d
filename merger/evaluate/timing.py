"""latency and throughput: how long answers take. Measured, so no two runs agree. Knows no suite.

A token that ends an answer was made too and is counted. The first prompt is answered once before
the clock starts: what a program does once, it would do for the first token alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from merger.evaluate import generate
from merger.evaluate.generate import Ask, NonFiniteLogit
from merger.evaluate.model import Model, Tokens

LATENCY, THROUGHPUT = "latency", "throughput"


@dataclass(frozen=True, slots=True)
class Timing:
    """What was measured over all prompts, and each prompt's answer and share in it."""

    metric: float
    answers: tuple[Tokens, ...]
    scores: tuple[float, ...]


def latency(model: Model, asks: Sequence[Ask]) -> Timing:
    """Return the seconds per token of every prompt alone, prompt and answer, and their median.

    Raises NonFiniteLogit.
    """
    _warm_up(model, asks)
    answers, scores = [], []
    for index, ask in enumerate(asks):
        started = time.perf_counter()
        try:
            (tokens,) = generate.answers(model, [ask], _ignore)
        except NonFiniteLogit as error:
            raise NonFiniteLogit(index) from error
        scores.append((time.perf_counter() - started) / _made(tokens, ask))
        answers.append(tokens)
    return Timing(statistics.median(scores), tuple(answers), tuple(scores))


def throughput(model: Model, asks: Sequence[Ask]) -> Timing:
    """Return the tokens per second over all prompts, answered in batches, and each one's tokens.

    Raises NonFiniteLogit.
    """
    _warm_up(model, asks)
    started = time.perf_counter()
    answers = generate.answers(model, asks, _ignore)
    seconds = time.perf_counter() - started
    made = tuple(_made(tokens, ask) for tokens, ask in zip(answers, asks, strict=True))
    return Timing(sum(made) / seconds, answers, tuple(map(float, made)))


MEASURES = {LATENCY: latency, THROUGHPUT: throughput}


def _warm_up(model: Model, asks: Sequence[Ask]) -> None:
    generate.answers(model, asks[:1], _ignore)


def _made(answer: Tokens, ask: Ask) -> int:
    """Return how many tokens were made; the one that ends an answer is not part of it."""
    return min(len(answer) + 1, ask.limit)


def _ignore(_: int) -> None:
    pass

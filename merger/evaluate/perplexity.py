"""How surprised a model is by a text: the sum of its tokens' negative log-likelihoods.

Knows no suite. Logits are the large thing here (vocabulary x tokens), so they are made in pieces.
Shape letters: B rows of a batch, T tokens of a row, K tokens that are scored, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock

import torch

from merger.evaluate import lanes
from merger.evaluate.generate import NonFiniteLogit
from merger.evaluate.model import Model, Tokens

_ROWS = 16
_LOGITS = 1 << 25  # numbers held at once: 128 MiB in float32, and as much again for the softmax


@dataclass(frozen=True, slots=True)
class Passage:
    """Tokens that are given, then tokens that are scored; at least one of each."""

    given: Tokens
    scored: Tokens


@dataclass(frozen=True, slots=True)
class Surprise:
    """Sum of the negative log-likelihoods (natural logarithm) of `tokens` tokens."""

    nll: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """Return exp(nll / tokens); infinite where that is beyond binary64."""
        try:
            return math.exp(self.nll / self.tokens)
        except OverflowError:
            return math.inf


def surprise(
    model: Model, passages: Sequence[Passage], on_passage: Callable[[int], None]
) -> tuple[Surprise, ...]:
    """Return the surprise of every passage. Raises NonFiniteLogit with the passage's index.

    `on_passage` gets the number of passages that are done.
    """
    order = sorted(range(len(passages)), key=lambda i: (len(passages[i].scored), i))
    found: dict[int, Surprise] = {}
    turn = Lock()

    def read(batch: Sequence[int]) -> None:
        sums = _batch(model, [passages[index] for index in batch])
        for index, nll in zip(batch, sums, strict=True):
            if not math.isfinite(nll):
                raise NonFiniteLogit(index)
        with turn:
            for index, nll in zip(batch, sums, strict=True):
                found[index] = Surprise(nll, len(passages[index].scored))
            on_passage(len(found))

    batches = [order[start : start + _ROWS] for start in range(0, len(order), _ROWS)]
    lanes.each(model, read, batches)
    return tuple(found[index] for index in range(len(passages)))


def _batch(model: Model, passages: Sequence[Passage]) -> list[float]:
    """Return the sum of negative log-likelihoods of each passage; float32 logits, binary64 sum."""
    rows = [passage.given + passage.scored for passage in passages]
    longest = max(map(len, rows))
    scored = max(len(passage.scored) for passage in passages)
    tokens = torch.tensor([(0,) * (longest - len(r)) + r for r in rows])  # [B, T]
    mask = torch.tensor([(0,) * (longest - len(r)) + (1,) * len(r) for r in rows])
    counts = torch.tensor([[len(passage.scored)] for passage in passages])
    is_scored = torch.arange(longest) >= longest - counts  # [B, T], true on the last K of a row
    tokens, mask, is_scored = (each.to(model.device) for each in (tokens, mask, is_scored))

    cache = None
    end = longest - scored - 1  # the logits of token t are those of its successor
    if end > 0:
        _, cache = model.forward(tokens[:, :end], mask[:, :end], None, keep=1)
    end = max(end, 0)
    step = max(1, _LOGITS // (len(rows) * model.vocabulary))
    sums = torch.zeros(len(rows), dtype=torch.float64, device=model.device)
    for start in range(end, longest - 1, step):
        stop = min(start + step, longest - 1)
        logits, cache = model.forward(tokens[:, start:stop], mask[:, :stop], cache)
        following = tokens[:, start + 1 : stop + 1]
        nll = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), following.flatten(), reduction="none"
        ).view_as(following)
        sums += nll.where(is_scored[:, start + 1 : stop + 1], 0.0).double().sum(dim=1)
    nlls: list[float] = sums.tolist()
    return nlls

"""Generation for many prompts at once, greedy or sampled. Knows no suite, no metric and no text.

A loop of our own instead of transformers' `generate`: rows leave the batch where they end, each
with a limit of its own, and what all prompts of a batch begin with is read once. Greedy means the
largest logit, the lowest token among equals; sampling settings in a model's folder mean nothing.
A sampled answer takes the largest sum of logit / temperature and noise (`draw`) in the same way.
Shape letters: B rows of a batch, C tokens that all rows begin with, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import torch

from merger.evaluate import lanes
from merger.evaluate.draw import Draw
from merger.evaluate.model import Model, Tokens

_ROWS = 32  # beyond it a row costs as much as alone: the processor, not memory, is the limit
_ROWS_SHARED = 16  # of each of several batches at once: enough of them to keep all lanes busy
_TOKENS = 16_384  # of rows x (prompt + answer): bounds the cache, 0.75 GB for a 135M model
_SPREAD = 128  # padding that the longest prompt of a batch may cost the shortest


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt in tokens, the most tokens of its answer, and what it should share a batch with.

    Answered greedily unless there is a `draw`.
    """

    tokens: Tokens
    limit: int
    group: str
    draw: Draw | None = None


class NonFiniteLogit(ArithmeticError):
    """A model's logits hold an infinity or no number; `index` is that of the ask."""

    def __init__(self, index: int) -> None:
        """Keep which ask it was."""
        super().__init__(f"non-finite logit at ask {index}")
        self.index = index


@dataclass(slots=True)
class _Row:
    index: int
    limit: int
    draw: Draw | None
    answer: list[int] = field(default_factory=list)


def answers(
    model: Model, asks: Sequence[Ask], on_answer: Callable[[int], None]
) -> tuple[Tokens, ...]:
    """Return the answer of every ask without the token that ends it.

    `on_answer` gets the number of answers that are complete. Raises NonFiniteLogit.
    """
    found: dict[int, Tokens] = {}
    turn = Lock()

    def answer(batch: Sequence[int]) -> None:
        for row in _answer_batch(model, [(index, asks[index]) for index in batch]):
            with turn:
                found[row.index] = tuple(row.answer)
                on_answer(len(found))

    rows = _ROWS_SHARED if model.can_share else _ROWS
    lanes.each(model, answer, list(batches(asks, rows)))
    return tuple(found[index] for index in range(len(asks)))


def batches(asks: Sequence[Ask], rows: int) -> Iterator[list[int]]:
    """Yield the indices of up to `rows` asks to answer together: alike in group and length."""
    order = sorted(range(len(asks)), key=lambda i: (asks[i].group, len(asks[i].tokens), i))
    batch: list[int] = []
    for index in order:
        if batch and not _has_room([asks[i] for i in batch], asks[index], rows):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _has_room(batch: Sequence[Ask], ask: Ask, rows: int) -> bool:
    lengths = [len(each.tokens) for each in (*batch, ask)]
    longest = max(lengths) + max(each.limit for each in (*batch, ask))
    is_even = max(lengths) - min(lengths) <= _SPREAD
    return len(batch) < rows and is_even and len(lengths) * longest <= _TOKENS


def _answer_batch(model: Model, batch: Sequence[tuple[int, Ask]]) -> Iterator[_Row]:
    rows = [_Row(index, ask.limit, ask.draw) for index, ask in batch]
    logits, mask, cache = read([ask.tokens for _, ask in batch], model)
    while True:
        chosen = _choose(logits, rows)
        done = [_is_done(row, token, model.end) for row, token in zip(rows, chosen, strict=True)]
        yield from (row for row, is_done in zip(rows, done, strict=True) if is_done)
        kept = [place for place, is_done in enumerate(done) if not is_done]
        if not kept:
            return
        if len(kept) < len(rows):
            places = torch.tensor(kept, device=model.device)
            cache.batch_select_indices(places)
            mask = mask[places]
            rows = [rows[place] for place in kept]
        tokens = torch.tensor([[chosen[place]] for place in kept], device=model.device)  # [B, 1]
        mask = torch.cat([mask, torch.ones_like(tokens)], dim=1)
        logits, cache = model.forward(tokens, mask, cache, keep=1)


def read(prompts: Sequence[Tokens], model: Model) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """Return the logits after every prompt [B, 1, V], the mask of what was read and the cache.

    What all prompts begin with, as a rule the system message, is read once and its cache repeated;
    padding stands between it and the rest, where the mask hides it from attention and positions.
    """
    common = _common(prompts)
    cache = None
    if common and len(prompts) > 1 and model.can_skip:
        start = torch.tensor([prompts[0][:common]], device=model.device)  # [1, C]
        _, cache = model.forward(start, torch.ones_like(start), None, keep=1)
        cache.batch_repeat_interleave(len(prompts))
    else:
        common = 0
    rests = [prompt[common:] for prompt in prompts]
    longest = max(map(len, rests))
    tokens = torch.tensor([(0,) * (longest - len(r)) + r for r in rests], device=model.device)
    mask = torch.tensor(
        [(1,) * common + (0,) * (longest - len(r)) + (1,) * len(r) for r in rests],
        device=model.device,
    )
    logits, cache = model.forward(tokens, mask, cache, keep=1)
    return logits, mask, cache


def _common(prompts: Sequence[Tokens]) -> int:
    """Return how many tokens all prompts begin with; each keeps at least one of its own."""
    first, last = min(prompts), max(prompts)  # in lexical order these two differ earliest
    shortest = min(map(len, prompts)) - 1
    same = (place for place in range(shortest) if first[place] != last[place])
    return next(same, shortest)


def _choose(logits: torch.Tensor, rows: Sequence[_Row]) -> list[int]:
    """Return the token of every row: that of the largest logit, or the one that is drawn."""
    last = logits[:, -1]  # [B, V]
    finite = torch.isfinite(last).all(dim=-1).tolist()
    if not all(finite):
        raise NonFiniteLogit(rows[finite.index(False)].index)
    chosen: list[int] = last.argmax(dim=-1).tolist()
    for place, row in enumerate(rows):
        if row.draw is not None:
            chosen[place] = row.draw.token(last[place], len(row.answer))
    return chosen


def _is_done(row: _Row, token: int, end: frozenset[int]) -> bool:
    if token in end:
        return True
    row.answer.append(token)
    return len(row.answer) == row.limit

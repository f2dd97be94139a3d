"""Merged or switched: how fast each answers and what it takes of memory. Judges neither.

Measured are *modes*, each a way to answer a batch of prompts:

    merged              the merged model
    <an adapter>        the base with PEFT and every adapter of the merge loaded, this one active
    adapters off        the same network with all adapters switched off: what the base answers

Every mode answers the same batches in float32, greedily, with exactly as many tokens (where an
answer would end, it goes on), all in one process and in turn: repeat by repeat, beginning with
another mode each time, so that a machine that slows down slows all of them. Clocks stop when the
tokens of all rows are known to the host, as they would be to whoever streams them; `sides` are
merged and switched, and with one of them alone the memory of the process is that of this side.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

import torch

from merger import memory, serving_request
from merger.errors import InputError
from merger.evaluate import generate
from merger.evaluate.model import Model, Tokens
from merger.serving_modes import Folders, Mode, import_all, open_side, wait
from merger.serving_request import ServingRequest

_WARM_UP_TOKENS = 8

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Timed:
    """One batch answered: seconds to the first tokens, those between tokens, and the tokens."""

    first: float
    steps: tuple[float, ...]
    tokens: tuple[Tokens, ...]

    @property
    def per_second(self) -> float:
        """Tokens of all rows per second of the whole request, the reading of the prompts too."""
        count = sum(len(row) for row in self.tokens)
        return count / (self.first + math.fsum(self.steps))


@dataclass(slots=True)
class _Series:
    """What was measured of one mode at one batch size."""

    requests: list[Timed] = field(default_factory=list)
    switches: list[float] = field(default_factory=list)


def run(
    data: Mapping[str, Any], inputs: Folders, device: torch.device, progress: Progress
) -> dict[str, Any]:
    """Measure what a serving request asks for; `inputs` are folders by digest.

    Returns the figures as plain data, as in the schema of events: seconds and bytes. Raises
    InputError, EvaluationError too.
    """
    asked = serving_request.parse(data)
    import_all(asked)
    before = memory.resident_bytes()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    sides = {side: open_side(side, asked, inputs, device) for side in asked.sides}
    modes = [mode for side in sides.values() for mode in side.modes]
    opened = memory.resident_bytes()
    found = _measure(asked, modes, progress)
    return {
        "threads": torch.get_num_threads(),
        "dtype": "float32",
        "rows": [_row(mode, batch, series) for (mode, batch), series in found.items()],
        "switch": _switch(found),
        "sides": {name: side.facts for name, side in sides.items()},
        "resident_before_bytes": before,
        "resident_opened_bytes": opened,
        "cuda_peak_bytes": (
            torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        ),
    }


def _measure(
    asked: ServingRequest, modes: Sequence[Mode], progress: Progress
) -> dict[tuple[Mode, int], _Series]:
    """Return what was measured by mode and batch size, in the order of modes in each size."""
    prompts = {mode.name: _rendered(asked, mode.model) for mode in modes}
    found = {(mode, batch): _Series() for batch in asked.batches for mode in modes}
    total = len(found) * (1 + asked.repeats)
    for done, (repeat, batch, mode) in enumerate(_turns(asked, modes), 1):
        is_warm_up = repeat < 0
        tokens = min(asked.tokens, _WARM_UP_TOKENS) if is_warm_up else asked.tokens
        rows = _rows(prompts[mode.name], max(repeat, 0), batch)
        switch, timed = _in_mode(mode, rows, tokens)
        if not is_warm_up:
            found[mode, batch].requests.append(timed)
            found[mode, batch].switches.append(switch)
        progress(done, total, "requests")
    return found


def _turns(asked: ServingRequest, modes: Sequence[Mode]) -> Iterator[tuple[int, int, Mode]]:
    """Yield repeat, batch size and mode in the order of measuring; repeat -1 is the warm-up."""
    for repeat in range(-1, asked.repeats):
        shift = max(repeat, 0) % len(modes)
        for batch in asked.batches:
            for mode in (*modes[shift:], *modes[:shift]):
                yield repeat, batch, mode


def _rendered(asked: ServingRequest, model: Model) -> list[Tokens]:
    """Return the tokens of every prompt; each must leave room for its answer."""
    from jinja2 import TemplateError

    found = []
    for index, prompt in enumerate(asked.prompts):
        place = f"prompts[{index}]"
        try:
            tokens = model.render(prompt.text, prompt.system)
        except TemplateError as error:
            raise InputError(f"the chat template refuses this: {error}", field=place) from error
        length = len(tokens) + asked.tokens
        if not tokens or (model.context is not None and length > model.context):
            why = f"expected 1 to {model.context} tokens with the answer, found {length}"
            raise InputError(why, field=place)
        found.append(tokens)
    return found


def _rows(prompts: Sequence[Tokens], repeat: int, batch: int) -> list[Tokens]:
    """Return the prompts of a batch: each repeat goes on where the one before it ended."""
    return [prompts[(repeat * batch + row) % len(prompts)] for row in range(batch)]


def _in_mode(mode: Mode, prompts: Sequence[Tokens], tokens: int) -> tuple[float, Timed]:
    """Return the seconds of switching to a mode, and what it did with a batch of prompts."""
    started = time.perf_counter()
    with mode.switch():
        wait(mode.model.device)
        seconds = time.perf_counter() - started
        return seconds, answer(mode.model, prompts, tokens)


def answer(model: Model, prompts: Sequence[Tokens], tokens: int) -> Timed:
    """Return `tokens` tokens for every prompt, the likeliest each time, and how long they took."""
    with torch.inference_mode():
        started = time.perf_counter()
        logits, mask, cache = generate.read(prompts, model)
        chosen = logits[:, -1].argmax(dim=-1).tolist()  # waits for the device
        clock = [started, time.perf_counter()]
        rows = [[token] for token in chosen]
        while len(rows[0]) < tokens:
            last = torch.tensor([[row[-1]] for row in rows], device=model.device)
            mask = torch.cat([mask, torch.ones_like(last)], dim=1)
            logits, cache = model.forward(last, mask, cache, keep=1)
            chosen = logits[:, -1].argmax(dim=-1).tolist()
            clock.append(time.perf_counter())
            for row, token in zip(rows, chosen, strict=True):
                row.append(token)
    first, *steps = (after - before for before, after in pairwise(clock))
    return Timed(first, tuple(steps), tuple(map(tuple, rows)))


def _row(mode: Mode, batch: int, series: _Series) -> dict[str, Any]:
    """Return the figures of a mode at a batch size; the answers are those of the first repeat."""
    steps = [step for one in series.requests for step in one.steps]
    speeds = [round(one.per_second, 3) for one in series.requests]
    return {
        "mode": mode.name,
        "batch": batch,
        "tokens_per_second": median(speeds),
        "speeds": speeds,
        "first_token_seconds": _seconds(median(one.first for one in series.requests)),
        "token_seconds": _spread(steps),
        "answers": [_text(mode.model, row) for row in series.requests[0].tokens],
    }


def _text(model: Model, tokens: Tokens) -> str:
    """Return an answer up to where it ended, had it not been told to go on."""
    ends = (place for place, token in enumerate(tokens) if token in model.end)
    return model.text(tokens[: next(ends, len(tokens))])


def _switch(found: Mapping[tuple[Mode, int], _Series]) -> dict[str, float] | None:
    """Return what it took to make another adapter the active one; None without adapters."""
    times = [
        one for (mode, _), series in found.items() if mode.is_adapter for one in series.switches
    ]
    return _spread(times) if times else None


def _spread(times: Sequence[float]) -> dict[str, float]:
    """Return how many times there are, their median and the one that 95 % do not exceed."""
    nearest = sorted(times)[math.ceil(0.95 * len(times)) - 1]
    return {"count": len(times), "median": _seconds(median(times)), "p95": _seconds(nearest)}


def _seconds(value: float) -> float:
    return round(value, 7)

"""One recipe at a time, built in memory and measured; nothing is measured twice.

A measurement is known by a key: what was built, the prompts, and what judged them. Knows neither
how recipes are proposed nor which is best.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import schemas
from merger import request
from merger.candidates import Candidates, open_candidates
from merger.engine import Limits
from merger.errors import InputError
from merger.evaluate import Exam, hold, prepare
from merger.evaluate import suite as suites
from merger.evaluate.model import Model, open_model
from merger.in_place import Into
from merger.request import BuildRequest
from merger.rounding import round_to
from merger.search.request import SearchRequest
from merger.search.split import split
from schemas import canonical

SEARCH, HELD_OUT = "search", "held_out"


@dataclass(frozen=True, slots=True)
class Measured:
    """What a recipe does on some prompts; `problem` says why it cannot be measured, if so."""

    key: str
    metrics: Mapping[str, float]
    seconds: float
    problem: str = ""

    def as_data(self) -> dict[str, Any]:
        """Return the plain data by which it is known again."""
        return {
            "key": self.key,
            "metrics": dict(self.metrics),
            "seconds": self.seconds,
            "problem": self.problem,
        }


Known = Mapping[str, Measured]


@dataclass(slots=True)
class Bench:
    """Operands, a model to write recipes into, and the prompts it is asked.

    `exams` are of all tasks, by part of the prompts; `screening` is that of the part to search on
    with the tasks alone that count, which are all that candidates are asked.
    """

    candidates: Candidates
    model: Model
    into: Into
    exams: Mapping[str, Exam]
    screening: Exam
    suite: Mapping[str, Any]
    base: str
    known: dict[str, Measured]

    def measure(self, recipe: Mapping[str, Any] | None, exam: Exam) -> Measured:
        """Return what a build request does on some prompts; None stands for the base.

        What a person could mend, numbers beyond all bounds above all, is told in `problem`.
        """
        key = self._key(recipe, exam)
        if key in self.known:
            return self.known[key]
        started = time.monotonic()
        metrics: Mapping[str, float] = {}
        problem = ""
        try:
            if recipe is None:
                self.candidates.restore(self.into)
            else:
                self.candidates.apply(request.parse(recipe), self.into)
            metrics = hold(exam, self.model, lambda *_: None)["metrics"]
        except InputError as error:
            problem = str(error)
        seconds = round(time.monotonic() - started, 3)
        self.known[key] = Measured(key, metrics, seconds, problem)
        return self.known[key]

    def _key(self, recipe: Mapping[str, Any] | None, exam: Exam) -> str:
        asked = {task.name: [prompt.id for prompt in task.prompts] for task in exam.tasks}
        built = {"base": self.base} if recipe is None else dict(recipe)
        return canonical.digest(
            {
                "build": built,
                "suite": self.suite["digest"],
                "prompts": asked,
                "evaluator": schemas.evaluator(),
            }
        )


def open_bench(
    stack: ExitStack,
    asked: SearchRequest,
    inputs: Mapping[str, Path],
    limits: Limits,
    known: Known,
) -> Bench:
    """Open operands, model and prompts of a search; `stack` closes what must be closed."""
    folder = inputs.get(asked.suite["digest"])
    if folder is None:
        raise InputError(f"no folder was given for {asked.suite['digest']}", field="inputs")
    parts = split(suites.read(asked.suite, folder), asked.held_out, asked.seed)
    exams = {SEARCH: prepare(parts[0])}
    weights = asked.objective.weights
    screening = prepare(tuple(task for task in parts[0] if weights[task.name] > 0))
    if parts[1]:
        exams[HELD_OUT] = prepare(parts[1])
    candidates = open_candidates(stack, asked.start, inputs, limits)
    torch.set_num_threads(limits.threads)
    base = asked.start.base.digest
    model = open_model(inputs[base], limits.device.type)
    into = model.network.state_dict()
    _round_untouched(asked.start, candidates, into)
    return Bench(candidates, model, into, exams, screening, asked.suite, base, dict(known))


def _round_untouched(start: BuildRequest, candidates: Candidates, into: Into) -> None:
    """Give the tensors that no recipe writes the values that a build casts them to."""
    if start.output.dtype == "base":
        return
    dtype = getattr(torch, start.output.dtype)
    touched = set(candidates.touched)
    for name, tensor in into.items():
        if name not in touched and tensor.is_floating_point():
            tensor.copy_(round_to(tensor, dtype))

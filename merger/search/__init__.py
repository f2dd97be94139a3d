"""Search: recipes for the same operands, built in memory, measured on a suite, compared.

Proposes numbers and never writes a model: whichever recipe is chosen is built by the ordinary way,
and has the same bits as here. Every measurement is told as soon as it is there, and what was told
before is not measured again: so a search that was killed goes on where it was.

    request      what is to be searched, checked
    space        variables, points, coordinates
    strategies   grid, CMA-ES, greedy soup: which points are tried next
    objective    what is maximised
    split        prompts to search on, prompts held out
    trial        one recipe built in memory and measured
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from merger.engine import Limits
from merger.errors import InputError
from merger.search import objective, request, strategies
from merger.search.request import SearchRequest, Trial
from merger.search.space import Point
from merger.search.strategies import Proposals
from merger.search.trial import SEARCH, Bench, Known, Measured, open_bench

Tell = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may be spent: candidates, and seconds of building and measuring them."""

    evaluations: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A point that was tried, and how good it is on the prompts to search on."""

    number: int
    point: Point
    measured: Measured
    score: tuple[float, float]


def run(
    data: Mapping[str, Any],
    inputs: Mapping[str, Path],
    limits: Limits,
    *,
    budget: Budget,
    known: Known,
    tell: Tell,
) -> dict[str, Any]:
    """Carry out a search request; `inputs` are folders by digest of base, operands and suite.

    `known` are earlier measurements by key; `tell` gets every measurement as it is there, known or
    not. Returns the report as plain data: references, trials and candidates with their metrics, the
    best candidate and what it does on the prompts held out. Raises InputError, EvaluationError
    too, unless it is about a candidate.
    """
    asked = request.parse(data)
    with ExitStack() as stack:
        bench = open_bench(stack, asked, inputs, limits, known)
        asked = replace(asked, space=asked.space.over(bench.candidates.tensors))
        return _Search(asked, data["start"], bench, budget, tell).run()


@dataclass(slots=True)
class _Search:
    """One search on its way."""

    asked: SearchRequest
    start: Mapping[str, Any]
    bench: Bench
    budget: Budget
    tell: Tell
    references: dict[str, list[Mapping[str, float]]] = field(default_factory=dict)
    candidates: list[Candidate] = field(default_factory=list)
    spent_seconds: float = 0.0

    def run(self) -> dict[str, Any]:
        references = [self._compared("reference", one) for one in self.asked.references]
        self.references = {
            part: [row[part]["metrics"] for row in references] for part in self.bench.exams
        }
        declared, *trials = [
            self._compared("trial", one)
            for one in (Trial("declared", self.start), *self.asked.trials)
        ]
        ended = self._search()
        return {
            "references": references,
            "declared": declared,
            "trials": trials,
            "candidates": [self._row(one) for one in self.candidates],
            "front": self._front(),
            "best": self._best(),
            "ended": ended,
            "spent_seconds": round(self.spent_seconds, 3),
            "prompts": {
                part: {task.name: len(task.prompts) for task in exam.tasks}
                for part, exam in self.bench.exams.items()
            },
        }

    def _compared(self, kind: str, trial: Trial) -> dict[str, Any]:
        """Return how a given recipe does on all prompts, those held out apart."""
        row: dict[str, Any] = {"label": trial.label, "request": trial.request}
        for part, exam in self.bench.exams.items():
            measured = self.bench.measure(trial.request, exam)
            if measured.problem and kind == "reference":
                raise InputError(f"{trial.label}: {measured.problem}")
            self._tell(kind, trial.label, part, measured)
            is_trial = kind == "trial"
            row[part] = self._judged(measured, part) if is_trial else measured.as_data()
        return row

    def _search(self) -> str:
        """Try candidates until nothing is proposed or left to spend; return which of these."""
        if self.asked.strategy == "none":
            return "nothing to search"
        strategy = _strategy(self.asked, self.start)
        points = next(strategy)
        while True:
            scores = []
            for point in points:
                if len(self.candidates) >= self.budget.evaluations:
                    return "evaluations"
                if self._is_late():
                    return "time"
                scores.append(self._try(point))
            try:
                points = strategy.send(scores)
            except StopIteration:
                return "all was tried"

    def _is_late(self) -> bool:
        limit = self.budget.seconds
        return limit is not None and self.spent_seconds >= limit

    def _try(self, point: Point) -> float:
        recipe = self.asked.space.put(point, self.start)
        measured = self.bench.measure(recipe, self.bench.screening)
        score = self._score(measured, SEARCH)
        number = len(self.candidates) + 1
        self.candidates.append(Candidate(number, point, measured, score))
        self.spent_seconds += measured.seconds
        self._tell("candidate", f"candidate {number}", SEARCH, measured)
        return score[0]

    def _score(self, measured: Measured, part: str) -> tuple[float, float]:
        if measured.problem:
            return -math.inf, -math.inf
        return self.asked.objective.score(measured.metrics, self.references[part])

    def _judged(self, measured: Measured, part: str) -> dict[str, Any]:
        score, mean = self._score(measured, part)
        if measured.problem:
            return {**measured.as_data(), "score": None, "mean": None}
        return {**measured.as_data(), "score": score, "mean": mean}

    def _row(self, one: Candidate) -> dict[str, Any]:
        names = [variable.label for variable in self.asked.space.variables]
        values = dict(zip(names, one.point, strict=True))
        return {"number": one.number, "values": values, SEARCH: self._judged(one.measured, SEARCH)}

    def _front(self) -> list[int]:
        """Return the numbers of the candidates that no other one beats in every task."""
        whole = [one for one in self.candidates if not one.measured.problem]
        tasks = [
            one for one in self.asked.objective.tasks if self.asked.objective.weights[one.name]
        ]
        kept = objective.front(tasks, [one.measured.metrics for one in whole])
        return [whole[position].number for position in kept]

    def _best(self) -> dict[str, Any] | None:
        """Return the best candidate with its request and all its metrics."""
        if not self.candidates:
            return None
        best = self._steadiest(max(one.score for one in self.candidates))
        if best.measured.problem:
            msg = f"no candidate can be measured; the first: {best.measured.problem}"
            raise InputError(msg)
        recipe = self.asked.space.put(best.point, self.start)
        row = {**self._row(best), "request": recipe}
        for part, exam in self.bench.exams.items():
            measured = self.bench.measure(recipe, exam)
            self._tell("best", f"candidate {best.number}", part, measured)
            row[part] = self._judged(measured, part)
        return row

    def _steadiest(self, score: tuple[float, float]) -> Candidate:
        """Return, of the candidates with the best score, the one amid the best neighbours.

        Right answers come in whole prompts, so a grid has plateaus; what lies in the middle of one
        is more likely to hold on other prompts than its edge. Of equals the first.
        """
        equals = [one for one in self.candidates if one.score == score]

        def around(one: Candidate) -> float:
            near = [
                max(other.score[0], 0.0)
                for other in self.candidates
                if other is one or self.asked.space.are_neighbours(one.point, other.point)
            ]
            return math.fsum(near) / len(near)

        return max(equals, key=around)

    def _tell(self, kind: str, label: str, part: str, measured: Measured) -> None:
        judged = {} if kind == "reference" else {"score": self._judged(measured, part)["score"]}
        self.tell({"kind": kind, "label": label, "part": part, **measured.as_data(), **judged})


def _strategy(asked: SearchRequest, start: Mapping[str, Any]) -> Proposals:
    if asked.strategy == "grid":
        return strategies.grid(asked.space)
    if asked.strategy == "greedy_soup":
        return strategies.greedy_soup(asked.space)
    return strategies.cma_es(
        asked.space,
        asked.space.found_in(start),
        seed=asked.seed,
        population=asked.population,
        sigma=asked.sigma,
    )

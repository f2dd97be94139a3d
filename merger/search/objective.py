"""What a search maximises: one number from the metrics of a candidate. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from schemas.utility import utility

Metrics = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Task:
    """How a task's metric is read: its kind, and whether more of it is better."""

    name: str
    metric: str
    higher_is_better: bool

    def utility(self, value: float) -> float:
        """Return a number of which more is better, in [0, 1]."""
        return utility(self.metric, value, higher_is_better=self.higher_is_better)


@dataclass(frozen=True, slots=True)
class Objective:
    """What is maximised: `mean`, `worst` or `retention`, over tasks with weights.

    mean: Σ wₜuₜ / Σ wₜ of the utilities. worst: the least utility. retention: the least uₜ / bₜ,
    where bₜ is the best that a reference reaches alone; a task that no reference does anything for
    has nothing to lose and is left out. Tasks of weight 0 count nowhere.
    """

    kind: str
    tasks: tuple[Task, ...]
    weights: Mapping[str, float]

    def score(self, metrics: Metrics, references: Collection[Metrics]) -> tuple[float, float]:
        """Return what is maximised, and the mean, which decides among equals."""
        counted = [task for task in self.tasks if self.weights[task.name] > 0]
        utilities = {task.name: task.utility(metrics[task.name]) for task in counted}
        total = math.fsum(self.weights[name] for name in utilities)
        mean = math.fsum(self.weights[name] * one for name, one in utilities.items()) / total
        if self.kind == "mean":
            return mean, mean
        if self.kind == "worst":
            return min(utilities.values()), mean
        best = {
            task.name: max((task.utility(one[task.name]) for one in references), default=0.0)
            for task in counted
        }
        kept = [utilities[name] / bound for name, bound in best.items() if bound > 0]
        return min(kept, default=mean), mean


def front(tasks: Sequence[Task], rows: Sequence[Metrics]) -> list[int]:
    """Return the positions of the rows that no other one beats: the Pareto front, in their order.

    A row is beaten by one that is nowhere worse and somewhere better; of equal rows the first
    stands for all.
    """
    points = [tuple(task.utility(row[task.name]) for task in tasks) for row in rows]
    kept: list[int] = []
    for number, point in enumerate(points):
        is_first = point not in points[:number]
        if is_first and not any(_beats(other, point) for other in points):
            kept.append(number)
    return kept


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))

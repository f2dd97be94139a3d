"""Whether a merge is good: what it gained over its base, what it kept of its ingredients. Pure.

Everything follows from metrics: of the merged model, of the base, and of each ingredient alone at
weight 1. Comparisons are of utilities, of which more is better in every task (`schemas.utility`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from registry import judge
from registry.judge import Scale
from registry.record import Evaluation
from registry.spec import Suite

FORMAT_VERSION = 1
BASE = "base"

Metrics = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class TaskQuality:
    """One task: metrics of base, best ingredient and merged model, and what they say.

    `gain` is the merged model's utility less the base's; `retention` its share of the best
    ingredient's (1 where that has nothing); `interference` the share of that ingredient's own gain
    over the base that the merge lost. Gain and interference are None where the base was not
    measured, interference also where the ingredient gained nothing.
    """

    task: str
    metric: str
    base: float | None
    best: float
    best_by: str
    merged: float
    gain: float | None
    retention: float
    interference: float | None


@dataclass(frozen=True, slots=True)
class Quality:
    """All tasks of a suite with a utility, and every model's metrics by label; `mean` of utilities.

    `best_single` is the ingredient, or the base, whose mean is the best.
    """

    suite: str
    tasks: tuple[TaskQuality, ...]
    models: Mapping[str, Metrics]
    mean: float
    best_single: tuple[str, float]

    @property
    def mean_gain(self) -> float | None:
        """Mean gain over the base; None where that was not measured."""
        gains = [one.gain for one in self.tasks if one.gain is not None]
        return sum(gains) / len(gains) if gains else None

    @property
    def mean_retention(self) -> float:
        """Mean retention, as the field averages it over tasks."""
        return sum(one.retention for one in self.tasks) / len(self.tasks)

    @property
    def lost(self) -> tuple[str, ...]:
        """What was lost, the worst first: `json 0.62 of 1 that adapter json@2 has alone`."""
        worst = sorted(self.tasks, key=lambda one: (one.retention, one.task))
        return tuple(
            f"{one.task} {one.merged:.3g} of {one.best:.3g} that {one.best_by} has alone"
            for one in worst
            if one.retention < 1
        )

    def as_data(self) -> dict[str, Any]:
        """Return the plain data of the report."""
        label, mean = self.best_single
        return {
            "format_version": FORMAT_VERSION,
            "suite": self.suite,
            "tasks": [asdict(one) for one in self.tasks],
            "mean": self.mean,
            "mean_gain": self.mean_gain,
            "mean_retention": self.mean_retention,
            "best_single": {"label": label, "mean": mean},
            "lost": list(self.lost),
            "models": {label: dict(metrics) for label, metrics in self.models.items()},
        }


def of_evaluation(evaluation: Evaluation, suites: Mapping[str, Suite]) -> Quality | None:
    """Return the quality that an evaluation tells of.

    None if nothing was measured beside the model, or the suite has other tasks by now.
    """
    suite = suites.get(evaluation.request["suite"]["name"])
    if suite is None:
        return None
    scale = judge.scale_of(suite)
    if evaluation.metrics.keys() != scale.kinds.keys():
        return None
    rows = (evaluation.metrics, evaluation.base, evaluation.baselines)
    return report(suite.name, scale, *rows)


def report(
    suite: str, scale: Scale, merged: Metrics, base: Metrics, alone: Mapping[str, Metrics]
) -> Quality | None:
    """Return the quality of a merged model, None if there is nothing to compare it with.

    `base` is empty where it was not measured; `alone` are the metrics of its ingredients by label.
    """
    single = {f"{label} alone": metrics for label, metrics in alone.items()}
    beside = {BASE: base, **single} if base else single
    if not beside or not scale.judged:
        return None
    means = {label: _mean(scale, metrics) for label, metrics in beside.items()}
    best_single = max(means.items(), key=lambda pair: pair[1])
    tasks = tuple(_tasks(scale, merged, base, alone))
    return Quality(suite, tasks, {**beside, "merged": merged}, _mean(scale, merged), best_single)


def _mean(scale: Scale, metrics: Metrics) -> float:
    return sum(scale.utility(task, metrics) for task in scale.judged) / len(scale.judged)


def _tasks(
    scale: Scale, merged: Metrics, base: Metrics, alone: Mapping[str, Metrics]
) -> Iterator[TaskQuality]:
    rows: Sequence[tuple[str, Metrics]] = [*alone.items()] or [(f"the {BASE}", base)]
    for task in scale.judged:
        label, best = max(rows, key=lambda row: scale.utility(task, row[1]))
        own, bound = scale.utility(task, merged), scale.utility(task, best)
        before = scale.utility(task, base) if base else None
        yield TaskQuality(
            task=task,
            metric=scale.kinds[task],
            base=base.get(task),
            best=best[task],
            best_by=label,
            merged=merged[task],
            gain=None if before is None else own - before,
            retention=own / bound if bound else 1.0,
            interference=(bound - own) / (bound - before)
            if before is not None and bound > before
            else None,
        )

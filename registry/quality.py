"""Whether a merge is good: what it gained over its base, what it kept of its ingredients. Pure.

Everything follows from metrics: of the merged model, of the base, and of each ingredient alone at
weight 1. Comparisons are of utilities, of which more is better in every task (`schemas.utility`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from registry.judge import Scale

FORMAT_VERSION = 1
BASE = "base"

Metrics = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class TaskQuality:
    """One task: metrics of base, best ingredient and merged model, and what they say.

    `gain` is the merged model's utility less the base's; `retention` its share of the best
    ingredient's (1 where that has nothing); `interference` the share of that ingredient's own gain
    over the base that the merge lost, None where it gained nothing.
    """

    task: str
    metric: str
    base: float
    best: float
    best_by: str
    merged: float
    gain: float
    retention: float
    interference: float | None


@dataclass(frozen=True, slots=True)
class Quality:
    """All tasks of a suite that have a utility, their means, and every model's metrics by label."""

    suite: str
    tasks: tuple[TaskQuality, ...]
    models: Mapping[str, Metrics]

    @property
    def mean_gain(self) -> float:
        """Mean gain over the base."""
        return sum(one.gain for one in self.tasks) / len(self.tasks)

    @property
    def mean_retention(self) -> float:
        """Mean retention, as the field averages it over tasks."""
        return sum(one.retention for one in self.tasks) / len(self.tasks)

    @property
    def lost(self) -> tuple[str, ...]:
        """What was lost, the worst first: `json 0.62 of 1 that adapter json@2 has alone`."""
        worst = sorted(self.tasks, key=lambda one: (one.retention, one.task))
        return tuple(
            f"{one.task} {one.merged:.3g} of {one.best:.3g} that {one.best_by} has"
            for one in worst
            if one.retention < 1
        )

    def as_data(self) -> dict[str, Any]:
        """Return the plain data of the report."""
        return {
            "format_version": FORMAT_VERSION,
            "suite": self.suite,
            "tasks": [asdict(one) for one in self.tasks],
            "mean_gain": self.mean_gain,
            "mean_retention": self.mean_retention,
            "lost": list(self.lost),
            "models": {label: dict(metrics) for label, metrics in self.models.items()},
        }


def report(
    suite: str, scale: Scale, merged: Metrics, base: Metrics, alone: Mapping[str, Metrics]
) -> Quality:
    """Return the quality of a merged model; `alone` are the metrics of its ingredients by label."""
    tasks = tuple(_tasks(scale, merged, base, alone))
    single = {f"{label} alone": metrics for label, metrics in alone.items()}
    return Quality(suite, tasks, {BASE: base, **single, "merged": merged})


def _tasks(
    scale: Scale, merged: Metrics, base: Metrics, alone: Mapping[str, Metrics]
) -> Iterator[TaskQuality]:
    for task in scale.judged:
        own, before = scale.utility(task, merged), scale.utility(task, base)
        label, best = _best(scale, task, base, alone)
        bound = scale.utility(task, best)
        yield TaskQuality(
            task=task,
            metric=scale.kinds[task],
            base=base[task],
            best=best[task],
            best_by=label,
            merged=merged[task],
            gain=own - before,
            retention=own / bound if bound else 1.0,
            interference=(bound - own) / (bound - before) if bound > before else None,
        )


def _best(
    scale: Scale, task: str, base: Metrics, alone: Mapping[str, Metrics]
) -> tuple[str, Metrics]:
    """Return the best ingredient of a task; the base where there is no ingredient at all."""
    rows: Sequence[tuple[str, Metrics]] = [*alone.items()] or [("the base", base)]
    return max(rows, key=lambda row: scale.utility(task, row[1]))

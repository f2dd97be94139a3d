"""Whether a model meets its gates. Pure: metrics, baselines and gates in, verdicts out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from registry.spec import Gate, Suite
from schemas.utility import MEASURED, kind_of, utility

MEAN = "mean"
"""What a gate on all tasks together is called: the mean of their utilities."""

_ROUNDING = 1e-9
"""0.72 of 0.8 is 0.9, though not in binary64; scores of some prompts are far coarser than this."""

Metrics = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Scale:
    """How the metrics of a suite are read: the kind of each task, and where less is better."""

    kinds: Mapping[str, str]
    lower_is_better: Collection[str] = frozenset()

    @property
    def judged(self) -> tuple[str, ...]:
        """Return the tasks that have a utility: all but those that a clock measures."""
        return tuple(task for task, kind in self.kinds.items() if kind not in MEASURED)

    def value(self, task: str, metrics: Metrics) -> float:
        """Return a task's metric; of `mean`, unless a task is called so, the mean utility."""
        if task in self.kinds or task != MEAN:
            return metrics[task]
        return sum(self.utility(one, metrics) for one in self.judged) / len(self.judged)

    def utility(self, task: str, metrics: Metrics) -> float:
        """Return a number of which more is better."""
        value = self.value(task, metrics)
        higher = task not in self.lower_is_better
        return utility(self.kinds.get(task, ""), value, higher_is_better=higher)


def scale_of(suite: Suite) -> Scale:
    """Return how the metrics of a suite are read."""
    kinds = {str(task["name"]): kind_of(task) for task in suite.tasks}
    return Scale(kinds, suite.lower_is_better)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One condition of one task: what was asked, what was found.

    `best` is what retention is of; `limit` of no_worse_than is what the live version has.
    """

    task: str
    condition: str
    limit: float
    value: float
    best: float | None
    passed: bool
    kept: float | None = None

    def text(self) -> str:
        """Return the verdict as a person reads it."""
        of = f" (retention {self.kept:.3g})" if self.kept is not None else ""
        wanted = {
            "at_least": "≥ {:.3g}",
            "at_most": "≤ {:.3g}",
            "retention": "keeps {:.3g}",
            "no_worse_than": "no worse than {:.3g} of the live version",
        }[self.condition].format(self.limit)
        mark = "passed" if self.passed else "failed"
        return f"{self.task} {self.value:.3g}{of}, wanted {wanted}: {mark}"

    def as_data(self) -> dict[str, Any]:
        """Return the plain data that a record keeps."""
        return {
            "task": self.task,
            "condition": self.condition,
            "limit": self.limit,
            "value": self.value,
            "best": self.best,
            "passed": self.passed,
            "text": self.text(),
        }


@dataclass(frozen=True, slots=True)
class Case:
    """What is judged: metrics, those of each ingredient alone, those of the live version if any."""

    scale: Scale
    metrics: Metrics
    baselines: Mapping[str, Metrics] = field(default_factory=dict)
    live: Metrics | None = None


def judge(gates: Mapping[str, Gate], case: Case) -> tuple[Verdict, ...]:
    """Return one verdict per condition, by task."""
    return tuple(
        verdict for task, gate in sorted(gates.items()) for verdict in _task(task, gate, case)
    )


def _task(task: str, gate: Gate, case: Case) -> Iterator[Verdict]:
    value = case.scale.value(task, case.metrics)
    if gate.at_least is not None:
        passed = value >= gate.at_least
        yield Verdict(task, "at_least", gate.at_least, value, None, passed)
    if gate.at_most is not None:
        passed = value <= gate.at_most
        yield Verdict(task, "at_most", gate.at_most, value, None, passed)
    if gate.retention is not None:
        own = case.scale.utility(task, case.metrics)
        best = max(case.baselines.values(), key=lambda alone: case.scale.utility(task, alone))
        bound = case.scale.utility(task, best)
        # An ingredient that scores nothing leaves nothing to lose.
        kept = own / bound if bound else 1.0
        passed = kept >= gate.retention - _ROUNDING
        of = case.scale.value(task, best)
        yield Verdict(task, "retention", gate.retention, value, of, passed, kept)
    # Before the first version is live there is nothing to be worse than.
    if gate.no_worse_than is not None and case.live is not None:
        limit = case.scale.value(task, case.live)
        own = case.scale.utility(task, case.metrics)
        passed = own >= case.scale.utility(task, case.live) - _ROUNDING
        yield Verdict(task, "no_worse_than", limit, value, None, passed)

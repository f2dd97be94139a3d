"""Whether a model meets its gates. Pure: metrics, baselines and gates in, verdicts out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from registry.spec import Gate

_ROUNDING = 1e-9
"""0.72 of 0.8 is 0.9, though not in binary64; scores of some prompts are far coarser than this."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One condition of one task: what was asked, what was found. `best` is what retention is of."""

    task: str
    condition: str
    limit: float
    value: float
    best: float | None
    passed: bool

    def text(self) -> str:
        """Return the verdict as a person reads it."""
        kept = self.value
        of = ""
        if self.condition == "retention":
            of = f" (retention {_share(self.value, self.best):.3g})"
        sign = {"at_least": "≥", "at_most": "≤", "retention": "keeps"}[self.condition]
        mark = "passed" if self.passed else "failed"
        return f"{self.task} {kept:.3g}{of}, wanted {sign} {self.limit:.3g}: {mark}"

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


def judge(
    gates: Mapping[str, Gate],
    metrics: Mapping[str, float],
    baselines: Mapping[str, Mapping[str, float]],
) -> tuple[Verdict, ...]:
    """Return one verdict per condition, by task. `baselines`: metrics of each ingredient alone."""
    verdicts = []
    for task, gate in sorted(gates.items()):
        value = metrics[task]
        if gate.at_least is not None:
            passed = value >= gate.at_least
            verdicts.append(Verdict(task, "at_least", gate.at_least, value, None, passed))
        if gate.at_most is not None:
            passed = value <= gate.at_most
            verdicts.append(Verdict(task, "at_most", gate.at_most, value, None, passed))
        if gate.retention is not None:
            best = max(alone[task] for alone in baselines.values())
            passed = _share(value, best) >= gate.retention - _ROUNDING
            verdicts.append(Verdict(task, "retention", gate.retention, value, best, passed))
    return tuple(verdicts)


def _share(value: float, best: float | None) -> float:
    # An ingredient that scores nothing leaves nothing to lose.
    return value / best if best else 1.0

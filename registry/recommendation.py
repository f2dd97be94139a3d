"""Which method to start with, from what the terms are to each other: a table of rules. Pure.

The first rule that applies speaks. A rule is no promise: each names what it rests on, a published
observation or a measurement of this project's own catalog, and its limits (of cosines, conflicts,
numbers of terms) are ours where no source is named for them. Only measuring decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_PARALLEL = 0.9  # above it, a sum of terms mostly counts one direction twice
_ALIKE = 0.5  # more of two terms is shared than is their own
_ONE_TASK = 0.3  # different tasks: mostly below 0.2 (Ilharco et al. 2023, and our own catalog)
_FEW_CONFLICTS = 0.25
_UNEVEN = 2.0  # longest to shortest task vector
_SMALL_CHANGE = 0.005  # root mean square; DARE: fine within 0.002, impractical around 0.03
_LOW_RANK = 64
_MANY = 8  # tasks: the least number that TSV-M was tried on


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rules look at; one entry per term, those that are subtracted last."""

    kinds: tuple[str, ...]
    norms: tuple[float, ...]
    deviations: tuple[float, ...]
    """Root mean square of a term's changes."""
    ranks: tuple[int | None, ...]
    """Rank of an adapter's factors, None where it is not known."""
    cosines: tuple[float, ...]
    """Of all pairs of terms; none for one term."""
    sign_conflict: float
    subtracted: int = 0

    @property
    def count(self) -> int:
        """Return the number of terms."""
        return len(self.kinds)

    @property
    def lowest_cosine(self) -> float:
        """Return the cosine of the pair that is least alike."""
        return min(self.cosines, default=1.0)

    @property
    def highest_cosine(self) -> float:
        """Return the cosine of the pair that is most alike."""
        return max(self.cosines, default=1.0)

    @property
    def unevenness(self) -> float:
        """Return how much longer the longest term is than the shortest."""
        return max(self.norms) / min(self.norms) if min(self.norms) > 0 else 1.0

    def are_all(self, kind: str) -> bool:
        """Return whether all terms are of a kind."""
        return set(self.kinds) == {kind}


Weights = Callable[[Facts], tuple[float, ...]]


def _ones(facts: Facts) -> tuple[float, ...]:
    return (1.0,) * facts.count


def _halves_after_the_first(facts: Facts) -> tuple[float, ...]:
    return (1.0, *(0.5,) * (facts.count - 1))


def _to_one_length(facts: Facts) -> tuple[float, ...]:
    shortest = min(facts.norms)
    return tuple(float(f"{shortest / norm:.2g}") for norm in facts.norms)


def _negative_at_the_end(facts: Facts) -> tuple[float, ...]:
    added = facts.count - facts.subtracted
    return (*(1.0,) * added, *(-0.75,) * facts.subtracted)


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table: when, which method, why, and what that rests on."""

    name: str
    applies: Callable[[Facts], bool]
    method: str
    parameters: Mapping[str, Any]
    weights: Weights
    reason: str
    vary: str
    source: str


@dataclass(frozen=True, slots=True)
class Advice:
    """What to start with; `weights` in the order of the facts, `vary` is what to try next."""

    rule: str
    method: str
    parameters: Mapping[str, Any]
    weights: tuple[float, ...]
    reason: str
    vary: str
    source: str


def recommend(facts: Facts, rules: Sequence[Rule] | None = None) -> Advice:
    """Return the advice of the first rule that applies."""
    rule = next(rule for rule in rules or RULES if rule.applies(facts))
    return Advice(
        rule=rule.name,
        method=rule.method,
        parameters=rule.parameters,
        weights=rule.weights(facts),
        reason=rule.reason,
        vary=rule.vary,
        source=rule.source,
    )


RULES: tuple[Rule, ...] = (
    Rule(
        name="subtract",
        applies=lambda facts: facts.subtracted > 0,
        method="task_arithmetic",
        parameters={"lambda": 1.0},
        weights=_negative_at_the_end,
        reason="a negative weight takes a behaviour away; too much of it takes other skills along, "
        "so watch a control task",
        vary="the negative weight from -0.25 to -1",
        source="Ilharco et al. 2023, arXiv:2212.04089 (forgetting by negation); our catalog: at "
        "-0.75 shouting fell from 0.875 to 0 and facts scored 1, at -1.25 facts were lost",
    ),
    Rule(
        name="one-term",
        applies=lambda facts: facts.count == 1,
        method="task_arithmetic",
        parameters={"lambda": 1.0},
        weights=_ones,
        reason="one term has nothing to get along with: lambda 1 is what was trained, less of it "
        "keeps more of the base",
        vary="lambda from 0.5 to 1.2",
        source="Ilharco et al. 2023, arXiv:2212.04089 (one coefficient, chosen on held-out data)",
    ),
    Rule(
        name="parallel-pair-of-checkpoints",
        applies=lambda facts: (
            facts.count == 2 and facts.are_all("checkpoint") and facts.lowest_cosine > _PARALLEL
        ),
        method="slerp",
        parameters={"t": 0.5},
        weights=_ones,
        reason="the two point the same way, as fine-tunes of one task do: a sum would go twice as "
        "far, the point between them keeps the distance",
        vary="t from 0.3 to 0.7",
        source="Wortsman et al. 2022, arXiv:2203.05482 (averages of fine-tunes of one task)",
    ),
    Rule(
        name="parallel",
        applies=lambda facts: facts.lowest_cosine > _PARALLEL,
        method="linear",
        parameters={},
        weights=_ones,
        reason="the terms point the same way, as fine-tunes of one task do: a sum would go too "
        "far, their average keeps the distance",
        vary="the weights, more for the term that scores best alone",
        source="Wortsman et al. 2022, arXiv:2203.05482 (averages of fine-tunes of one task)",
    ),
    Rule(
        name="checkpoints-of-one-task",
        applies=lambda facts: facts.are_all("checkpoint") and facts.lowest_cosine >= _ONE_TASK,
        method="model_stock",
        parameters={},
        weights=_ones,
        reason="full fine-tunes as alike as these come from one task: their angle says how far "
        "the average lies from the centre that they scatter around",
        vary="granularity tensor or row; linear beside it",
        source="Jang et al. 2024, arXiv:2403.19522 (two fine-tunes against soups of many)",
    ),
    Rule(
        name="alike",
        applies=lambda facts: facts.lowest_cosine >= _ALIKE,
        method="linear",
        parameters={},
        weights=_ones,
        reason="the terms share most of their direction, as versions of one skill do: a sum would "
        "count what they share once per term",
        vary="the weights, more for the term that scores best alone",
        source="Wortsman et al. 2022, arXiv:2203.05482 (averages of fine-tunes of one task)",
    ),
    Rule(
        name="uneven",
        applies=lambda facts: facts.unevenness >= _UNEVEN,
        method="task_arithmetic",
        parameters={"lambda": 0.8},
        weights=_to_one_length,
        reason="one term moves the base much further than another and would drown it: the weights "
        "bring all to the length of the shortest",
        vary="lambda from 0.5 to 1.2, then the weight of what scores too low",
        source="Si et al. 2025, arXiv:2505.16148 (coefficients by the inverse of a norm)",
    ),
    Rule(
        name="few-conflicts",
        applies=lambda facts: (
            facts.sign_conflict < _FEW_CONFLICTS and facts.highest_cosine < _ONE_TASK
        ),
        method="task_arithmetic",
        parameters={"lambda": 0.8},
        weights=_ones,
        reason="the terms rarely pull one element both ways, so their sum leaves each nearly whole",
        vary="lambda from 0.5 to 1.2",
        source="Ilharco et al. 2023, arXiv:2212.04089 (task vectors of different tasks are "
        "nearly orthogonal, and add up)",
    ),
    Rule(
        name="two-terms",
        applies=lambda facts: facts.count == 2,
        method="task_arithmetic",
        parameters={"lambda": 1.0},
        weights=_halves_after_the_first,
        reason="two terms get into each other's way: unequal weights decide more than the method; "
        "the term named first is taken as the one that matters most",
        vary="the second weight from 0.3 to 0.8, and the other way round",
        source="our catalog: sql 1 + json 0.5 scores 0.875 and 0.75 on its suite, equal weights "
        "0.625 and 0.75, TIES at density 0.5 the same, tsv_m 0.75 and 0.875",
    ),
    Rule(
        name="many-checkpoints",
        applies=lambda facts: facts.are_all("checkpoint") and facts.count >= _MANY,
        method="tsv_m",
        parameters={"lambda": 1.0},
        weights=_ones,
        reason="many full fine-tunes of different tasks: each keeps its strongest singular "
        "directions, made orthogonal to those of the others",
        vary="lambda from 0.5 to 1.2",
        source="Gargiulo et al. 2025, arXiv:2412.00081 (8 to 20 tasks, on image encoders only)",
    ),
    Rule(
        name="redundant-checkpoints",
        applies=lambda facts: (
            facts.are_all("checkpoint") and max(facts.deviations) <= _SMALL_CHANGE
        ),
        method="dare_ties",
        parameters={"density": 0.1},
        weights=_ones,
        reason="several full fine-tunes with small changes: most of these are redundant, and after "
        "dropping nine of ten at random few of the rest meet",
        vary="density from 0.01 to 0.2",
        source="Yu et al. 2024, arXiv:2311.03099 (90 % and more can be dropped where changes are "
        "small, not where they are large)",
    ),
    Rule(
        name="low-rank-adapters",
        applies=lambda facts: (
            facts.are_all("adapter") and all(rank and rank <= _LOW_RANK for rank in facts.ranks)
        ),
        method="tsv_m",
        parameters={"lambda": 1.0},
        weights=_ones,
        reason="several adapters of low rank whose signs conflict: each is a few singular "
        "directions, which are made orthogonal to those of the others and all kept",
        vary="lambda from 0.5 to 1.2; knots and unequal weights in task_arithmetic beside it",
        source="Gargiulo et al. 2025, arXiv:2412.00081 (on image encoders only); our catalog: sql "
        "and json at equal weights score 0.75 and 0.875, TIES 0.625 and 0.75, knots at density "
        "0.5 0.375 and 0.75",
    ),
    Rule(
        name="conflicts",
        applies=lambda facts: True,  # noqa: ARG005 the last rule
        method="ties",
        parameters={"density": 0.2},
        weights=_ones,
        reason="several terms whose signs conflict: small changes go, and each element follows the "
        "sign that weighs more",
        vary="density from 0.1 to 0.5; unequal weights in task_arithmetic beside it",
        source="Yadav et al. 2023, arXiv:2306.01708 (interference of signs grows with the tasks)",
    ),
)

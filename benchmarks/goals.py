"""What was measured against what was promised: rows of the table, computed from samples alone.

A goal is judged by medians. "Without import torch" is the median of whole workers minus that of
`python -c 'import torch'` in the same run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks import commands, merges, sharing
from benchmarks.measure import Sample, Spread, spread
from benchmarks.merges import CASES, REAL, Case, every_method
from benchmarks.models import MOST_LAYERS, Shape, name_of, shape_of
from benchmarks.parts import DENSE, LAYERS, SCALED, key_of
from benchmarks.session import Results

MOST_PEAK_BYTES = 1.2e9
FLAT = 1.1
"""Largest ratio of two peaks that counts as flat: allocators round up."""

_SYNC_CPU_SECONDS = {100: 0.25, 1_000: 0.32, 10_000: 0.8, 100_000: 4.0}
_PLAN_CPU_SECONDS = 1.0
_REVIEW_CPU_SECONDS = 2.0
_VALIDATE_WALL_SECONDS = 0.0012
_DVC_TIMES, _DVC_AT = 30, 1_000
_REAL_SECONDS = 2.0
# Tokenizer, card, recipe, records, MLflow's database: what is written beside tensors.
_BESIDE_TENSORS_BYTES = 5e6
_SHARES = {
    "ties": 12,
    "dare_ties": 12,
    "ties-adapters": 12,
    "linear": 3,
    "task_arithmetic": 3,
}
_FLOOR_TIMES = 2


@dataclass(frozen=True, slots=True)
class Cost:
    """Medians and spread of some runs of one program."""

    cpu: Spread
    wall: Spread
    peak: Spread


@dataclass(frozen=True, slots=True)
class Check:
    """One promise: what was to be reached, what was found, and whether that is enough.

    None is no judgement: the promise is of another size.
    """

    goal: str
    found: str
    is_met: bool | None


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what, what it cost here and at a peer, which promises it meets."""

    title: str
    ours: Cost
    peer_name: str = ""
    peer: Cost | None = None
    checks: tuple[Check, ...] = ()


def cost(samples: Sequence[Sample]) -> Cost:
    """Return the medians of one sample or more."""
    return Cost(
        spread([one.cpu_seconds for one in samples]),
        spread([one.wall_seconds for one in samples]),
        spread([one.peak_bytes for one in samples]),
    )


def rows(results: Results) -> list[Row]:
    """Return a row for everything that was measured, in the order of the page."""
    return [*_merges(results), *_real(results), *_memory(results), *_commands(results)]


def at_most(limit: float, found: float, unit: str) -> Check:
    """Return the check of a number against its largest value."""
    text = f"{found:.3g}" if found < 1000 else f"{found:.0f}"
    return Check(f"≤ {limit:g} {unit}", f"{text} {unit}", found <= limit)


def share_of(peer: str, share: int, ours: Cost, theirs: Cost) -> Check:
    """Return the check that CPU and wall seconds are at most a share of a peer's."""
    found = theirs.cpu.median / ours.cpu.median, theirs.wall.median / ours.wall.median
    text = f"1/{found[0]:.3g} CPU, 1/{found[1]:.3g} wall"
    return Check(f"≤ 1/{share} of {peer}", text, min(found) >= share)


def without(ours: Cost, start: Cost) -> tuple[float, float]:
    """Return median CPU and wall seconds less those of a start that every run contains."""
    return ours.cpu.median - start.cpu.median, ours.wall.median - start.wall.median


def floor_check(ours: Cost, start: Cost, floor: Cost) -> Check:
    """Return the check that a merge without its start costs at most so many times the floor."""
    cpu, wall = without(ours, start)
    found = cpu / floor.cpu.median, wall / floor.wall.median
    text = f"{found[0]:.2f} × CPU, {found[1]:.2f} × wall"
    return Check(f"≤ {_FLOOR_TIMES} × the floor", text, max(found) <= _FLOOR_TIMES)


def _merges(results: Results) -> Iterator[Row]:
    shape = shape_of(results.facts["size"])
    start = results.of("import-torch")
    for case in CASES:
        ours = results.of(key_of(shape, case.key))
        if ours:
            alone = Row(f"{case.title}, {name_of(shape)}", cost(ours))
            first, *others = list(_beside_peers(results, shape, case, cost(ours))) or [alone]
            yield replace(first, checks=(*first.checks, _peak_check(ours)))
            yield from others
    if copied := results.of(key_of(shape, "cp")):
        yield Row(f"cp of the base, {name_of(shape)}", cost(copied))
    if start:
        yield Row("python -c 'import torch'", cost(start))


def _beside_peers(results: Results, shape: Shape, case: Case, mine: Cost) -> Iterator[Row]:
    title = f"{case.title}, {name_of(shape)}"
    if theirs := results.of(key_of(shape, case.key, "mergekit")):
        check = share_of("mergekit", _SHARES[case.key], mine, cost(theirs))
        yield Row(title, mine, "mergekit", cost(theirs), (_judged(check, shape),))
    if floor := results.of(key_of(shape, case.key, "floor")):
        least, start = cost(floor), cost(results.of("import-torch"))
        check = floor_check(mine, start, least)
        yield Row(title, mine, "the floor", least, (_judged(check, shape),))
    if peft := results.of(key_of(shape, case.key, "peft")):
        yield Row(title, mine, "PEFT, on factors", cost(peft))


def _judged(check: Check, shape: Shape) -> Check:
    return check if shape.layers == MOST_LAYERS else replace(check, is_met=None)


def _real(results: Results) -> Iterator[Row]:
    if ours := results.of("real/ours"):
        mine = cost(ours)
        cpu, wall = without(mine, cost(results.of("import-torch")))
        checks = (
            at_most(_REAL_SECONDS, cpu, "CPU s without import torch"),
            at_most(_REAL_SECONDS, wall, "s without import torch"),
        )
        title = f"{REAL.title}, real base of 135M"
        yield Row(title, mine, checks=checks)
        for name in ("mergekit", "peft"):
            if theirs := results.of(f"real/{name}"):
                peer = "PEFT, on factors" if name == "peft" else name
                yield Row(title, mine, peer, cost(theirs))
    if second := results.of(sharing.KEY):
        written = spread([one.written_bytes for one in second]).median
        touched = second[0].told["touched_bytes"]
        whole = second[0].told["whole_bytes"]
        found = f"{written / 1e6:.0f} MB; {touched / 1e6:.0f} of {whole / 1e6:.0f} MB are touched"
        is_met = written <= touched + _BESIDE_TENSORS_BYTES
        check = Check("writes only touched bytes", found, is_met)
        yield Row("sync of a second merge, same targets, 135M", cost(second), checks=(check,))


def _memory(results: Results) -> Iterator[Row]:
    shape = shape_of(results.facts["size"])
    known = {case.key for case in CASES}
    for case in every_method():
        if (ours := results.of(key_of(shape, case.key))) and case.key not in known:
            kind = "adapters" if case.terms[0].startswith("ad") else "fine-tunes"
            title = f"{case.key} of {len(case.terms)} {kind}, {name_of(shape)}"
            yield Row(title, cost(ours), checks=(_peak_check(ours),))
    if ours := results.of(key_of(DENSE, merges.DENSE.key)):
        title = f"{merges.DENSE.title}, {name_of(DENSE)}"
        yield Row(title, cost(ours), checks=(_peak_check(ours),))
    for case in SCALED:
        found = peaks_by_layers(results, case.key)
        if len(found) > 1:
            peaks = list(found.values())
            text = ", ".join(f"{peak / 1e6:.0f} MB at {n}" for n, peak in found.items())
            check = Check("flat in layers", text, max(peaks) <= FLAT * min(peaks))
            full = results.of(key_of(Shape(max(found)), case.key))
            yield Row(f"{case.title}, by layers", cost(full), checks=(check,))


def _peak_check(samples: Sequence[Sample]) -> Check:
    peak = max(one.peak_bytes for one in samples)
    return at_most(MOST_PEAK_BYTES / 1e6, peak / 1e6, "MB")


def peaks_by_layers(results: Results, case: str) -> dict[int, float]:
    """Return the median peak of a case by the number of layers, all of one width."""
    found = {}
    for layers in (*LAYERS, MOST_LAYERS):
        if samples := results.of(key_of(Shape(layers), case)):
            found[layers] = cost(samples).peak.median
    return found


def _commands(results: Results) -> Iterator[Row]:
    for count in commands.COUNTS:
        dvc = results.of(f"dvc/{count}")
        if synced := results.of(f"sync/{count}"):
            mine = cost(synced)
            checks = [at_most(_SYNC_CPU_SECONDS[count], mine.cpu.median, "CPU s")]
            title = f"sync with nothing to do, {count:,} models"
            if not dvc:
                yield Row(title, mine, checks=tuple(checks))
                continue
            theirs = cost(dvc)
            if count == _DVC_AT:
                times = theirs.cpu.median / mine.cpu.median
                goal = f"≥ {_DVC_TIMES} times less than dvc status"
                checks.append(Check(goal, f"{times:.1f} times", times >= _DVC_TIMES))
            yield Row(title, mine, "dvc status", theirs, tuple(checks))
    yield from _others(results)


def _others(results: Results) -> Iterator[Row]:
    for key, title, goal in (
        ("plan", "plan after one edit", _PLAN_CPU_SECONDS),
        ("review", "plan --against of one edit in a fresh clone", _REVIEW_CPU_SECONDS),
    ):
        for count in commands.COUNTS:
            if planned := results.of(f"{key}/{count}"):
                mine = cost(planned)
                check = at_most(goal, mine.cpu.median, "CPU s")
                checks = (check,) if count == commands.EDITED else ()
                yield Row(f"{title}, {count:,} models", mine, checks=checks)
    for count in commands.COUNTS:
        if validated := results.of(f"validate/{count}"):
            mine = cost(validated)
            each = mine.wall.median / count
            check = at_most(_VALIDATE_WALL_SECONDS * 1000, each * 1000, "ms wall per spec")
            checks = (check,) if count >= commands.EDITED else ()
            yield Row(f"cold validate, {count:,} models", mine, checks=checks)

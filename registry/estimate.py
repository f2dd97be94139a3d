"""What builds will read, write and take: from the sizes of their inputs, and from builds before.

Pure. An estimate is left out, never guessed, where nothing is known to go by.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from registry.record import Built, input_label
from registry.request import Declaration, is_adapter

Request = Mapping[str, Any]
Sizes = Mapping[str, int]
"""Bytes of the weights of an ingredient, or of a merge as built, by label: `adapter sql@1`."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes that a build reads and writes, seconds and bytes of memory it takes; None if unknown.

    `builds` is how many builds before it the last two are taken from.
    """

    reads: int | None = None
    writes: int | None = None
    seconds: float | None = None
    memory: int | None = None
    builds: int = 0


def estimates(
    declared: Iterable[Declaration], sizes: Sizes, before: Sequence[Built]
) -> dict[str, Estimate]:
    """Return the estimate of every model; `declared` has each after those that it is made of."""
    known = dict(sizes)
    found = {}
    for one in declared:
        found[one.model] = made = _estimate(one.request, known, before)
        if made.writes is not None:
            known.setdefault(f"merge {one.model}", made.writes)
    return found


def _estimate(request: Request, sizes: Sizes, before: Sequence[Built]) -> Estimate:
    reads = _reads(request, sizes)
    alike = [one for one in before if one.request["base"]["digest"] == request["base"]["digest"]]
    method = request["recipe"]["method"]
    # A method of which no build is known is measured by the others: the order of size is right.
    timed = [
        (one, size)
        for one in alike
        if one.seconds and (size := _reads(one.request, sizes)) is not None
    ]
    timed = [pair for pair in timed if pair[0].request["recipe"]["method"] == method] or timed
    writes = _writes(request, sizes, alike)
    if reads is None or not timed:
        return Estimate(reads, writes)
    return Estimate(
        reads,
        writes,
        seconds=reads * median(one.seconds / size for one, size in timed),
        memory=round(median(one.peak_bytes for one, _ in timed)),
        builds=len(timed),
    )


def _reads(request: Request, sizes: Sizes) -> int | None:
    sources = [request["base"], *(term["input"] for term in request["recipe"]["terms"])]
    labels = {input_label(source) for source in sources}
    return sum(sizes[one] for one in labels) if labels <= sizes.keys() else None


def _writes(request: Request, sizes: Sizes, alike: Iterable[Built]) -> int | None:
    """Return what equal output of the same base had, or the size of the base it is one for one."""
    made = [
        sum(int(file["size"]) for file in one.artifact["files"].values())
        for one in alike
        if one.request["output"] == request["output"] and not is_adapter(request)
    ]
    if made:
        return round(median(made))
    keeps_types = request["output"].get("dtype") == "base" and not request["recipe"].get("slices")
    return sizes.get(input_label(request["base"])) if keeps_types else None


def total(values: Collection[Estimate], figure: Callable[[Estimate], float | None]) -> float | None:
    """Return the sum of a figure, None if it is unknown of one of them."""
    numbers = [figure(one) for one in values]
    known = [number for number in numbers if number is not None]
    return sum(known) if values and len(known) == len(numbers) else None

"""What an adapter will hold, known before a factor is computed: tensors, ranks, what is refused.

Knows shapes and ranks, computes only what must be zero. A LoRA adapter holds matrices of linear
modules and nothing else; a delta anywhere else stops the build, since leaving it out would be
another model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

import schemas
from merger.checkpoint import Model
from merger.errors import InputError
from merger.methods.bound import Additive, Method
from merger.pools import Lane
from merger.request import BuildRequest
from merger.statistics import TensorTally
from merger.task_vector import Delta
from merger.tensor_merge import Merging
from schemas.lora_base import describe
from schemas.schedule import is_embedding

_WEIGHT = ".weight"


@dataclass(frozen=True, slots=True)
class Slot:
    """One tensor of the base that the adapter changes.

    `module` is the running model's name of the module that it is the weight of. `rank` is that of
    its factors, `full` that at which nothing is cut off. `coefficients` by term where factors are
    concatenated (a term with coefficient 0 is left out), None for an SVD.
    """

    name: str
    module: str
    rank: int
    full: int
    size: int
    coefficients: Mapping[int, float] | None

    @property
    def is_exact(self) -> bool:
        """Whether nothing is cut off."""
        return self.rank == self.full


@dataclass(frozen=True, slots=True)
class Plan:
    """All slots in byte order of tensors, the rank of all, and the touched tensors of no delta."""

    slots: tuple[Slot, ...]
    rank: int
    zero: Mapping[str, TensorTally]


def plan_slots(request: BuildRequest, merging: Merging, lane: Lane) -> Plan:
    """Return the plan of a request.

    Raises InputError for a delta that LoRA cannot hold, or that is inexact without `output.rank`.
    """
    touched = merging.vectors.touched
    packed = _packed(merging.base)
    reasons = {name: _why_not(name, merging, packed) for name in touched}
    others = [name for name in touched if reasons[name]]
    held = [name for name in touched if not reasons[name]]
    slots = tuple(lane.pool.map(lambda name: _slot(name, request, merging), held))
    tallies = lane.pool.map(lambda name: _zero(name, merging, reasons[name]), others)
    zero = dict(zip(others, tallies, strict=True))
    if not slots:
        why = "expected at least one matrix of a linear module in a term, found none"
        raise InputError(why, field="output.form")
    return Plan(slots, max(1, *(slot.rank for slot in slots)), zero)


def _packed(base: Model) -> frozenset[str]:
    """Return the matrices of experts that a running model packs into one parameter of a layer."""
    pieces = describe(base.tensors, {}).pieces.values()  # names and shapes alone tell them
    return frozenset(piece.name for parts in pieces for piece in parts)


def _why_not(name: str, merging: Merging, packed: frozenset[str]) -> str:
    """Return why LoRA cannot hold a tensor; nothing if it can, as far as name and shape tell."""
    dimensions = len(merging.vectors.shapes[name])
    if merging.vectors.elements(name) == 0:
        return "a tensor without elements"
    if dimensions != 2:
        return f"a tensor of {dimensions} dimension{'' if dimensions == 1 else 's'}"
    if not name.endswith(_WEIGHT):
        return f"a tensor that is no module's {_WEIGHT.removeprefix('.')}"
    if name in packed:
        return "an expert, which transformers packs with others into one parameter"
    return "an embedding" if is_embedding(name) else ""


def _zero(name: str, merging: Merging, reason: str) -> TensorTally:
    """Return the figures of a delta that must be zero."""

    def refuse(_block: object, delta: torch.Tensor) -> None:
        if bool(torch.count_nonzero(delta)):
            why = (
                f"the merge changes {reason}, and a LoRA adapter holds only"
                " matrices of linear modules; build it as a model"
            )
            raise InputError(why, tensor=name, field="output.form")

    return merging.each_block(name, refuse)


def _slot(name: str, request: BuildRequest, merging: Merging) -> Slot:
    shape = merging.vectors.shapes[name]
    deltas = merging.vectors.deltas(name)
    coefficients = _linear(name, merging.method, request)
    inexact = _why_inexact(coefficients, deltas, merging, request)
    wanted = request.output.rank
    if inexact and wanted is None:
        raise InputError(f"expected a rank: {inexact}", tensor=name, field="output.rank")
    full = min(shape)
    used = None
    if coefficients and not inexact:
        used = {term: coefficients[term] for term in deltas if coefficients[term] != 0}
        full = min(full, sum(_rank(deltas[term]) for term in used))
    rank = full if wanted is None else min(full, wanted)
    size = sum(shape) * rank * 4
    module = merging.vectors.module(name)
    return Slot(name, module, rank, full, size, used)


def _linear(name: str, method: Method, request: BuildRequest) -> tuple[float, ...] | None:
    # A package's method stands in no table of ours: whatever it computes is a delta to be cut.
    is_linear = schemas.methods().get(request.recipe.method, {}).get("x-linear", False)
    return method.coefficients(name) if is_linear and isinstance(method, Additive) else None


def _why_inexact(
    coefficients: tuple[float, ...] | None,
    deltas: Mapping[int, Delta],
    merging: Merging,
    request: BuildRequest,
) -> str:
    """Return why the factors of a tensor cannot be concatenated; nothing if they can."""
    if coefficients is None:
        return f"{request.recipe.method} is not linear, so no adapter holds its result exactly"
    whole = [merging.vectors.label(term) for term, d in deltas.items() if d.factors() is None]
    return f"{whole[0]} changes this tensor by more than a product of factors" if whole else ""


def _rank(delta: Delta) -> int:
    factors = delta.factors()
    return 0 if factors is None else factors[0].shape[1]

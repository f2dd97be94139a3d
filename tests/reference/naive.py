"""The methods once more, as plainly as numpy allows: whole models in float64, one element at a time.

Written from the definitions without a look at the merger, to be held against it. Slow on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Model = Mapping[str, Array]


def task_vector_of_adapter(
    factors: Mapping[str, npt.NDArray[np.float32]], scale: float
) -> dict[str, Array]:
    """Return s·B·A by base tensor."""
    found = {}
    for name, a in factors.items():
        if ".lora_A." in name:
            b = factors[name.replace(".lora_A.", ".lora_B.")]
            module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            found[f"{module}.weight"] = (b.astype(np.float64) * scale) @ a.astype(np.float64)
    return found


def task_vector_of_model(
    model: Mapping[str, npt.NDArray[np.float32]], base: Mapping[str, npt.NDArray[np.float32]]
) -> dict[str, Array]:
    """Return model - base."""
    return {name: model[name].astype(np.float64) - base[name].astype(np.float64) for name in base}


def linear(vectors: Sequence[Model], weights: Sequence[float]) -> dict[str, Array]:
    """Return Σ wτ / Σ w."""
    return task_arithmetic(vectors, [weight / math.fsum(weights) for weight in weights])


def task_arithmetic(
    vectors: Sequence[Model], weights: Sequence[float], lambda_: float = 1.0
) -> dict[str, Array]:
    """Return λ Σ wτ."""
    result: dict[str, Array] = {}
    for vector, weight in zip(vectors, weights, strict=True):
        for name, tau in vector.items():
            result[name] = result.get(name, np.zeros_like(tau)) + lambda_ * weight * tau
    return result


def trim_flat(flat: Array, density: float) -> Array:
    """Keep exactly max(1, ⌊density·n⌋) elements by magnitude, lowest index first among equals."""
    keep = max(1, math.floor(density * len(flat)))
    order = sorted(range(len(flat)), key=lambda index: (-abs(flat[index]), index))
    trimmed = np.zeros_like(flat)
    for index in order[:keep]:
        trimmed[index] = flat[index]
    return trimmed


def trim_model(vector: Model, density: float, scope: str) -> dict[str, Array]:
    """Trim each tensor by itself, or all of them as one vector in byte order of the names."""
    if scope == "tensor":
        return {
            name: trim_flat(tau.ravel(), density).reshape(tau.shape) for name, tau in vector.items()
        }
    names = sorted(vector)
    flat = trim_flat(np.concatenate([vector[name].ravel() for name in names]), density)
    result, position = {}, 0
    for name in names:
        size = vector[name].size
        result[name] = flat[position : position + size].reshape(vector[name].shape)
        position += size
    return result


def ties(
    vectors: Sequence[Model],
    weights: Sequence[float],
    densities: Sequence[float],
    parameters: Mapping[str, Any],
) -> dict[str, Array]:
    """Return λ times the disjoint merge of the trimmed, weighted task vectors."""
    scope = parameters.get("scope", "tensor")
    is_weighted = not parameters["election"].startswith("unweighted")
    trimmed = [
        trim_model(vector, density, scope)
        for vector, density in zip(vectors, densities, strict=True)
    ]
    names = sorted({name for vector in vectors for name in vector})
    # Of each element: what votes, what is added, the weight.
    columns = {
        name: [
            [(weight * value if is_weighted else value, weight * value, weight) for value in flat]
            for vector, weight in zip(trimmed, weights, strict=True)
            for flat in ([vector[name].ravel()] if name in vector else [])
        ]
        for name in names
    }
    shapes = {name: tau.shape for vector in vectors for name, tau in vector.items()}
    signs = {
        name: [_sign(_votes(values), parameters["election"]) for values in zip(*rows, strict=True)]
        for name, rows in columns.items()
    }
    whole = sum(sum(row) for row in signs.values())
    result = {}
    for name in names:
        majority = whole if scope == "model" else sum(signs[name])
        merged = [
            _merge(
                values,
                sign or _tie(_votes(values), parameters["tie"], majority),
                parameters,
                len(weights),
            )
            for values, sign in zip(zip(*columns[name], strict=True), signs[name], strict=True)
        ]
        result[name] = parameters["lambda"] * np.array(merged).reshape(shapes[name])
    return result


Ballot = tuple[float, float, float]
"""What votes, what is added, the weight."""


def _votes(values: Sequence[Ballot]) -> list[float]:
    return [vote for vote, _, _ in values]


def _sign(values: Sequence[float], election: str) -> int:
    if election.endswith("frequency"):
        return int(np.sign(sum(np.sign(value) for value in values)))
    positive = math.fsum(value for value in values if value > 0)
    negative = math.fsum(value for value in values if value < 0)
    return int(np.sign(positive + negative))


def _tie(values: Sequence[float], tie: str, majority: float) -> int:
    if tie == "zero":
        return 0
    if tie == "majority":
        return -1 if majority < 0 else 1
    if tie == "largest":
        return -1 if -min(values) > max(values) else 1
    return 1


def _merge(values: Sequence[Ballot], sign: int, parameters: Mapping[str, Any], terms: int) -> float:
    agreeing = [(value, weight) for vote, value, weight in values if vote * sign > 0]
    if not agreeing or len(agreeing) / terms < parameters["min_agreement"]:
        return 0.0
    if parameters["combine"] == "max":
        return max((value for value, _ in agreeing), key=lambda value: (abs(value), value))
    total = math.fsum(value for value, _ in agreeing)
    if parameters["combine"] == "weighted_mean":
        divisor = math.fsum(weight for _, weight in agreeing)
        return total / divisor if divisor else 0.0
    return total if parameters["combine"] == "sum" else total / len(agreeing)

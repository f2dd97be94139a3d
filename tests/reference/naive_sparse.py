"""DARE, DELLA, Breadcrumbs, SCE and consensus as plainly as Python allows; see `naive`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tests.reference import naive
from tests.reference.naive import Array, Model
from tests.reference.philox import key_of, word


def drop(
    vector: Model, digest: str, seed: int, density: float, parameters: Mapping[str, Any]
) -> dict[str, Array]:
    """Return the task vector of the operand with this digest after DARE, or DELLA if it has ε."""
    found = {}
    for name, tau in vector.items():
        key = key_of(seed, digest, name)
        chances = probabilities(tau, density, parameters.get("epsilon", 0.0))
        flat = [
            value * (word(key, index) < round(chance * 2**32))
            for index, (value, chance) in enumerate(zip(tau.ravel(), chances, strict=True))
        ]
        if parameters["rescale"]:
            flat = [value / chance for value, chance in zip(flat, chances, strict=True)]
        found[name] = np.array(flat).reshape(tau.shape)
    return found


def probabilities(tau: Array, density: float, epsilon: float) -> list[float]:
    """Return density - ε for the smallest to density + ε for the largest of each row."""
    rows = tau.reshape(tau.shape[0], -1) if tau.ndim > 1 else tau.reshape(1, -1)
    found: list[float] = []
    for row in rows:
        order = sorted(range(len(row)), key=lambda index: (abs(row[index]), index))
        steps = len(row) - 1
        chances = [density] * len(row)
        for rank, index in enumerate(order):
            if steps:
                chances[index] = density + epsilon * (2 * rank / steps - 1)
        found += chances
    return found


def crumbs(vector: Model, density: float, gamma: float) -> dict[str, Array]:
    """Return the task vector without the ⌊gamma·n⌋ largest and all but the next ⌊density·n⌋."""
    found = {}
    for name, tau in vector.items():
        flat = tau.ravel()
        order = sorted(range(len(flat)), key=lambda index: (-abs(flat[index]), index))
        keep = max(1, math.floor(density * len(flat)))
        removed = min(math.floor(gamma * len(flat)), len(flat) - keep)
        left = np.zeros_like(flat)
        for index in order[removed : removed + keep]:
            left[index] = flat[index]
        found[name] = left.reshape(tau.shape)
    return found


def combine(
    vectors: Sequence[Model], weights: Sequence[float], parameters: Mapping[str, Any]
) -> dict[str, Array]:
    """Return TIES or the weighted sum of task vectors that are sparse already."""
    if "election" in parameters:
        shares = [parameters.get("trim_density", 1.0)] * len(vectors)
        return naive.ties(vectors, weights, shares, parameters)
    divisor = math.fsum(weights) if parameters["normalize"] else 1.0
    shared = [weight / divisor for weight in weights]
    return naive.task_arithmetic(vectors, shared, parameters["lambda"])


def sce(vectors: Sequence[Model], density: float, lambda_: float) -> dict[str, Array]:
    """Return λ times the weighted mean over the terms that agree, of the selected elements."""
    result = {}
    for name in sorted({name for vector in vectors for name in vector}):
        shape = next(vector[name].shape for vector in vectors if name in vector)
        zero = np.zeros(shape)
        rows = np.array([vector.get(name, zero).ravel() for vector in vectors])
        variance = ((rows - rows.mean(axis=0)) ** 2).mean(axis=0)
        if density < 1:
            rows = rows * (naive.trim_flat(variance, density) != 0)
        squares = (rows**2).mean(axis=1)
        merged = []
        for column in rows.T:
            sign = 1 if column.sum() >= 0 else -1
            agreeing = [
                (value, weight)
                for value, weight in zip(column, squares, strict=True)
                if value * sign > 0
            ]
            whole = math.fsum(weight for _, weight in agreeing)
            total = math.fsum(value * weight for value, weight in agreeing)
            merged.append(total / whole if whole else 0.0)
        result[name] = lambda_ * np.array(merged).reshape(shape)
    return result


def consensus(
    vectors: Sequence[Model],
    weights: Sequence[float],
    mask_lambda: float,
    min_terms: int,
    lambda_: float,
) -> dict[str, Array]:
    """Return λ times the weighted sum where enough terms outweigh the others."""
    result = {}
    for name in sorted({name for vector in vectors for name in vector}):
        shape = next(vector[name].shape for vector in vectors if name in vector)
        zero = np.zeros(shape)
        pairs = zip(vectors, weights, strict=True)
        values = [weight * vector.get(name, zero) for vector, weight in pairs]
        whole = sum(values)
        masks = [abs(value) >= mask_lambda * abs(whole - value) for value in values]
        result[name] = lambda_ * whole * (sum(mask.astype(int) for mask in masks) >= min_terms)
    return result

"""Make tests/reference/mergekit.json: what mergekit 0.1.5 makes of small random tensors.

Run in an environment of its own, because mergekit pins its own versions:

    python -m venv .venv-mergekit
    .venv-mergekit/bin/pip install mergekit==0.1.5
    .venv-mergekit/bin/python tests/reference/make_mergekit.py

`ours` in each case is the same recipe in our parameters; where mergekit means something else by a
name, the case says so.
"""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from mergekit.merge_methods import get
from mergekit.merge_methods.api import merge_tensors
from mergekit.merge_methods.generalized_task_arithmetic import (
    ConsensusMethod,
    GeneralizedTaskArithmeticMerge,
)
from mergekit.sparsify import SparsificationMethod

SHAPE = (6, 10)
BY_COUNT = GeneralizedTaskArithmeticMerge(
    consensus_method=ConsensusMethod.count,
    sparsification_method=SparsificationMethod.magnitude,
    default_normalize=False,
    default_rescale=False,
    method_name="ties_by_count",
    method_pretty_name=None,
    method_reference_url=None,
)
POSITIVE = [1.0, 2.0, 0.5]
SIGNED = [1.0, -0.5, 0.3]
ONES = [1.0, 1.0, 1.0]

CASES: list[dict[str, Any]] = [
    {"name": "linear", "method": "linear", "weights": POSITIVE, "parameters": {}, "ours": {}},
    {
        "name": "task arithmetic with a negative weight",
        "method": "task_arithmetic",
        "weights": SIGNED,
        "parameters": {"lambda": 0.7},
        "ours": {"lambda": 0.7},
    },
    {
        "name": "task arithmetic, normalised",
        "method": "task_arithmetic",
        "weights": POSITIVE,
        "parameters": {"normalize": True},
        "ours": {"normalize": True},
    },
    {
        "name": "ties: without normalize it sums what we would call combine sum",
        "method": "ties",
        "weights": SIGNED,
        "parameters": {"density": 0.4, "normalize": False, "lambda": 0.9},
        "ours": {"density": 0.4, "combine": "sum", "lambda": 0.9},
    },
    {
        "name": "ties: with equal weights its normalize is our mean",
        "method": "ties",
        "weights": ONES,
        "parameters": {"density": 0.25, "normalize": True},
        "ours": {"density": 0.25, "combine": "mean"},
    },
    {
        "name": "ties without trimming",
        "method": "ties",
        "weights": ONES,
        "parameters": {"density": 1.0, "normalize": True},
        "ours": {"density": 1.0, "combine": "mean"},
    },
    {
        "name": "ties, signs elected by count",
        "method": "ties_by_count",
        "weights": SIGNED,
        "parameters": {"density": 0.5, "normalize": False},
        "ours": {"density": 0.5, "combine": "sum", "election": "frequency"},
    },
    {
        "name": "ties: with any weights its normalize is our weighted mean",
        "method": "ties",
        "weights": POSITIVE,
        "parameters": {"density": 0.6, "normalize": True, "lambda": 1.1},
        "ours": {"density": 0.6, "combine": "weighted_mean", "lambda": 1.1},
    },
    {
        "name": "breadcrumbs, where it removes at least one outlier",
        "method": "breadcrumbs",
        "weights": SIGNED,
        "parameters": {"density": 0.5, "gamma": 0.1, "lambda": 0.7},
        "ours": {"density": 0.5, "gamma": 0.1, "lambda": 0.7},
    },
    {
        "name": "breadcrumbs, normalised",
        "method": "breadcrumbs",
        "weights": POSITIVE,
        "parameters": {"density": 0.9, "gamma": 0.05, "normalize": True},
        "ours": {"density": 0.9, "gamma": 0.05, "normalize": True},
    },
    {
        "name": "breadcrumbs with election",
        "method": "breadcrumbs_ties",
        "weights": SIGNED,
        "parameters": {"density": 0.5, "gamma": 0.1},
        "ours": {"density": 0.5, "gamma": 0.1, "combine": "sum"},
    },
    {"name": "sce", "method": "sce", "weights": ONES, "parameters": {}, "ours": {}},
    {
        "name": "sce of half the elements, none of variance 0",
        "method": "sce",
        "weights": ONES,
        "parameters": {"select_topk": 0.5},
        "ours": {"density": 0.5},
    },
]


def main() -> None:
    """Write the reference beside this script."""
    generator = torch.Generator().manual_seed(20261121)
    base, *models = (torch.randn(SHAPE, generator=generator) for _ in range(4))
    models = [base + 0.3 * model for model in models]
    cases = [{**case, "expected": _merge(case, base, models).tolist()} for case in CASES]
    data = {
        "versions": {name: metadata.version(name) for name in ("mergekit", "torch")},
        "base": base.tolist(),
        "models": [model.tolist() for model in models],
        "cases": cases,
    }
    path = Path(__file__).with_name("mergekit.json")
    path.write_text(json.dumps(data, indent=1) + "\n", "utf-8")


def _merge(case: dict[str, Any], base: torch.Tensor, models: list[torch.Tensor]) -> torch.Tensor:
    method = BY_COUNT if case["method"] == "ties_by_count" else get(case["method"])
    parameters = {**case["parameters"], "weight": case["weights"]}
    if case["method"] == "sce":
        del parameters["weight"]
    if case["method"] == "linear":
        return merge_tensors(models, method, parameters=parameters)
    return merge_tensors([base, *models], method, parameters=parameters, base_index=0)


if __name__ == "__main__":
    main()

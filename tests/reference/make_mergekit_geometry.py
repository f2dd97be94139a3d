"""Make tests/reference/mergekit_geometry.json: mergekit 0.1.5's spherical means and Model Stock.

Run as `make_mergekit.py`. `ours` is the same recipe in our parameters. Not here: multislerp, where
mergekit's projections stand for logarithms (see `merger.methods.spherical`), so only a case in
which the two agree; karcher with weights, which mergekit has not.
"""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from mergekit.merge_methods import get
from mergekit.merge_methods.api import merge_tensors

SHAPE = (4, 6)
TASK_VECTOR = {"space": "task_vector"}

CASES: list[dict[str, Any]] = [
    {"name": "slerp", "count": 2, "parameters": {"t": 0.3}, "ours": {"t": 0.3}},
    {
        "name": "nuslerp of models",
        "weights": [1.0, 3.0],
        "parameters": {"nuslerp_flatten": True},
        "ours": {},
    },
    {
        "name": "nuslerp of task vectors",
        "weights": [1.0, 3.0],
        "with_base": True,
        "parameters": {"nuslerp_flatten": True},
        "ours": TASK_VECTOR,
    },
    {
        "name": "nuslerp: without flattening it takes our rows",
        "weights": [1.0, 3.0],
        "parameters": {"nuslerp_flatten": False},
        "ours": {"granularity": "row"},
    },
    {
        "name": "nuslerp: its row-wise takes our columns",
        "weights": [1.0, 3.0],
        "with_base": True,
        "parameters": {"nuslerp_flatten": False, "nuslerp_row_wise": True},
        "ours": {"granularity": "column", **TASK_VECTOR},
    },
    {
        "name": "multislerp of two models of one norm and weight",
        "weights": [1.0, 1.0],
        "normed": True,
        "parameters": {},
        "ours": {},
    },
    {"name": "karcher", "parameters": {}, "ours": {}},
    {
        "name": "karcher until it stands still",
        "parameters": {"max_iter": 100, "tol": 1e-6},
        "ours": {"max_iterations": 100, "tolerance": 1e-6},
    },
    {"name": "model_stock", "with_base": True, "parameters": {}, "ours": {}},
    {
        "name": "model_stock by filters",
        "with_base": True,
        "parameters": {"filter_wise": True},
        "ours": {"granularity": "row"},
    },
]


def main() -> None:
    """Write the reference beside this script."""
    generator = torch.Generator().manual_seed(20261124)
    base, *models = (torch.randn(SHAPE, generator=generator) for _ in range(4))
    models = [0.3 * base + model for model in models]
    cases = [_case(case, base, models) for case in CASES]
    data = {
        "versions": {name: metadata.version(name) for name in ("mergekit", "torch")},
        "base": base.tolist(),
        "cases": cases,
    }
    path = Path(__file__).with_name("mergekit_geometry.json")
    path.write_text(json.dumps(data, indent=1) + "\n", "utf-8")


def _case(case: dict[str, Any], base: torch.Tensor, models: list[torch.Tensor]) -> dict[str, Any]:
    method = case["name"].split(" ")[0].rstrip(":")
    models = models[: len(case.get("weights", ())) or case.get("count", 3)]
    if case.get("normed"):
        models = [model / model.norm() for model in models]
    parameters = dict(case["parameters"])
    if "weights" in case:
        parameters["weight"] = case["weights"]
    if case.get("with_base"):
        found = merge_tensors([base, *models], get(method), parameters=parameters, base_index=0)
    elif method == "slerp":
        found = merge_tensors(models, get(method), parameters=parameters, base_index=0)
    else:
        found = merge_tensors(models, get(method), parameters=parameters)
    return {
        "name": case["name"],
        "method": method,
        "weights": case.get("weights", [1.0] * len(models)),
        "ours": case["ours"],
        "models": [model.tolist() for model in models],
        "expected": found.tolist(),
    }


if __name__ == "__main__":
    main()

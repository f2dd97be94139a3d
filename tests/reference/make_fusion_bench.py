"""Make tests/reference/fusion_bench.json: what FusionBench 0.2.33 makes of small random tensors.

Its code of TSV-M and of Iso-C and Iso-CTS is adapted from that of the papers' authors. Run in an
environment of its own:

    python -m venv .venv-fusion-bench
    .venv-fusion-bench/bin/pip install fusion_bench==0.2.33
    .venv-fusion-bench/bin/python tests/reference/make_fusion_bench.py

The task vectors have full rank: only there its results are well defined.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from fusion_bench.method.isotropic_merging.iso_utils import iso_c, iso_cts
from fusion_bench.method.task_singular_vector.utils.TSVM_utils import (
    compute_and_sum_svd_mem_reduction,
)

SHAPES = {
    "model.layers.0.mlp.up_proj.weight": (10, 6),
    "model.layers.0.mlp.down_proj.weight": (6, 10),
    "model.norm.weight": (6,),
}
CASES: list[dict[str, Any]] = [
    {"name": "tsv_m", "method": "tsv_m", "ours": {"lambda": 0.5}},
    {"name": "iso_c", "method": "iso_c", "ours": {"lambda": 0.5}},
    {"name": "iso_cts", "method": "iso_cts", "ours": {"lambda": 0.5}},
    {
        "name": "iso_cts with more of each",
        "method": "iso_cts",
        "ours": {"lambda": 0.5, "common_share": 0.4},
    },
]


def main() -> None:
    """Write the reference beside this script."""
    generator = torch.Generator().manual_seed(20261124)
    draw = {name: torch.randn((4, *shape), generator=generator) for name, shape in SHAPES.items()}
    base = {name: drawn[0] for name, drawn in draw.items()}
    models = [{name: drawn[n] for name, drawn in draw.items()} for n in (1, 2, 3)]
    taus = [
        {name: model[name].double() - base[name].double() for name in SHAPES} for model in models
    ]
    cases = [
        {**case, "expected": _lists(_added(base, _merge(case, taus), case["ours"]["lambda"]))}
        for case in CASES
    ]
    data = {
        "version": "0.2.33",
        "base": _lists(base),
        "models": [_lists(model) for model in models],
        "cases": cases,
    }
    path = Path(__file__).with_name("fusion_bench.json")
    path.write_text(json.dumps(data, indent=1) + "\n", "utf-8")


def _merge(case: dict[str, Any], taus: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    if case["method"] == "tsv_m":
        return compute_and_sum_svd_mem_reduction(taus, accelerator=torch.device("cpu"))
    if case["method"] == "iso_c":
        return iso_c(taus, "cpu")
    return iso_cts(taus, case["ours"].get("common_share", 0.8), "cpu")


def _added(
    base: dict[str, torch.Tensor], delta: dict[str, torch.Tensor], factor: float
) -> dict[str, torch.Tensor]:
    return {name: base[name].double() + factor * delta[name] for name in base}


def _lists(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: tensor.tolist() for name, tensor in tensors.items()}


if __name__ == "__main__":
    main()

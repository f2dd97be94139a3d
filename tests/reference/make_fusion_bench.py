"""Make tests/reference/fusion_bench.json: what FusionBench 0.2.33 makes of the tensors of `inputs`.

Run in the environment of make_mergekit.py:

    .venv-mergekit/bin/pip install --no-deps fusion_bench==0.2.33
    PYTHONPATH=. .venv-mergekit/bin/python tests/reference/make_fusion_bench.py

The package's own imports want a dozen heavy libraries that its arithmetic does not, so the three
files with the arithmetic are executed as they are, with a stand-in for the timer that they import.
Its code of TSV-M, Iso-C and Iso-CTS is adapted from that of the papers' authors.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.reference import inputs

FILES = {
    "ties": "ties_merging/ties_merging_utils.py",
    "iso": "isotropic_merging/iso_utils.py",
    "tsvm": "task_singular_vector/utils/TSVM_utils.py",
}


def load() -> dict[str, Any]:
    """Return the modules with the arithmetic."""
    package = types.ModuleType("fusion_bench")
    utils = types.ModuleType("fusion_bench.utils")
    utils.timeit_context = lambda _name: nullcontext()  # type: ignore[attr-defined]
    kinds = types.ModuleType("fusion_bench.utils.type")
    kinds.StateDictType = dict  # type: ignore[attr-defined]
    sys.modules |= {one.__name__: one for one in (package, utils, kinds)}
    found = {}
    for name, file in FILES.items():
        path = metadata.distribution("fusion_bench").locate_file(f"fusion_bench/method/{file}")
        spec = importlib.util.spec_from_file_location(name, str(path))
        assert spec is not None
        assert spec.loader is not None
        found[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found[name])
    return found


def main() -> None:
    """Write the reference beside this script."""
    code = load()
    base = {name: torch.from_numpy(array).double() for name, array in inputs.base().items()}
    vectors = [
        {name: torch.from_numpy(model[name]).double() - base[name] for name in inputs.SHAPES}
        for model in inputs.models()
    ]
    found = {
        "ties, threshold 20": _ties(code["ties"], base, vectors, 20, "sum"),
        "ties, threshold 35": _ties(code["ties"], base, vectors, 35, "sum"),
        "ties, dis-mean": _ties(code["ties"], base, vectors, 20, "mean"),
        "ties, dis-max": _ties(code["ties"], base, vectors, 20, "max"),
        "tsv_m": code["tsvm"].compute_and_sum_svd_mem_reduction(vectors, accelerator="cpu"),
        "iso_c": code["iso"].iso_c(vectors, accelerator="cpu"),
        "iso_cts, common 0.8": code["iso"].iso_cts(vectors, 0.8, accelerator="cpu"),
        "iso_cts, common 0.4": code["iso"].iso_cts(vectors, 0.4, accelerator="cpu"),
    }
    found |= {
        f"{name}, scaled by 0.5": {key: 0.5 * tensor for key, tensor in vector.items()}
        for name, vector in found.items()
        if not name.startswith("ties")
    }
    cases = [
        {"name": name, "expected": {key: (base[key] + vector[key]).float().numpy() for key in base}}
        for name, vector in found.items()
    ]
    versions = {name: metadata.version(name) for name in ("fusion_bench", "torch")}
    inputs.write(Path(__file__).with_name("fusion_bench.json"), versions, cases)


def _ties(
    code: Any,
    base: dict[str, torch.Tensor],
    vectors: list[dict[str, torch.Tensor]],
    threshold: int,
    combine: str,
) -> dict[str, torch.Tensor]:
    """Return 0.3 times the merged vector: its default scaling factor."""
    flat = torch.vstack([code.state_dict_to_vector(vector) for vector in vectors])
    merged = 0.3 * code.ties_merging(flat, reset_thresh=threshold, merge_func=combine)
    sizes = [int(np.prod(inputs.SHAPES[name])) for name in sorted(base)]
    parts = torch.split(merged, sizes)
    return {
        name: part.reshape(inputs.SHAPES[name])
        for name, part in zip(sorted(base), parts, strict=True)
    }


if __name__ == "__main__":
    main()

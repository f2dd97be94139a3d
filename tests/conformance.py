"""Recipes of ours beside what another implementation made of the same tensors, and the difference.

A row names a case of tests/reference/*.json and the same recipe in our parameters. `LIKE` are the
rows that must agree to their tolerance; `UNLIKE` those where another tool does what we do not
reproduce, with the reason. Tolerances are absolute; task vectors lie in (-1, 1).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import schemas

FOLDER = Path(__file__).parent / "reference"
ROUNDING = 1e-6
"""Float32 sums of a few terms in another order."""
SPECTRAL = 1e-5
"""Float32 singular vectors, whose last digits depend on the LAPACK that finds them."""
FILES = {
    "mergekit": "mergekit.json",
    "peft": "peft.json",
    "fusion_bench": "fusion_bench.json",
    "papers": "papers.json",
}
TOOLS = {
    "mergekit": "mergekit",
    "peft": "PEFT",
    "fusion_bench": "FusionBench",
    "papers": "the paper",
}


@dataclass(frozen=True)
class Row:
    """One case of another implementation and the recipe of ours that is compared with it.

    `slices` are those of passthrough: model of `inputs`, first layer, the one behind the last.
    """

    oracle: str
    case: str
    method: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    dialect: str = ""
    compute: str = "float32"
    slices: tuple[tuple[str, int, int], ...] = ()
    tolerance: float = ROUNDING
    why: str = ""

    @property
    def resolved(self) -> dict[str, Any]:
        """The parameters with those of the dialect."""
        dialect = schemas.dialects()[self.dialect]["parameters"] if self.dialect else {}
        return {**dialect, **self.parameters}

    @property
    def written(self) -> str:
        """The recipe as people read it."""
        parts = [f"dialect {self.dialect}"] if self.dialect else []
        parts += [f"{name} {_text(value)}" for name, value in self.parameters.items()]
        parts += [f"compute {self.compute}"] if self.compute != "float32" else []
        parts += [f"layers [{first}, {last}] of {model}" for model, first, last in self.slices]
        return ", ".join(parts) or "defaults"


def _text(value: Any) -> str:
    return json.dumps(value).strip('"') if not isinstance(value, float) else f"{value:.6g}"


DARE = {"density": 0.4, "rescale": False}
DELLA = {"density": 0.4, "epsilon": 0.1, "rescale": False}
STILL = {"max_iterations": 1, "tolerance": 1.0}
STACK = (("tiny", 0, 2), ("math", 0, 3), ("style", 1, 3))
SPECTRAL_CASES: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("tsv_m", "tsv_m", {}),
    ("iso_c", "iso_c", {}),
    ("iso_cts, common 0.8", "iso_cts", {}),
    ("iso_cts, common 0.4", "iso_cts", {"common_share": 0.4}),
)

LIKE = (
    Row("mergekit", "linear", "linear"),
    Row("mergekit", "slerp, t 0.3", "slerp", {"t": 0.3}),
    Row("mergekit", "slerp, t 0", "slerp", {"t": 0.0}),
    Row("mergekit", "nuslerp, whole tensors", "nuslerp"),
    Row("mergekit", "nuslerp, rows", "nuslerp", {"granularity": "row"}),
    Row("mergekit", "nuslerp, columns", "nuslerp", {"granularity": "column"}),
    Row("mergekit", "nuslerp of task vectors", "nuslerp", {"space": "task_vector"}),
    Row(
        "mergekit",
        "nuslerp of task vectors, rows",
        "nuslerp",
        {"space": "task_vector", "granularity": "row"},
    ),
    Row(
        "mergekit",
        "nuslerp of task vectors, columns",
        "nuslerp",
        {"space": "task_vector", "granularity": "column"},
    ),
    # Where two models of one norm have one weight, its step and ours end in the middle.
    Row("mergekit", "multislerp of two norms of 1", "multislerp"),
    Row("mergekit", "multislerp", "karcher", STILL),
    Row("mergekit", "multislerp of task vectors", "karcher", {**STILL, "space": "task_vector"}),
    Row("mergekit", "karcher", "karcher"),
    Row(
        "mergekit",
        "karcher, 100 steps to 1e-6",
        "karcher",
        {"max_iterations": 100, "tolerance": 1e-6},
    ),
    Row(
        "mergekit",
        "task_arithmetic, a negative weight",
        "task_arithmetic",
        {"lambda": 0.7},
        "task-arithmetic-mergekit",
    ),
    Row(
        "mergekit",
        "task_arithmetic, normalised",
        "task_arithmetic",
        {"normalize": True},
        "task-arithmetic-mergekit",
    ),
    Row("mergekit", "ties, defaults", "ties", {}, "ties-mergekit"),
    Row("mergekit", "ties, density 0.4", "ties", {"density": 0.4}, "ties-mergekit"),
    Row("mergekit", "ties, density 0.25, equal weights", "ties", {"density": 0.25}),
    Row("mergekit", "ties, equal weights", "ties", {"density": 1.0}),
    Row(
        "mergekit",
        "ties, density 0.6, lambda 1.1",
        "ties",
        {"density": 0.6, "lambda": 1.1},
        "ties-mergekit",
    ),
    Row("mergekit", "ties, sum", "ties", {"density": 0.4, "combine": "sum", "lambda": 0.9}),
    Row(
        "mergekit",
        "ties, signs by count",
        "ties",
        {"density": 0.5, "election": "frequency", "combine": "sum"},
    ),
    Row("mergekit", "dare_linear, mask given", "dare_linear", {**DARE, "normalize": False}),
    Row("mergekit", "dare_ties, mask given", "dare_ties", DARE, "dare-ties-mergekit"),
    Row("mergekit", "della_linear, mask given", "della_linear", DELLA),
    Row("mergekit", "della, mask given", "della", {**DELLA, "combine": "weighted_mean"}),
    Row("mergekit", "breadcrumbs", "breadcrumbs", {"density": 0.5, "gamma": 0.1}),
    Row("mergekit", "breadcrumbs, outliers share 0.01", "breadcrumbs"),
    Row(
        "mergekit",
        "breadcrumbs, lambda 0.7",
        "breadcrumbs",
        {"density": 0.5, "gamma": 0.1, "lambda": 0.7},
    ),
    Row(
        "mergekit",
        "breadcrumbs, normalised",
        "breadcrumbs",
        {"density": 0.9, "gamma": 0.05, "normalize": True},
    ),
    Row(
        "mergekit",
        "breadcrumbs_ties, a negative weight",
        "breadcrumbs_ties",
        {"density": 0.5, "gamma": 0.1, "combine": "sum"},
    ),
    Row(
        "mergekit",
        "breadcrumbs_ties",
        "breadcrumbs_ties",
        {"density": 0.5, "gamma": 0.1, "combine": "sum"},
    ),
    Row("mergekit", "model_stock", "model_stock"),
    Row("mergekit", "model_stock, rows", "model_stock", {"granularity": "row"}),
    Row("mergekit", "sce", "sce"),
    Row("mergekit", "sce, half selected", "sce", {"density": 0.5}),
    Row("mergekit", "passthrough.yaml", "passthrough", slices=STACK),
    Row("peft", "task_arithmetic", "task_arithmetic"),
    Row("peft", "ties, total", "ties", {"density": 0.4}, "ties-peft-total"),
    Row("peft", "ties, frequency", "ties", {"density": 0.4}, "ties-peft-frequency"),
    Row("peft", "magnitude_prune", "breadcrumbs", {"density": 0.4, "gamma": 0.0}),
    Row("peft", "dare_linear, mask given", "dare_linear", {"density": 0.4}, "dare-paper"),
    Row(
        "peft",
        "dare_ties, mask given",
        "dare_ties",
        {"density": 0.4, "election": "unweighted_total"},
    ),
    Row("peft", "adapters, cat", "task_arithmetic"),
    # Both keep one element more than the share says: 22 of 110 and one.
    Row("fusion_bench", "ties, threshold 20", "ties", {"density": 0.21}, "ties-fusionbench"),
    Row("fusion_bench", "ties, threshold 35", "ties", {"density": 0.355}, "ties-fusionbench"),
    Row(
        "fusion_bench",
        "ties, dis-mean",
        "ties",
        {"density": 0.21, "combine": "mean"},
        "ties-fusionbench",
    ),
    Row(
        "fusion_bench",
        "ties, dis-max",
        "ties",
        {"density": 0.21, "combine": "max"},
        "ties-fusionbench",
    ),
    *(
        Row("fusion_bench", case, method, parameters, tolerance=SPECTRAL)
        for case, method, parameters in SPECTRAL_CASES
    ),
    *(
        Row(
            "fusion_bench",
            f"{case}, scaled by 0.5",
            method,
            {"lambda": 0.5, **parameters},
            compute="float64",
        )
        for case, method, parameters in SPECTRAL_CASES
    ),
    Row("papers", "TIES, keep 20 %, lambda 1", "ties", {"density": 0.21}, "ties-paper"),
    Row(
        "papers",
        "TIES, keep 50 %, lambda 0.4",
        "ties",
        {"density": 0.51, "lambda": 0.4},
        "ties-paper",
    ),
    Row("papers", "TIES, keep 5 %, lambda 1", "ties", {"density": 0.055}, "ties-paper"),
    Row("papers", "DARE, drop 60 %, mask given", "dare_linear", {"density": 0.4}, "dare-paper"),
)

L1 = (
    "its rescale multiplies by the ratio of the L1 norms before and after the drop, which is "
    "1/density only on average; ours divides by the probability, as the paper does"
)
TANGENT = (
    "it projects onto the tangent plane where the definition takes logarithms, and the weighted "
    "projections add up to 0, so that its step does nothing: its result is the normalised mean"
)
UNLIKE = (
    Row("mergekit", "multislerp", "multislerp", why=TANGENT),
    Row(
        "mergekit",
        "multislerp of task vectors",
        "multislerp",
        {"space": "task_vector"},
        why=TANGENT,
    ),
    Row(
        "mergekit",
        "ties, one model of weight -1",
        "ties",
        {"density": 1.0},
        why="its normalize divides the sum by the sum of the weights, so that the sign of a lone "
        "weight cancels and the model is added; ours subtracts it",
    ),
    Row(
        "mergekit",
        "ties, rescale to the L1 norm",
        "ties",
        {"density": 0.4},
        "ties-mergekit",
        why="ties as published does not rescale what is trimmed",
    ),
    Row(
        "mergekit",
        "dare_linear, mask given, rescale",
        "dare_linear",
        {"density": 0.4, "normalize": False},
        why=L1,
    ),
    Row(
        "mergekit",
        "dare_ties, mask given, rescale",
        "dare_ties",
        {"density": 0.4},
        "dare-ties-mergekit",
        why=L1,
    ),
    Row(
        "mergekit",
        "della, mask given, rescale",
        "della",
        {**DELLA, "rescale": True, "combine": "weighted_mean"},
        why=L1,
    ),
    Row(
        "peft",
        "adapters, linear",
        "task_arithmetic",
        why="add_weighted_adapter averages the factors A and B by themselves, so that B of one adapter "
        "meets A of the other; here whole deltas are added",
    ),
    Row(
        "peft",
        "rsLoRA adapters, cat",
        "task_arithmetic",
        why="the merged adapter inherits use_rslora and is scaled once more by √rank, here by 2",
    ),
    Row(
        "papers",
        "TIES, keep 20 %, lambda 1",
        "ties",
        {},
        "ties-paper",
        why="its cut keeps one element more than the share says, and all that equal it; the row "
        "above has the same element counted in",
    ),
    Row(
        "fusion_bench",
        "ties, threshold 20",
        "ties",
        {},
        "ties-fusionbench",
        why="as in the paper's code: one element more",
    ),
)


@cache
def reference(oracle: str) -> dict[str, Any]:
    """Return the cases of an oracle by name, and its versions under `versions`."""
    data = json.loads((FOLDER / FILES[oracle]).read_text("utf-8"))
    return {"versions": data["versions"], **{case["name"]: case for case in data["cases"]}}


def tool(oracle: str) -> str:
    """Return name and version of the implementation that an oracle's numbers come from."""
    version = reference(oracle)["versions"].get(oracle, "")
    return f"{TOOLS[oracle]} {version}".strip()

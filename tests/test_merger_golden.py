"""Bytes that may not change unless `numerics` is raised: one small build per method.

The inputs are small multiples of powers of two, so that products and sums are exact in float32 and
the digests hold on every processor. To pin new ones after raising `numerics`:

    python -m tests.test_merger_golden
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

import schemas
from tests import merging, tiny
from tests.merging import TermOf

GOLDEN = Path(__file__).parent / "golden/merger/digests.json"
SCHEDULE = {"layers": [0.5, 1.0], "rules": [{"match": "*.v_proj.*", "value": 2.0}]}
SCHEDULE_OF_SHARES = {"layers": [0.25, 0.5], "embeddings": 1.0}
BUILDS: dict[str, dict[str, Any]] = {
    "linear": {"method": "linear", "weights": (1.0, 0.5, 2.0)},
    "task_arithmetic": {"weights": (SCHEDULE, -0.5, 0.25), "lambda_": 0.75},
    "task_arithmetic normalised": {"weights": (1.0, 0.5, 0.25), "normalize": True},
    "task_arithmetic in float64 to float16": {
        "weights": (1.0, -0.3, 0.7),
        "compute": "float64",
        "dtype": "float16",
    },
    "ties": {"method": "ties"},
    "ties by frequency": {
        "method": "ties",
        "election": "frequency",
        "tie": "majority",
        "combine": "sum",
        "density": {"layers": [0.1, 0.9]},
    },
    "ties over the model": {
        "method": "ties",
        "scope": "model",
        "tie": "largest",
        "combine": "max",
        "min_agreement": 0.5,
        "lambda_": 0.5,
        "max_shard_size": 4000,
    },
    "model_stock": {"method": "model_stock", "weights": (1.0, 1.0, 1.0)},
    "model_stock by row": {
        "method": "model_stock",
        "weights": (1.0, 1.0, 1.0),
        "granularity": "row",
    },
    "ties elected before the weights": {
        "method": "ties",
        "election": "unweighted_total",
        "tie": "largest",
    },
    "ties by weighted mean": {
        "method": "ties",
        "combine": "weighted_mean",
        "weights": (1.0, 0.5, 0.25),
        "scope": "model",
    },
    "dare_linear": {"method": "dare_linear", "density": 0.25, "normalize": False, "seed": 1},
    "dare_ties": {"method": "dare_ties", "density": SCHEDULE_OF_SHARES, "trim_density": 0.3},
    "dare_ties over the model": {
        "method": "dare_ties",
        "density": 0.5,
        "trim_density": 0.2,
        "scope": "model",
        "tie": "majority",
        "seed": 2**53 - 1,
    },
    "della_linear": {"method": "della_linear", "lambda_": 0.5},
    "della": {"method": "della", "density": 0.6, "epsilon": 0.3, "rescale": False, "seed": 3},
    "della in float64": {"method": "della", "compute": "float64", "dtype": "float32"},
    "breadcrumbs": {"method": "breadcrumbs", "density": 0.5, "gamma": 0.1},
    "breadcrumbs_ties": {"method": "breadcrumbs_ties", "election": "frequency"},
    "sce": {"method": "sce", "density": 0.3, "weights": (1.0, 1.0, 1.0)},
    "sce of all elements": {"method": "sce", "weights": (1.0, 1.0, 1.0), "lambda_": 0.5},
    "consensus": {"method": "consensus", "mask_lambda": SCHEDULE_OF_SHARES},
}


def build(name: str, folder: Path) -> dict[str, str]:
    """Return the digests of one golden build."""
    world = folder / "world"
    if not world.exists():
        tiny.tiny_base(world / "base", exact=True)
        tiny.tiny_adapter(world / "one", base=world / "base", seed=1, exact=True)
        targets = ("q_proj", "down_proj")
        tiny.tiny_adapter(world / "two", base=world / "base", seed=2, targets=targets, exact=True)
        tiny.tiny_checkpoint(world / "three", base=world / "base", seed=3, exact=True)
    options = dict(BUILDS[name])
    weights = options.pop("weights", (1.0, -0.5, 0.25))
    terms = [
        TermOf(world / operand, weight, kind="checkpoint" if operand == "three" else "adapter")
        for operand, weight in zip(("one", "two", "three"), weights, strict=True)
    ]
    built = merging.build(folder / name, world / "base", terms, **options)
    return {"model": built.model_digest, "artifact": built.artifact_digest}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("golden")


@pytest.mark.parametrize("name", BUILDS)
def test_the_bytes_are_those_of_this_numerics_version(name: str, folder: Path) -> None:
    golden = json.loads(GOLDEN.read_text("utf-8"))
    pinned = golden["numerics"] == schemas.numerics()
    advice = "the bytes changed: raise `numerics` in schemas/numerics.json, then pin the digests"

    assert pinned, "numerics was raised: pin the digests with python -m tests.test_merger_golden"
    assert build(name, folder) == golden["builds"][name], advice


def main() -> None:
    """Pin the digests of this version."""
    with tempfile.TemporaryDirectory() as folder:
        builds = {name: build(name, Path(folder)) for name in BUILDS}
    golden = {"numerics": schemas.numerics(), "builds": builds}
    GOLDEN.write_text(json.dumps(golden, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()

"""Numbers that may not change unless `numerics` is raised, of methods whose bits are no one's.

Sines (numpy) and decompositions (LAPACK) differ in the last place from processor to processor, so
what `test_merger_golden` pins by digest is pinned here to seven digits: of every changed tensor the
norm of its delta and four elements. To pin new ones after raising `numerics`:

    python -m tests.test_merger_golden_numbers
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import schemas
from tests import merging, tiny
from tests.merging import TermOf

GOLDEN = Path(__file__).parent / "golden/merger/numbers.json"
ADAPTERS, ALL = ("one", "two"), ("one", "two", "three")
BUILDS: dict[str, dict[str, Any]] = {
    "slerp": {"method": "slerp", "terms": ("two", "three"), "t": {"layers": [0.25, 0.75]}},
    "nuslerp": {"method": "nuslerp", "terms": ("two", "three")},
    "nuslerp of columns": {
        "method": "nuslerp",
        "terms": ("one", "three"),
        "space": "task_vector",
        "granularity": "column",
    },
    "multislerp": {"method": "multislerp", "terms": ALL},
    "karcher": {"method": "karcher", "terms": ALL, "space": "task_vector"},
    "tsv_m": {"method": "tsv_m", "terms": ALL, "lambda_": 0.5},
    "tsv_m of adapters": {"method": "tsv_m", "terms": ADAPTERS},
    "iso_c": {"method": "iso_c", "terms": ALL},
    "iso_c of adapters": {"method": "iso_c", "terms": ADAPTERS, "lambda_": 2.0},
    "iso_cts": {"method": "iso_cts", "terms": ALL},
    "iso_cts of adapters": {"method": "iso_cts", "terms": ADAPTERS, "common_share": 0.25},
    "knots": {"method": "knots", "terms": ALL},
    "knots of adapters": {"method": "knots", "terms": ADAPTERS, "density": 0.5},
}


def build(name: str, folder: Path) -> dict[str, list[float]]:
    """Return what is pinned of one build, by changed tensor."""
    world = folder / "world"
    if not world.exists():
        base = tiny.tiny_base(world / "base", exact=True, dtype="float32")
        tiny.tiny_adapter(world / "one", base=base, seed=1, exact=True)
        targets = ("q_proj", "down_proj")
        tiny.tiny_adapter(world / "two", base=base, seed=2, rank=3, targets=targets, exact=True)
        tiny.tiny_checkpoint(world / "three", base=base, seed=3, exact=True, dtype="float32")
    options = dict(BUILDS[name])
    weights = {"slerp": (1.0, 1.0)}.get(options["method"], (1.0, 0.5, 0.25))
    terms = [
        TermOf(world / operand, weight, kind="checkpoint" if operand == "three" else "adapter")
        for operand, weight in zip(options.pop("terms"), weights, strict=False)
    ]
    merging.build(folder / name, world / "base", terms, compute="float64", **options)
    base_tensors = tiny.read_tensors(world / "base")
    return {
        tensor: _pinned(built.astype(np.float64) - base_tensors[tensor])
        for tensor, built in tiny.read_tensors(folder / name).items()
        if not np.array_equal(built, base_tensors[tensor])
    }


def _pinned(delta: np.ndarray) -> list[float]:
    flat = delta.ravel()
    places = (0, len(flat) // 3, len(flat) // 2, len(flat) - 1)
    numbers = [float(np.linalg.norm(flat)), *(float(flat[place]) for place in places)]
    return [float(f"{number:.6e}") for number in numbers]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("numbers")


@pytest.mark.parametrize("name", BUILDS)
def test_the_numbers_are_those_of_this_numerics_version(name: str, folder: Path) -> None:
    golden = json.loads(GOLDEN.read_text("utf-8"))
    advice = "numerics was raised: pin the numbers with python -m tests.test_merger_golden_numbers"
    assert golden["numerics"] == schemas.numerics(), advice

    found, expected = build(name, folder), golden["builds"][name]

    assert found.keys() == expected.keys()
    for tensor, numbers in expected.items():
        # Seven digits were pinned, of values below 4 that were rounded to float32.
        np.testing.assert_allclose(found[tensor], numbers, rtol=1e-6, atol=1e-6, err_msg=tensor)


def main() -> None:
    """Pin the numbers of this version."""
    with tempfile.TemporaryDirectory() as folder:
        builds = {name: build(name, Path(folder)) for name in BUILDS}
    golden = {"numerics": schemas.numerics(), "builds": builds}
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()

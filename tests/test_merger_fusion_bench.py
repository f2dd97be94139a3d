"""tsv_m, iso_c and iso_cts against the numbers of FusionBench, which has the authors' code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import merging, tiny
from tests.merging import TermOf

FILE = Path(__file__).parent / "reference/fusion_bench.json"
REFERENCE = json.loads(FILE.read_text("utf-8"))


@pytest.mark.parametrize("case", REFERENCE["cases"], ids=lambda case: case["name"])
def test_the_result_is_that_of_fusion_bench(case: dict[str, Any], tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", REFERENCE["base"])
    terms = [
        TermOf(write_model(tmp_path / f"model{number}", model), kind="checkpoint")
        for number, model in enumerate(REFERENCE["models"])
    ]

    merging.build(
        tmp_path / "out", base, terms, method=case["method"], compute="float64", **case["ours"]
    )

    built = tiny.read_tensors(tmp_path / "out")
    for name, expected in case["expected"].items():
        # float64 on both sides, and one rounding to float32.
        np.testing.assert_allclose(built[name], np.float32(expected), rtol=2**-22, atol=1e-9)


def write_model(folder: Path, numbers: dict[str, Any]) -> Path:
    folder.mkdir()
    tiny.write_json(folder / "config.json", {"model_type": "llama"})
    tensors = {name: np.float32(values) for name, values in numbers.items()}
    tiny.write_safetensors(folder / "model.safetensors", tensors)
    return folder

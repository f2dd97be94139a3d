"""Methods without chance against the numbers of mergekit, parameters translated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import merging, tiny
from tests.merging import TermOf

REFERENCE = json.loads((Path(__file__).parent / "reference/mergekit.json").read_text("utf-8"))
TENSOR = "model.layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize("case", REFERENCE["cases"], ids=lambda case: case["name"])
def test_the_result_is_that_of_mergekit(case: dict[str, Any], tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", REFERENCE["base"])
    terms = [
        TermOf(write_model(tmp_path / f"model{number}", model), weight, "checkpoint")
        for number, (model, weight) in enumerate(
            zip(REFERENCE["models"], case["weights"], strict=True)
        )
    ]
    method = {"ties_by_count": "ties"}.get(case["method"], case["method"])

    merging.build(tmp_path / "out", base, terms, method=method, **case["ours"])

    built = tiny.read_tensors(tmp_path / "out")[TENSOR]
    # Both are float32 sums of three terms in different orders: a few units of the last place.
    np.testing.assert_allclose(built, np.float32(case["expected"]), rtol=0, atol=1e-6)


def write_model(folder: Path, numbers: list[list[float]]) -> Path:
    folder.mkdir()
    tiny.write_json(folder / "config.json", {"model_type": "llama"})
    tiny.write_safetensors(folder / "model.safetensors", {TENSOR: np.float32(numbers)})
    return folder

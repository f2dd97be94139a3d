"""slerp, nuslerp, karcher and model_stock against the numbers of mergekit, parameters translated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import merging, tiny
from tests.merging import TermOf
from tests.test_merger_mergekit import TENSOR, write_model

FILE = Path(__file__).parent / "reference/mergekit_geometry.json"
REFERENCE = json.loads(FILE.read_text("utf-8"))


@pytest.mark.parametrize("case", REFERENCE["cases"], ids=lambda case: case["name"])
def test_the_result_is_that_of_mergekit(case: dict[str, Any], tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", REFERENCE["base"])
    terms = [
        TermOf(write_model(tmp_path / f"model{number}", model), weight, "checkpoint")
        for number, (model, weight) in enumerate(zip(case["models"], case["weights"], strict=True))
    ]

    merging.build(tmp_path / "out", base, terms, method=case["method"], **case["ours"])

    built = tiny.read_tensors(tmp_path / "out")[TENSOR]
    # mergekit's angles and ours in float32: a few units of the last place of values up to 3.
    np.testing.assert_allclose(built, np.float32(case["expected"]), rtol=0, atol=2e-6)

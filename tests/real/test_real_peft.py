"""The real base and the real adapters: every touched element against PEFT's fold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests import merging, oracle
from tests.merging import TermOf

ROOT = Path(__file__).resolve().parents[2] / "catalog"
BASE = ROOT / "bases/smollm2-135m-instruct/weights"
# The last version of each: those before were trained by the same script, with the same modules.
ADAPTERS = [
    max(folder.glob("*/weights/adapter_model.safetensors"), key=lambda path: int(path.parts[-3]))
    for folder in sorted(ROOT.glob("adapters/*"))
]

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(
        not (BASE / "model.safetensors").is_file(), reason="the real base is absent (make base)"
    ),
    pytest.mark.skipif(not ADAPTERS, reason="the real adapters are absent"),
]


@pytest.mark.parametrize("weights", ADAPTERS, ids=lambda path: "-".join(path.parts[-4:-2]))
def test_every_element_is_within_one_unit_of_pefts_fold(weights: Path, tmp_path: Path) -> None:
    adapter = weights.parent

    merging.build(tmp_path / "out", BASE, [TermOf(adapter, name="adapter")])

    from safetensors import safe_open

    folded = oracle.folded_by_peft(BASE, adapter)
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    worst, touched = 0.0, 0
    with safe_open(BASE / "model.safetensors", "pt") as before:
        for name, file in index["weight_map"].items():
            with safe_open(tmp_path / "out" / file, "pt") as after:
                built = after.get_tensor(name)
            base, expected = before.get_tensor(name), folded[name].to(torch.bfloat16)
            worst = max(worst, float(oracle.bfloat16_units(built, expected, base).max()))
            touched += 0 if torch.equal(built, base) else built.numel()
    assert touched > 1_000_000
    assert worst <= 1.0

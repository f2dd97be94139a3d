"""Make tests/reference/peft.json: what PEFT's merge functions make of whole task vectors.

    PYTHONPATH=. python tests/reference/make_peft.py      # in the project's own environment

`add_weighted_adapter` applies these functions to the factors A and B by themselves, which merges
something else than the adapters' changes; here they get the changes. Random draws are replaced by
the masks of masks.json. What `add_weighted_adapter` gives for two adapters stands in cases of its
own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from peft import LoraConfig, get_peft_model
from peft.utils import merge_utils

from tests.reference import inputs

UNEVEN, SIGNED, ADDED = [1.0, 2.0, 0.5], [1.0, -0.5, 0.3], [1.0, -0.5]
CASES: dict[str, tuple[list[float], Callable[..., torch.Tensor], dict[str, Any]]] = {
    "task_arithmetic": (SIGNED, merge_utils.task_arithmetic, {}),
    "ties, total": (SIGNED, merge_utils.ties, {"density": 0.4}),
    "ties, frequency": (
        SIGNED,
        merge_utils.ties,
        {"density": 0.4, "majority_sign_method": "frequency"},
    ),
    "magnitude_prune": (UNEVEN, merge_utils.magnitude_prune, {"density": 0.4}),
    "dare_linear, mask given": (UNEVEN, merge_utils.dare_linear, {"density": 0.4}),
    "dare_ties, mask given": (SIGNED, merge_utils.dare_ties, {"density": 0.4}),
}


def main() -> None:
    """Write the reference beside this script."""
    path = Path(__file__)
    masks = json.loads(path.with_name("masks.json").read_text("utf-8"))["0.4"]
    base, models = inputs.base(), inputs.models()
    cases = []
    for case, (weights, merge, options) in CASES.items():
        expected = {}
        for name in inputs.SHAPES:
            taus = [torch.from_numpy(model[name] - base[name]) for model in models]
            drawn = [torch.tensor(one, dtype=torch.float32) for one in masks[name]]
            shaped = [one.reshape(inputs.SHAPES[name]) for one in drawn]
            with mock.patch("torch.bernoulli", side_effect=shaped):
                merged = merge(taus, torch.tensor(weights), **options)
            expected[name] = base[name] + merged.numpy()
        cases.append({"name": case, "weights": weights, "expected": expected})
    cases += [
        _added("adapters, linear", "linear", rslora=False),
        _added("adapters, cat", "cat", rslora=False),
        _added("rsLoRA adapters, cat", "cat", rslora=True),
    ]
    versions = {name: metadata.version(name) for name in ("peft", "torch")}
    inputs.write(path.with_name("peft.json"), versions, cases)


def _added(name: str, combination: str, *, rslora: bool) -> dict[str, Any]:
    """Return what `add_weighted_adapter` makes of adapters 0 and 1 with weights 1 and -0.5."""
    tensor = "model.layers.0.mlp.up_proj.weight"
    outputs, size = inputs.SHAPES[tensor]
    network = torch.nn.ModuleDict({"up_proj": torch.nn.Linear(size, outputs, bias=False)})
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["up_proj"], use_rslora=rslora)
    model = get_peft_model(network, config, adapter_name="0")
    model.add_adapter("1", config)
    layer = model.base_model.model["up_proj"]
    for number in ("0", "1"):
        for key, factor in inputs.adapter(int(number))[1].items():
            held = layer.lora_A if ".lora_A." in key else layer.lora_B
            held[number].weight.data = torch.from_numpy(factor)
    model.base_model.add_weighted_adapter(["0", "1"], ADDED, "sum", combination_type=combination)
    delta = layer.get_delta_weight("sum").detach().numpy()
    expected = {tensor: inputs.base()[tensor] + delta}
    return {"name": name, "weights": ADDED, "rslora": rslora, "expected": expected}


if __name__ == "__main__":
    main()

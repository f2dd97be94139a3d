"""Adapters on their base, opened by PEFT, as whoever serves them does: beside it, or folded in.

PEFT folds an adapter into the base's weights in float32, so answers come as fast as from any model.
Knows no suite and no metric.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from merger.evaluate.errors import EvaluationError
from merger.evaluate.model import Model, open_model
from schemas.header import HeaderError, read_header
from schemas.lora import WEIGHTS

_ALONE = "default"


def open_adapter(folder: Path, base: Path, device: str) -> Model:
    """Open the model in `base` with the adapter in `folder`, on `device`: auto, cpu or cuda.

    Raises EvaluationError unless PEFT finds a place for every factor and a factor for every place.
    """
    opened = attach(open_model(base, device), folder, _ALONE)
    with torch.no_grad():
        folded = opened.network.merge_and_unload(safe_merge=True)
    return replace(opened, network=folded.eval())


def attach(model: Model, folder: Path, name: str) -> Model:
    """Return a model with one more adapter beside its weights, under a name of its own.

    The first that is attached is switched on. Changes `model` and raises as `open_adapter`.
    """
    from peft import PeftModel

    network = model.network
    place = {"torch_device": str(model.device)}
    try:
        wanted = set(read_header(folder / WEIGHTS))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # told below, and not as a warning
            if isinstance(network, PeftModel):
                network.load_adapter(folder, adapter_name=name, **place)
            else:
                network = PeftModel.from_pretrained(network, folder, adapter_name=name, **place)
    except (OSError, ValueError, RuntimeError, HeaderError) as error:
        msg = f"model: expected an adapter that PEFT opens, found {error}".splitlines()[0]
        raise EvaluationError(msg) from error
    # PEFT leaves factors without a module aside and fills modules without factors with noise.
    if odd := sorted(wanted ^ tensors_of(network, name).keys()):
        msg = f"model: expected the same factors in the file and in PEFT, found {odd[0]} in one"
        raise EvaluationError(msg)
    return replace(model, network=network.eval())


def tensors_of(network: Any, name: str) -> Mapping[str, torch.Tensor]:
    """Return what PEFT holds of an adapter, under the names that its file has for them."""
    from peft import get_peft_model_state_dict

    found: Mapping[str, torch.Tensor] = get_peft_model_state_dict(
        network, adapter_name=name, save_embedding_layers=False
    )
    return found

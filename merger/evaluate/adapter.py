"""An adapter on its base, opened for evaluation: by PEFT, as whoever serves it does.

PEFT folds it into the base's weights in float32, so answers come as fast as from any model. Knows
no suite and no metric.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import torch

from merger.evaluate.errors import EvaluationError
from merger.evaluate.model import Model, open_model
from schemas.header import HeaderError, read_header
from schemas.lora import WEIGHTS


def open_adapter(folder: Path, base: Path, device: str) -> Model:
    """Open the model in `base` with the adapter in `folder`, on `device`: auto, cpu or cuda.

    Raises EvaluationError unless PEFT finds a place for every factor and a factor for every place.
    """
    from peft import PeftModel

    opened = open_model(base, device)
    try:
        wanted = set(read_header(folder / WEIGHTS))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # told below, and not as a warning
            network = PeftModel.from_pretrained(opened.network, folder)
    except (OSError, ValueError, RuntimeError, HeaderError) as error:
        msg = f"model: expected an adapter that PEFT opens, found {error}".splitlines()[0]
        raise EvaluationError(msg) from error
    # PEFT leaves factors without a module aside and fills modules without factors with noise.
    found = {
        name.replace(".default.weight", ".weight")
        for name, _ in network.named_parameters()
        if ".lora_" in name
    }
    if odd := sorted(wanted ^ found):
        msg = f"model: expected the same factors in the file and in PEFT, found {odd[0]} in one"
        raise EvaluationError(msg)
    with torch.no_grad():
        folded = network.merge_and_unload(safe_merge=True)
    return replace(opened, network=folded.eval())

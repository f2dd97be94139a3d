"""Hold a built folder against the base that it is made for: names and shapes, from headers alone.

A model has the tensors that its recipe gives it, an adapter a pair of factors for some of them.
Knows neither the store nor the worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from registry import shapes
from registry.errors import VerificationFailed
from registry.request import is_adapter
from schemas.header import HeaderError, read_header
from schemas.lora import CONFIG, WEIGHTS, AdapterError, lora_targets
from schemas.model import ModelError, read_config, read_model


def check(request: Mapping[str, Any], folder: Path, base: Path) -> None:
    """Raise VerificationFailed unless `folder` holds what the request asks for on this base."""
    what = "adapter" if is_adapter(request) else "model"
    try:
        if what == "adapter":
            _check_adapter(request, folder, base)
        else:
            shapes.check(read_model(base), read_model(folder), request["recipe"])
    except (ModelError, HeaderError, AdapterError, OSError) as error:
        msg = f"the built {what} cannot be opened: {error}"
        raise VerificationFailed(msg) from error


def _check_adapter(request: Mapping[str, Any], folder: Path, base: Path) -> None:
    config = read_config(folder, CONFIG)
    header = read_model(base)
    targets = lora_targets(config, read_header(folder / WEIGHTS), header.infos, header.config)
    most = request["output"]["rank"]
    for target in targets:
        product = target.product
        if product is None:
            msg = f"tensor {target.tensor}: expected factors alone"
            raise VerificationFailed(msg)
        if product.scale != 1 or (most is not None and product.rank > most):
            found = f"rank {product.rank} and scale {product.scale:g}"
            msg = f"tensor {product.a}: expected scale 1 and at most rank {most}, found {found}"
            raise VerificationFailed(msg)

"""Build the recipe of a row of `conformance` and measure how far it is from the other tool's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests import merging, tiny
from tests.conformance import Row, reference
from tests.merging import TermOf
from tests.reference import inputs


def difference(row: Row, folder: Path) -> float:
    """Build the row's recipe and return the largest absolute difference of an element."""
    case = reference(row.oracle)[row.case]
    built = folder / "out"
    if row.slices:
        _build_stack(built, row, folder)
    else:
        base = write_model(folder / "base", inputs.base())
        terms = list(_terms(row, case, folder))
        merging.build(built, base, terms, method=row.method, compute=row.compute, **row.resolved)
    tensors = tiny.read_tensors(built)
    return max(
        float(np.abs(tensors[name] - np.float32(numbers)).max())
        for name, numbers in case["expected"].items()
    )


def _terms(row: Row, case: Mapping[str, Any], folder: Path) -> Iterator[TermOf]:
    if "rslora" in case:
        for number, weight in enumerate(case["weights"]):
            yield TermOf(_write_adapter(folder, number, rslora=case["rslora"]), weight)
        return
    models = inputs.models()
    if case.get("normed"):
        models = [inputs.normed(model) for model in models]
    if row.method == "slerp":
        # mergekit's slerp starts from its base model.
        models = [inputs.base(), models[0]]
        weights = [1.0, 1.0]
    else:
        weights = case.get("weights") or [1.0] * len(models)
    for number, (model, weight) in enumerate(zip(models, weights, strict=False)):
        yield TermOf(write_model(folder / f"model{number}", model), weight, "checkpoint")


def _build_stack(built: Path, row: Row, folder: Path) -> None:
    """Build a stack of the Llama models of `inputs` and the adapter `style`."""
    base = _write_llama(folder, "tiny")
    names = list(dict.fromkeys(model for model, _, _ in row.slices if model != "tiny"))
    terms = [
        TermOf(_write_style(folder))
        if name == "style"
        else TermOf(_write_llama(folder, name), kind="checkpoint")
        for name in names
    ]
    data = merging.request_of(base, terms, row.method)
    data["recipe"]["slices"] = [
        {"term": names.index(model) if model in names else None, "layers": [first, last]}
        for model, first, last in row.slices
    ]
    merging.build_request(built, data, merging.inputs_of(base, terms))


def _write_llama(folder: Path, name: str) -> Path:
    written = write_model(folder / name, inputs.llama(name))
    tiny.write_json(written / "config.json", inputs.llama_config(name))
    return written


def _write_style(folder: Path) -> Path:
    return _write_factors(folder / "style", *inputs.lora())


def write_model(folder: Path, model: inputs.Model) -> Path:
    folder.mkdir(parents=True)
    tiny.write_json(folder / "config.json", {"model_type": "llama"})
    tiny.write_safetensors(folder / "model.safetensors", model)
    return folder


def _write_adapter(folder: Path, number: int, *, rslora: bool) -> Path:
    return _write_factors(folder / f"adapter{number}", *inputs.adapter(number, rslora=rslora))


def _write_factors(written: Path, config: Mapping[str, Any], factors: inputs.Model) -> Path:
    written.mkdir()
    tiny.write_json(written / "adapter_config.json", config)
    tiny.write_safetensors(written / "adapter_model.safetensors", factors)
    return written

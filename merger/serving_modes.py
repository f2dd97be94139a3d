"""A merged model, and a base with its adapters beside it, opened to be served: by PEFT, unfolded.

Knows no clock but that of opening.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from merger.errors import InputError
from merger.evaluate.adapter import attach, open_adapter, tensors_of
from merger.evaluate.model import Model, open_model
from merger.serving_request import MERGED, SWITCHED, ServingRequest

OFF = "adapters off"

Folders = Mapping[str, Path]
Switch = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Mode:
    """One way to answer; inside of `switch` it is the active one."""

    name: str
    model: Model
    switch: Switch
    is_adapter: bool = False


@dataclass(frozen=True, slots=True)
class Side:
    """The modes of a merged model, or of a base with its adapters, and what opening them took."""

    modes: tuple[Mode, ...]
    facts: Mapping[str, Any]


def open_side(side: str, asked: ServingRequest, inputs: Folders, device: torch.device) -> Side:
    """Open the merged model, or the base and every adapter; `inputs` are folders by digest.

    Raises InputError, EvaluationError too.
    """
    return (_open_merged if side == MERGED else _open_switched)(asked, inputs, device)


def import_all(asked: ServingRequest) -> None:
    """Import what opening imports: its seconds and bytes are the program's, not a model's."""
    import transformers  # noqa: F401

    if asked.is_adapter or SWITCHED in asked.sides:
        import peft  # noqa: F401


def _open_merged(asked: ServingRequest, inputs: Folders, device: torch.device) -> Side:
    folder = _folder(inputs, asked.model)
    started = time.perf_counter()
    if asked.is_adapter:
        model = open_adapter(folder, _folder(inputs, asked.base), device.type)
    else:
        model = open_model(folder, device.type)
    wait(device)
    facts = _facts(time.perf_counter() - started, model.network.parameters(), folder)
    return Side((Mode(MERGED, model, nullcontext),), {**facts, "adapters": []})


def _open_switched(asked: ServingRequest, inputs: Folders, device: torch.device) -> Side:
    folder = _folder(inputs, asked.base)
    started = time.perf_counter()
    model = open_model(folder, device.type)
    wait(device)
    seconds = time.perf_counter() - started
    facts = _facts(seconds, model.network.parameters(), folder)
    adapters = []
    for one in asked.adapters:
        folder = _folder(inputs, one.digest)
        started = time.perf_counter()
        model = attach(model, folder, one.label)
        wait(device)
        seconds = time.perf_counter() - started
        tensors = tensors_of(model.network, one.label).values()
        adapters.append({"label": one.label, **_facts(seconds, tensors, folder)})
    network = model.network
    modes = [
        Mode(one.label, model, _switch_to(network, one.label), is_adapter=True)
        for one in asked.adapters
    ]
    modes.append(Mode(OFF, model, network.disable_adapter))
    return Side(tuple(modes), {**facts, "adapters": adapters})


def _switch_to(network: Any, name: str) -> Switch:
    @contextmanager
    def switched() -> Iterator[None]:
        network.set_adapter(name, inference_mode=True)
        yield

    return switched


def _folder(inputs: Folders, digest: str) -> Path:
    if digest not in inputs:
        raise InputError(f"no folder was given for {digest}", field="inputs")
    return inputs[digest]


def _facts(seconds: float, tensors: Iterable[torch.Tensor], folder: Path) -> dict[str, Any]:
    """Return what a set of weights took: to open, in memory as it is served, and on the disk."""
    return {
        "load_seconds": round(seconds, 7),
        "weight_bytes": sum(one.numel() * one.element_size() for one in tensors),
        "disk_bytes": sum(path.stat().st_size for path in folder.glob("*.safetensors")),
    }


def wait(device: torch.device) -> None:
    """Wait until a GPU has done what it was told; until then only the telling was timed."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)

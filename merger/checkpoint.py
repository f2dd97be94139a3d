"""The tensors of a model folder, read a piece at a time, and a model as a task vector.

Plain reads at the offsets that the headers give: no memory map, whose pages would count as ours.
Knows no method.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from merger.blocks import Block
from merger.errors import InputError
from merger.request import Operand
from schemas.header import FLOATS, ITEM_BYTES, HeaderError, TensorInfo, read_header
from schemas.model import ModelError, read_model

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class TensorFile:
    """An open safetensors file; may be read by several threads at once."""

    __slots__ = ("_descriptor", "_is_pinned", "path", "tensors")

    def __init__(self, path: Path, *, is_pinned: bool = False) -> None:
        """Read the header and keep the file open; a GPU copies faster from pinned memory.

        Raises HeaderError when the file breaks a rule.
        """
        self.path = path
        self._is_pinned = is_pinned
        self.tensors: Mapping[str, TensorInfo] = read_header(path)
        self._descriptor = os.open(path, os.O_RDONLY)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def read(self, name: str) -> torch.Tensor:
        """Return a whole tensor in its shape and stored dtype (a float dtype)."""
        info = self.tensors[name]
        flat = self.read_flat(name, 0, info.elements)
        return flat.reshape(info.shape)

    def read_flat(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return elements [start, stop) in the stored dtype, flat, in memory of their own."""
        dtype = self.tensors[name].dtype
        return self.read_raw(name, start, stop).view(DTYPES[dtype])

    def read_raw(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return the bytes of elements [start, stop) as uint8; also of an integer tensor."""
        info = self.tensors[name]
        size = ITEM_BYTES[info.dtype]
        raw = torch.empty((stop - start) * size, dtype=torch.uint8, pin_memory=self._is_pinned)
        self._fill(raw.numpy(), info.start + start * size)
        return raw

    def _fill(self, bytes_: npt.NDArray[np.uint8], offset: int) -> None:
        done = 0
        while done < len(bytes_):
            count = os.preadv(self._descriptor, [bytes_[done:].data], offset + done)
            if count == 0:
                msg = f"{self.path.name}: expected {len(bytes_) - done} more bytes, found none"
                raise InputError(msg)
            done += count


class Model(Protocol):
    """The tensors of a model, as a build reads them: of a folder, or seen through a view of it."""

    @property
    def label(self) -> str:
        """Name in errors."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Dtype and shape of every tensor by name; offsets mean nothing in a view."""

    @property
    def names(self) -> frozenset[str]:
        """Names of all tensors."""

    def owner(self, name: str) -> str:
        """Return the label of the operand whose values a tensor holds."""

    def is_float(self, name: str) -> bool:
        """Return whether a tensor holds numbers that can be merged."""

    def read_block(self, name: str, block: Block) -> torch.Tensor:
        """Return the elements of a block, flat, in a dtype that holds the stored values exactly."""

    def read_raw(self, name: str) -> torch.Tensor:
        """Return all bytes of a tensor as uint8."""


class Checkpoint:
    """An open model folder, single file or shards: its tensors by name."""

    __slots__ = ("_files", "_where", "config", "folder", "label", "tensors")

    def __init__(self, folder: Path, label: str, *, is_pinned: bool = False) -> None:
        """Open the model; `label` names it in errors; a GPU copies faster from pinned memory.

        Raises InputError when it is not a model that we accept.
        """
        self.folder = folder
        self.label = label
        try:
            header = read_model(folder)
        except (ModelError, HeaderError) as error:
            raise InputError(str(error), term=label) from error
        self.config: Mapping[str, Any] = header.config
        self.tensors = {name: located.info for name, located in header.tensors.items()}
        self._where = {name: located.file for name, located in header.tensors.items()}
        files = sorted(set(self._where.values()))
        self._files = {file: TensorFile(folder / file, is_pinned=is_pinned) for file in files}

    def close(self) -> None:
        """Close all files."""
        for file in self._files.values():
            file.close()

    @property
    def names(self) -> frozenset[str]:
        """Names of all tensors."""
        return frozenset(self.tensors)

    def owner(self, _name: str) -> str:
        """Return the model's own label."""
        return self.label

    def is_float(self, name: str) -> bool:
        """Return whether a tensor holds numbers that can be merged."""
        return self.tensors[name].dtype in FLOATS

    def read_block(self, name: str, block: Block) -> torch.Tensor:
        """Return the elements of a block in the stored dtype, flat."""
        return self._files[self._where[name]].read_flat(name, block.start, block.stop)

    def read_raw(self, name: str) -> torch.Tensor:
        """Return all bytes of a tensor as uint8."""
        return self._files[self._where[name]].read_raw(name, 0, self.tensors[name].elements)


class Values:
    """The values of a model's tensors in the compute dtype on the device, block by block.

    Every thread keeps the block that it read last: the terms of a merge are held against the same
    block of the base one after another.
    """

    __slots__ = ("_last", "compute", "device", "model")

    def __init__(self, model: Model, compute: torch.dtype, device: torch.device) -> None:
        """Read `model`; the caller keeps it open."""
        self.model = model
        self.compute = compute
        self.device = device
        self._last = threading.local()

    def read(self, name: str, block: Block) -> torch.Tensor:
        """Return the values of a block, flat; they are not written to."""
        known: tuple[str, Block, torch.Tensor] | None = getattr(self._last, "known", None)
        if known is not None and known[0] == name and known[1] == block:
            return known[2]
        values = self.convert(self.model.read_block(name, block))
        self._last.known = (name, block, values)
        return values

    def convert(self, stored: torch.Tensor) -> torch.Tensor:
        """Return stored values in the compute dtype on the device; half the bytes travel."""
        if self.device.type == "cpu":
            return stored.to(self.compute)
        return stored.to(self.device, non_blocking=True).to(self.compute)


class ModelDelta:
    """The delta θ - base of one tensor of a model."""

    __slots__ = ("_base", "_model", "_name")

    def __init__(self, model: Model, base: Values, name: str) -> None:
        self._model = model
        self._base = base
        self._name = name

    def block(self, block: Block) -> torch.Tensor:
        """Return θ - base of a block, flat, in the compute dtype on the device."""
        stored = self._model.read_block(self._name, block)
        values, base = self._base.convert(stored), self._base.read(self._name, block)
        # What was not converted may belong to whoever keeps the model in memory.
        return values - base if values is stored else values.sub_(base)

    def factors(self) -> None:
        """Know no factors."""


class StoredValues:
    """The values of one tensor of a model, as the methods read them."""

    __slots__ = ("_name", "_values")

    def __init__(self, values: Values, name: str) -> None:
        self._values = values
        self._name = name

    def block(self, block: Block) -> torch.Tensor:
        """Return the values of a block, flat, in the compute dtype on the device."""
        return self._values.read(self._name, block)

    def factors(self) -> None:
        """Know no factors."""


class ModelTaskVector:
    """A checkpoint or a published merge as a task vector: its tensors minus the base's."""

    __slots__ = ("_base", "_model", "digest", "label", "names")

    def __init__(self, model: Model, operand: Operand, base: Values) -> None:
        """Hold an open model against the base.

        Raises InputError for a missing, unknown or differently shaped tensor.
        """
        self.label = operand.label
        self.digest = operand.digest
        self._model = model
        self._base = base
        refuse_other_tensors(model, base.model)
        self.names = frozenset(n for n in base.model.tensors if base.model.is_float(n))

    def module(self, _name: str) -> str:
        """Know no modules: a file has its own names."""
        return ""

    def delta(self, name: str) -> ModelDelta:
        """Return the delta of a tensor."""
        return ModelDelta(self._model, self._base, name)

    def close(self) -> None:
        """Leave the files to whoever opened them."""


def refuse_other_tensors(model: Model, base: Model) -> None:
    """Raise InputError unless the model has exactly the base's tensors, integers equal too."""
    for name in sorted(model.names - base.names):
        raise InputError("the base has no such tensor", tensor=name, term=model.label)
    for name in sorted(base.names - model.names):
        raise InputError(
            "expected this tensor of the base, found none", tensor=name, term=model.label
        )
    for name, expected in sorted(base.tensors.items()):
        found = model.tensors[name]
        if found.shape != expected.shape:
            why = f"expected shape {list(expected.shape)}, found {list(found.shape)}"
            raise InputError(why, tensor=name, term=model.label)
    refuse_other_integers(model, base, sorted(base.names))


def refuse_other_integers(model: Model, base: Model, names: Iterable[str]) -> None:
    """Raise InputError for tensors of integers that are not those of the base."""
    for name in names:
        found, expected = model.tensors[name], base.tensors[name]
        if model.is_float(name) and base.is_float(name):
            continue
        if found.dtype != expected.dtype:
            why = f"expected {expected.dtype}, found {found.dtype}"
            raise InputError(why, tensor=name, term=model.label)
        if not torch.equal(model.read_raw(name), base.read_raw(name)):
            why = "expected the integers of the base; integers are only copied, never merged"
            raise InputError(why, tensor=name, term=model.label)

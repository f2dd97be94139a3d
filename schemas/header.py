"""The header of one safetensors file, held to our rules. Reads no tensor and imports no library.

The rules are narrower than those of the format (at most 8 MiB of header, 100,000 tensors, rank 8,
plain names, no duplicates, no holes), because anybody who can open a pull request can send a file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

MAX_HEADER_BYTES = 8 << 20
MAX_TENSORS = 100_000
MAX_RANK = 8
MAX_DIMENSION = 2**31
NAME = re.compile(r"[A-Za-z0-9_.-]{1,256}")

FLOATS = frozenset({"F32", "F16", "BF16"})
ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1}
ITEM_BYTES |= {"BOOL": 1, "U16": 2, "U32": 4, "U64": 8}


class HeaderError(ValueError):
    """A file is not a safetensors file that we accept; `tensor` is empty if none is to blame."""

    def __init__(self, path: Path, why: str, tensor: str = "") -> None:
        """Name the file, the tensor and what is wrong."""
        subject = f"{path.name}: tensor {tensor}" if tensor else path.name
        super().__init__(f"{subject}: {why}")
        self.path = path
        self.why = why
        self.tensor = tensor


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor as its header tells it; `start` and `end` are offsets in the file, in bytes."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)


def read_header(path: Path) -> Mapping[str, TensorInfo]:
    """Return the tensors of a safetensors file by name, in the order of their bytes.

    Raises HeaderError when the file breaks a rule, OSError when it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
            raise HeaderError(path, f"expected a header of at most 8 MiB, found {length} bytes")
        text = file.read(length)
    entries = _parse(path, text)
    entries.pop("__metadata__", None)
    if len(entries) > MAX_TENSORS:
        raise HeaderError(path, f"expected at most {MAX_TENSORS} tensors, found {len(entries)}")
    tensors = {name: _tensor(path, name, entry, 8 + length) for name, entry in entries.items()}
    ordered = dict(sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end, item[0])))
    _refuse_gaps(path, ordered, 8 + length, size)
    return ordered


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        data = dict(pairs)
        if len(data) != len(pairs):
            raise HeaderError(path, "expected every name once, found a duplicate")
        return data

    try:
        entries = json.loads(text, object_pairs_hook=refuse_duplicates)
    except HeaderError:
        raise
    except (ValueError, RecursionError) as error:
        raise HeaderError(path, "expected a JSON header") from error
    if not isinstance(entries, dict):
        raise HeaderError(path, "expected a JSON object as header")
    return entries


def _tensor(path: Path, name: str, entry: Any, data_start: int) -> TensorInfo:
    if not NAME.fullmatch(name):
        raise HeaderError(path, "expected a name of letters, digits, _ . and -", ascii(name)[:80])
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise HeaderError(path, "expected dtype, shape and data_offsets", name)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise HeaderError(path, f"expected F32, F16, BF16 or an integer type, found {dtype}", name)
    if not _whole_numbers(shape) or len(shape) > MAX_RANK or any(n >= MAX_DIMENSION for n in shape):
        raise HeaderError(path, "expected at most 8 dimensions below 2**31", name)
    if not _whole_numbers(offsets) or len(offsets) != 2:
        raise HeaderError(path, "expected two data_offsets", name)
    start, end = offsets
    if end - start != prod(shape) * ITEM_BYTES[dtype]:
        raise HeaderError(path, "expected data_offsets that span the shape", name)
    return TensorInfo(dtype, tuple(shape), data_start + start, data_start + end)


def _whole_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _refuse_gaps(path: Path, ordered: Mapping[str, TensorInfo], start: int, size: int) -> None:
    position = start
    for name, tensor in ordered.items():
        if tensor.start != position:
            raise HeaderError(path, "expected tensors without holes or overlaps", name)
        position = tensor.end
    if position != size:
        raise HeaderError(path, f"expected {position} bytes in all, found {size}")

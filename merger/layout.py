"""Which file holds which tensor, where: known before a tensor is read. Knows no method and no disk.

The layout depends on the base's headers, on which tensors are touched, on the dtype and on the
largest shard; never on a number. Tensors that no term has lie in shards of their own, after the
others, so their bytes (and names) are the same for every merge that touches the same tensors of a
base.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from schemas.header import FLOATS, ITEM_BYTES, TensorInfo
from schemas.model import SINGLE


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a shard: what is written, and whether a term has it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    is_touched: bool


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of weights: its name, its header's bytes and its tensors in order."""

    file: str
    header: bytes
    entries: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return len(self.header) + sum(entry.size for entry in self.entries)


@dataclass(frozen=True, slots=True)
class Layout:
    """All shards of an artifact."""

    shards: tuple[Shard, ...]

    @property
    def size(self) -> int:
        """Size of all shards in bytes."""
        return sum(shard.size for shard in self.shards)

    @property
    def index(self) -> bytes | None:
        """Bytes of the index; None for a single file, which has none."""
        if len(self.shards) == 1:
            return None
        entries = [(entry, shard.file) for shard in self.shards for entry in shard.entries]
        weight_map = {entry.name: file for entry, file in entries}
        data = {
            "metadata": {"total_size": sum(entry.size for entry, _ in entries)},
            "weight_map": dict(sorted(weight_map.items())),
        }
        return (json.dumps(data, indent=2) + "\n").encode()


def plan_layout(
    tensors: Mapping[str, TensorInfo], touched: Iterable[str], *, dtype: str, max_shard_size: int
) -> Layout:
    """Return the layout of a merge of a base with these tensors.

    `dtype` is a name of safetensors (`BF16`), or empty where each tensor keeps its own; integers
    always do. A file, header included, has at most `max_shard_size` bytes, unless a single tensor
    is larger.
    """
    names = frozenset(touched)
    entries = [
        _entry(name, info, dtype, is_touched=name in names) for name, info in tensors.items()
    ]
    # Wider types first, so that every tensor is aligned to its own size; then byte order.
    entries.sort(key=lambda entry: (-ITEM_BYTES[entry.dtype], entry.name))
    groups = [
        group
        for is_touched in (True, False)
        for group in _fill([e for e in entries if e.is_touched == is_touched], max_shard_size)
    ]
    count = len(groups)
    return Layout(
        tuple(
            Shard(_file_name(number, count), _header(group), tuple(group))
            for number, group in enumerate(groups, start=1)
        )
    )


def single_file(file: str, entries: Iterable[Entry]) -> Shard:
    """Return one file with these tensors in this order."""
    group = tuple(entries)
    return Shard(file, _header(group), group)


def _entry(name: str, info: TensorInfo, dtype: str, *, is_touched: bool) -> Entry:
    written = dtype if dtype and info.dtype in FLOATS else info.dtype
    size = info.elements * ITEM_BYTES[written]
    return Entry(name, written, info.shape, size, is_touched)


def _fill(entries: list[Entry], max_shard_size: int) -> list[list[Entry]]:
    groups: list[list[Entry]] = []
    room = 0
    for entry in entries:
        # An upper bound of what the entry takes in the header: its offsets have at most 20 digits.
        size = entry.size + len(json.dumps(entry.name)) + len(str(entry.shape)) + 100
        if not groups or size > room:
            groups.append([])
            room = max_shard_size - 64
        groups[-1].append(entry)
        room -= size
    return groups


def _file_name(number: int, count: int) -> str:
    return SINGLE if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"


def _header(entries: Iterable[Entry]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for entry in entries:
        header[entry.name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [position, position + entry.size],
        }
        position += entry.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text

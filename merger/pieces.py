"""The work of a build in pieces that several threads share, in the order in which it is written.

A tensor is prepared once (its cuts, its decompositions), some tensors ahead of the first piece that
needs it, and merged some blocks at a time: so a large tensor takes no more memory than a small one,
and no thread waits for another's preparation while there is other work. The pieces depend on shapes
alone. Knows neither files nor numbers.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from merger.blocks import Block
from merger.layout import Entry
from merger.tensor_merge import Merged, Merging, Prepared

PIECE_BLOCKS = 16
"""Blocks of a piece: 2 Mi elements, 4 MiB in bfloat16."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """What has to be known of a tensor before its blocks are merged."""

    tensor: TensorWork

    @property
    def size(self) -> int:
        """Nothing that waits to be written."""
        return 0

    def make(self) -> None:
        """Prepare the tensor.

        What goes wrong goes wrong again for its first piece: which of several errors a build tells
        depends on the order of the tensors, not on how far ahead they are prepared.
        """
        with suppress(Exception):
            self.tensor.prepared()


@dataclass(frozen=True, slots=True)
class Piece:
    """Some blocks of a tensor, one after another."""

    tensor: TensorWork
    blocks: tuple[Block, ...]
    size: int

    def make(self) -> Merged:
        """Return their elements as written, and their figures."""
        return self.tensor.make(self.blocks)


class TensorWork:
    """One tensor of the result while it is worked on by several threads."""

    __slots__ = ("_left", "_lock", "_merging", "_prepared", "entry")

    def __init__(self, merging: Merging, entry: Entry) -> None:
        """Take what makes tensors, and which of them this is."""
        self.entry = entry
        self._merging = merging
        self._lock = threading.Lock()
        self._prepared: Prepared | None = None
        self._left = 0

    def pieces(self) -> list[Piece]:
        """Return the pieces of the tensor in order: one at least."""
        blocks = self._merging.blocks(self.entry.name)
        starts = range(0, max(1, len(blocks)), PIECE_BLOCKS)
        groups = [blocks[start : start + PIECE_BLOCKS] for start in starts]
        self._left = len(groups)
        if len(groups) == 1:  # of integers, which have no blocks, too
            return [Piece(self, groups[0], self.entry.size)]
        item = self.entry.size // sum(block.elements for block in blocks)
        return [Piece(self, group, item * sum(b.elements for b in group)) for group in groups]

    def prepared(self) -> Prepared:
        """Return what the first of all callers prepared."""
        with self._lock:
            if self._prepared is None:
                self._prepared = self._merging.prepare(self.entry.name)
            return self._prepared

    def make(self, blocks: tuple[Block, ...]) -> Merged:
        """Return some blocks as written; what was prepared is let go after the last of them."""
        name, dtype = self.entry.name, self.entry.dtype
        if not self.entry.is_touched:
            return self._merging.copy(name, blocks, dtype)
        merged = self._merging.merge(self.prepared(), blocks, dtype)
        with self._lock:
            self._left -= 1
            if not self._left:
                self._prepared = None
        return merged


def in_pieces(
    merging: Merging, entries: Iterable[Entry], ahead: int
) -> Iterator[Preparation | Piece]:
    """Yield the work on some tensors; each is prepared `ahead` tensors before it is merged."""
    waiting: deque[TensorWork] = deque()
    for entry in entries:
        work = TensorWork(merging, entry)
        if entry.is_touched:
            yield Preparation(work)
        waiting.append(work)
        if len(waiting) > ahead:
            yield from waiting.popleft().pieces()
    for work in waiting:
        yield from work.pieces()

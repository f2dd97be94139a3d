"""Operands kept in memory between merges, and what methods found out about them.

Whatever is kept has the bits of reading it again, so how much fits changes no result. Knows no
recipe and no method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from merger.blocks import Block
from merger.checkpoint import DTYPES, Checkpoint, ModelDelta
from merger.task_vector import (
    Answer,
    Delta,
    Factors,
    HeldDelta,
    Question,
    TaskVector,
    TaskVectors,
)

Deltas = dict[tuple[str, str], Delta]
"""Kept deltas by the label of their operand and the name of their tensor."""

_Slot = tuple[str, tuple[str, ...], str]
"""What was asked, the operands' labels, the tensor."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What is kept of one operand, and how much that would be without a limit, in bytes."""

    held: int
    whole: int


class ResidentCheckpoint(Checkpoint):
    """A model folder some of whose tensors are kept as stored, on the device that merges."""

    __slots__ = ("_held",)

    def __init__(self, folder: Path, label: str) -> None:
        """Open the model, as a checkpoint."""
        super().__init__(folder, label)
        self._held: dict[str, torch.Tensor] = {}

    def hold(self, names: Iterable[str], device: torch.device, most: int | None) -> Holding:
        """Keep these tensors as long as they take `most` bytes at most, those first that fit."""
        held = whole = 0
        for name in names:
            info = self.tensors[name]
            size = info.end - info.start
            whole += size
            if most is not None and held + size > most:
                continue
            self._held[name] = super().read_raw(name).to(device).view(DTYPES[info.dtype])
            held += size
        return Holding(held, whole)

    def read_block(self, name: str, block: Block) -> torch.Tensor:
        """Return the elements of a block; of a kept tensor a view, which nobody may write to."""
        held = self._held.get(name)
        if held is None:
            return super().read_block(name, block)
        return held[block.start : block.stop]

    def close(self) -> None:
        """Close all files and keep nothing."""
        self._held.clear()
        super().close()


def hold_deltas(
    deltas: Deltas, vectors: TaskVectors, term: int, compute: torch.dtype, most: int | None
) -> Holding:
    """Add to `deltas` those of an adapter, as long as they take `most` bytes at most.

    Products stay factors, in the compute dtype. What would read a file again (a tensor saved
    whole) or take a product's norms again (DoRA) is kept as its values.
    """
    held = whole = 0
    for name in vectors.names(term):
        delta = vectors.delta(term, name)
        factors = getattr(delta, "nbytes", None)
        size = vectors.elements(name) * compute.itemsize if factors is None else int(factors)
        whole += size
        if size == 0 or (most is not None and held + size > most):
            continue
        kept = HeldDelta(delta, vectors.blocks(name)) if factors is None else delta
        deltas[vectors.label(term), name] = kept
        held += size
    return Holding(held, whole)


def is_of_model(vectors: TaskVectors, term: int) -> bool:
    """Return whether a term is a model, whose tensors its checkpoint keeps."""
    names = vectors.names(term)
    return bool(names) and isinstance(vectors.delta(term, names[0]), ModelDelta)


class Answers:
    """The last answer to every question, as far as it fits; threads may ask at once."""

    __slots__ = ("_found", "_lock", "_most", "nbytes")

    def __init__(self, most: int | None) -> None:
        """Remember nothing yet, later answers of `most` bytes at most."""
        self._found: dict[_Slot, tuple[Question, Any]] = {}
        self._lock = Lock()
        self._most = most
        self.nbytes = 0

    def recall(self, slot: _Slot, question: Question, find: Callable[[], Answer]) -> Answer:
        """Return the last answer if it rests on the same numbers, else find one."""
        known = self._found.get(slot)
        if known is not None and known[0].given == question.given:
            answer: Answer = known[1]
            return answer
        found = find()
        with self._lock:
            nbytes = self.nbytes + question.nbytes - (known[0].nbytes if known else 0)
            if self._most is None or nbytes <= self._most:
                self._found[slot] = (question, found)
                self.nbytes = nbytes
        return found


class ResidentVectors(TaskVectors):
    """Terms some of whose deltas are kept, and about which the last answers are remembered."""

    __slots__ = ("_answers", "_held")

    def __init__(
        self,
        vectors: Sequence[TaskVector],
        shapes: Mapping[str, tuple[int, ...]],
        base: Callable[[str], Delta],
        *,
        held: Mapping[tuple[str, str], Delta],
        answers: Answers,
    ) -> None:
        """Take what task vectors take, what is kept, and where to remember."""
        super().__init__(vectors, shapes, base)
        self._held = held
        self._answers = answers

    def delta(self, term: int, name: str) -> Delta:
        """Return a term's delta of a tensor that it has."""
        held = self._held.get((self.label(term), name))
        return super().delta(term, name) if held is None else held

    def recall(self, question: Question, find: Callable[[], Answer]) -> Answer:
        """Return the last answer if it rests on the same numbers, else find and remember one."""
        labels = tuple(self.label(term) for term in question.terms)
        return self._answers.recall((question.what, labels, question.tensor), question, find)


class ReadOnce:
    """A delta whose blocks are computed when they are first read, then kept, for one tensor."""

    __slots__ = ("_blocks", "_delta")

    def __init__(self, delta: Delta) -> None:
        self._delta = delta
        self._blocks: dict[Block, torch.Tensor] = {}

    def block(self, block: Block) -> torch.Tensor:
        """Return the elements of a block."""
        found = self._blocks.get(block)
        if found is None:
            found = self._blocks[block] = self._delta.block(block)
        return found

    def factors(self) -> Factors | None:
        """Return the factors of the delta."""
        return self._delta.factors()

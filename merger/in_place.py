"""Tensors of a merge written in place, into a model that is already in memory.

Knows neither which merges are asked for nor what is kept between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from merger.checkpoint import DTYPES, NAMES, Model
from merger.errors import InputError
from merger.resident import ReadOnce
from merger.rounding import apply_delta, is_finite, round_to
from merger.task_vector import Delta
from merger.tensor_merge import Merging

Into = Mapping[str, torch.Tensor]
"""Tensors to write by the base's names, such as the `named_parameters()` of a loaded base."""


@dataclass(frozen=True, slots=True)
class InPlace:
    """A merge on its way into tensors, without the figures of a report.

    `output` is the dtype that a build would write, None for the base's; `checked` are operands, by
    label, and tensors whose deltas are known to be finite.
    """

    merging: Merging
    into: Into
    output: torch.dtype | None
    checked: set[tuple[str, str]]

    def dtype(self, name: str) -> torch.dtype:
        """Return the dtype in which a build writes a tensor."""
        return self.output or DTYPES[self.merging.base.tensors[name].dtype]

    def write(self, name: str) -> None:
        """Write one tensor, block by block."""
        deltas = self._deltas(name)
        rows, dtype = rows_of(self.into[name]), self.dtype(name)
        vectors = self.merging.vectors
        values = vectors.base(name)
        step = self.merging.method.step(name, vectors, deltas) if deltas else None
        for block in vectors.blocks(name):
            before = values.block(block)
            if step is None:  # only operands that are left out have it
                result = round_to(before, dtype)
            else:
                taus = [delta.block(block) for delta in deltas.values()]
                self._check(name, zip(deltas, taus, strict=True), dtype)
                delta = step.combine(step.values(taus, block), block)
                result = apply_delta(before, delta, dtype)
            if not is_finite(result):
                raise self.merging.non_finite(name, NAMES[dtype])
            rows[block.first : block.last].copy_(result.view(-1, *rows.shape[1:]))
        self.checked.update((vectors.label(term), name) for term in deltas)

    def _deltas(self, name: str) -> dict[int, Delta]:
        """Return the deltas of a tensor; its blocks are kept where the method reads them again."""
        vectors, merging = self.merging.vectors, self.merging
        deltas = vectors.deltas(name)
        size = vectors.elements(name) * len(deltas) * merging.compute.itemsize
        if merging.method.passes == 1 or size > merging.held_bytes:
            return deltas
        return {term: ReadOnce(delta) for term, delta in deltas.items()}

    def _check(
        self, name: str, taus: Iterable[tuple[int, torch.Tensor]], dtype: torch.dtype
    ) -> None:
        for term, tau in taus:
            # The operands do not change, so one look at each of their values is enough.
            label = self.merging.vectors.label(term)
            if (label, name) not in self.checked and not is_finite(tau):
                raise self.merging.non_finite(name, NAMES[dtype])


def rows_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor to be written by rows; autograd does not see it."""
    rows = tensor.detach()
    return rows if rows.dim() else rows.view(1)


def check_into(into: Into, dtypes: Mapping[str, torch.dtype | None], base: Model) -> None:
    """Raise InputError unless every tensor is there, in its shape, and holds its dtype exactly.

    None stands for a dtype that need not be held exactly.
    """
    seen: dict[int, str] = {}
    for name, dtype in dtypes.items():
        if name not in into:
            raise InputError("expected this tensor to write into, found none", tensor=name)
        found, shape = into[name], base.tensors[name].shape
        if tuple(found.shape) != shape:
            why = f"expected shape {list(shape)} to write into, found {list(found.shape)}"
            raise InputError(why, tensor=name)
        if dtype is not None and torch.promote_types(found.dtype, dtype) != found.dtype:
            why = f"expected a dtype to write into that holds {dtype}, found {found.dtype}"
            raise InputError(why, tensor=name)
        other = seen.setdefault(found.data_ptr(), name) if found.numel() else name
        if other != name:
            why = f"expected memory of its own to write into, found that of {other}"
            raise InputError(why, tensor=name)

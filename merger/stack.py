"""A stack of layers as a model: every tensor read from the operand that it comes from.

Which tensor comes from where is decided in `schemas.stack`; here it is read. Nothing is computed:
tensors of models are copied, an adapter's delta is added to the base's tensor as anywhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from merger.blocks import Block
from merger.checkpoint import Model, refuse_other_integers
from merger.errors import InputError
from merger.task_vector import Delta, TaskVector
from schemas.header import TensorInfo
from schemas.schedule import layer_of
from schemas.stack import Origin, StackError, refuse_unlike


class Stack:
    """The tensors of a stack by their names in the result."""

    __slots__ = ("_operands", "_origins", "label", "tensors")

    def __init__(
        self, operands: Mapping[int | None, Model], origins: Mapping[str, Origin], label: str
    ) -> None:
        """Take the operands by the index of their term: the base for None and for an adapter."""
        self._operands = operands
        self._origins = origins
        self.label = label
        self.tensors: Mapping[str, TensorInfo] = {
            name: operands[origin.term].tensors[origin.name] for name, origin in origins.items()
        }

    @property
    def names(self) -> frozenset[str]:
        """Names of all tensors."""
        return frozenset(self.tensors)

    def owner(self, name: str) -> str:
        """Return the label of the operand that a tensor comes from."""
        origin = self._origins[name]
        return self._operands[origin.term].owner(origin.name)

    def is_float(self, name: str) -> bool:
        """Return whether a tensor holds numbers that can be merged."""
        origin = self._origins[name]
        return self._operands[origin.term].is_float(origin.name)

    def read_block(self, name: str, block: Block) -> torch.Tensor:
        """Return the elements of a block in the stored dtype, flat."""
        origin = self._origins[name]
        return self._operands[origin.term].read_block(origin.name, block)

    def read_raw(self, name: str) -> torch.Tensor:
        """Return all bytes of a tensor as uint8."""
        origin = self._origins[name]
        return self._operands[origin.term].read_raw(origin.name)


@dataclass(frozen=True, slots=True)
class StackedTaskVector:
    """The deltas of an operand at the tensors that a stack takes from it.

    Of a model that is copied there are none: the stack itself reads its tensors.
    """

    inner: TaskVector | None
    label: str
    digest: str
    taken: Mapping[str, str]

    @property
    def names(self) -> frozenset[str]:
        """Tensors of the result that it changes."""
        known = self.inner.names if self.inner else frozenset()
        return frozenset(name for name, source in self.taken.items() if source in known)

    def module(self, _name: str) -> str:
        """Know no modules: layers have other numbers here than in the operand."""
        return ""

    def delta(self, name: str) -> Delta:
        """Return the delta of a tensor that it changes."""
        assert self.inner is not None, "a model that is copied changes no tensor"
        return self.inner.delta(self.taken[name])

    def close(self) -> None:
        """Leave the files to whoever opened them."""


def refuse_other_layers(model: Model, base: Model) -> None:
    """Raise InputError unless a model has the base's tensors outside the layers, and such layers.

    It may have more or fewer layers than the base, each with the tensors of a layer of the base.
    """
    shapes, known = (
        {name: info.shape for name, info in one.tensors.items()} for one in (model, base)
    )
    try:
        refuse_unlike(shapes, known)
    except StackError as error:
        raise InputError(error.why, tensor=error.tensor, term=model.label) from error
    refuse_other_integers(model, base, sorted(n for n in known if layer_of(n) is None))

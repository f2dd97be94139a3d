"""A LoRA adapter as a task vector: its file's tensors as deltas of the base. Knows no method.

Which tensor is changed, and how, is decided in `schemas.lora`; the numbers are in
`merger.adapter_deltas`. Letters: O out, I in, R rank, E experts.
"""

from __future__ import annotations

from pathlib import Path

import torch

from merger.adapter_deltas import (
    DoraDelta,
    ExpertsDelta,
    ProductDelta,
    Read,
    SavedDelta,
    TokensDelta,
    VectorDelta,
)
from merger.blocks import Block, split
from merger.checkpoint import Checkpoint, StoredValues, TensorFile, Values
from merger.errors import InputError
from merger.request import Operand
from merger.task_vector import Delta
from schemas.header import HeaderError
from schemas.lora import CONFIG, WEIGHTS, AdapterError, lora_targets
from schemas.lora_header import module_of
from schemas.lora_target import LoraTarget, Product, Saved, Twin
from schemas.model import ModelError, read_config, refuse_pickles


class LoraTaskVector:
    """An open adapter folder: its deltas by base tensor.

    The factors are read exactly and multiplied in the compute dtype, s·B first: PEFT multiplies
    in the factors' dtype, so there the delta of a bfloat16 adapter is rounded before it is added.
    """

    __slots__ = ("_base", "_file", "_targets", "_values", "digest", "label", "names")

    def __init__(
        self,
        folder: Path,
        operand: Operand,
        *,
        base: Checkpoint,
        values: Values,
    ) -> None:
        """Open the adapter and hold its keys and shapes against the base, whose `values` these are.

        Raises InputError for anything that is not understood, or is not of this base.
        """
        self.label = label = operand.label
        self.digest = operand.digest
        self._base = base
        self._values = values
        self._file = _open(folder, label)
        try:
            targets = _targets(self._file, label, base)
            self._targets = {target.name: target for target in targets}
            for twin in (twin for target in targets for twin in target.twins):
                self._refuse_unequal(twin)
        except InputError:
            self._file.close()
            raise
        self.names = frozenset(self._targets)

    def module(self, name: str) -> str:
        """Return its name of the linear module whose weight a tensor is, empty if none."""
        product = self._targets[name].product
        if product is None or product.experts:
            return ""
        return module_of(product.a)

    def delta(self, name: str) -> Delta:
        """Return the delta of a tensor of the base that this adapter changes.

        Raises InputError for a factor that is not finite; a tensor saved whole is checked block by
        block, as it is read.
        """
        target = self._targets[name]
        base = StoredValues(self._values, name).block
        blocks = split(self._base.tensors[name].shape)
        if target.tokens:
            rows = self._read(target, target.tokens.tensor)
            return TokensDelta(rows, target.tokens.indices, base)
        added = self._added(target)
        saved = self._saved(target, target.saved) if target.saved else None
        # PEFT writes an embedding's original beside its factors; usually it is the base's.
        if saved and added and all(torch.equal(saved(block), base(block)) for block in blocks):
            saved = None
        if target.magnitude:
            assert target.product, "magnitudes stand beside factors"
            assert added, "magnitudes stand beside factors"
            return DoraDelta(
                added,
                self._read(target, target.magnitude),
                origin=saved or base,
                base=base if saved else None,
                blocks=blocks,
                by_column=target.product.transposed,
            )
        if saved:
            return SavedDelta(saved, base, added)
        assert added, "a target is changed by something"
        return added

    def _added(self, target: LoraTarget) -> Delta | None:
        if target.product:
            return self._product(target, target.product)
        if target.vector:
            return VectorDelta(self._read(target, target.vector.tensor) * target.vector.scale)
        return None

    def _product(self, target: LoraTarget, product: Product) -> Delta:
        if product.experts:
            return self._experts(target, product)
        a = self._read(target, product.a)
        b = self._read(target, product.b) * product.scale
        if product.transposed:
            return ProductDelta(a.T.contiguous(), b.T.contiguous())
        is_matrix = a.dim() == 2
        return ProductDelta(b.flatten(1), a.flatten(1), is_matrix=is_matrix)

    def _experts(self, target: LoraTarget, product: Product) -> Delta:
        """Return the products of all experts (E, O, I), or some rows of one expert's (O, I).

        PEFT stacks A as (E, R) rows of I and B as (R, E) columns of O.
        """
        experts, rank = product.experts, product.rank
        if product.expert is None:
            a = self._read(target, product.a)
            b = self._read(target, product.b) * product.scale
            right = a.reshape(experts, rank, -1)  # (E, R, I)
            left = b.reshape(-1, rank, experts).permute(2, 0, 1).contiguous()  # (E, O, R)
            if product.transposed:
                left, right = right.mT.contiguous(), left.mT.contiguous()
            return ExpertsDelta(left, right)
        first = product.expert * rank
        right = self._read_rows(target, product.a, first, first + rank)
        b = self._read_rows(target, product.b, product.first, product.last)
        left = b[:, product.expert :: experts].contiguous() * product.scale
        return ProductDelta(left, right)

    def _saved(self, target: LoraTarget, saved: Saved) -> Read:
        def read(block: Block) -> torch.Tensor:
            start, stop = saved.start + block.start, saved.start + block.stop
            return self._finite(
                target, saved.tensor, self._file.read_flat(saved.tensor, start, stop)
            )

        return read

    def _read(self, target: LoraTarget, tensor: str) -> torch.Tensor:
        return self._finite(target, tensor, self._file.read(tensor))

    def _read_rows(self, target: LoraTarget, tensor: str, first: int, last: int) -> torch.Tensor:
        columns = self._file.tensors[tensor].shape[1]
        rows = self._file.read_flat(tensor, first * columns, last * columns)
        return self._finite(target, tensor, rows).reshape(-1, columns)

    def _finite(self, target: LoraTarget, tensor: str, values: torch.Tensor) -> torch.Tensor:
        values = values.to(self._values.device, self._values.compute)
        if not bool(torch.isfinite(values).all()):
            part = "factor" if target.product and not target.saved else "change"
            why = f"non-finite value in the {part} of {target.name}"
            raise InputError(why, tensor=tensor, term=self.label)
        return values

    def _refuse_unequal(self, twin: Twin) -> None:
        values, expected = self._file.read(twin.tensor), self._file.read(twin.other)
        if not torch.equal(values, expected.T if twin.transposed else expected):
            why = f"expected the values of {twin.other}: the base has one matrix for both"
            raise InputError(why, tensor=twin.tensor, term=self.label)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _open(folder: Path, label: str) -> TensorFile:
    try:
        refuse_pickles(folder)
        return TensorFile(folder / WEIGHTS)
    except FileNotFoundError:
        raise InputError(f"{WEIGHTS}: expected this file, found none", term=label) from None
    except (ModelError, HeaderError) as error:
        raise InputError(str(error), term=label) from error


def _targets(file: TensorFile, label: str, base: Checkpoint) -> tuple[LoraTarget, ...]:
    try:
        config = read_config(file.path.parent, CONFIG)
        return lora_targets(config, file.tensors, base.tensors, base.config)
    except ModelError as error:
        raise InputError(str(error), term=label) from error
    except AdapterError as error:
        why = f"{CONFIG}: {error.field}: {error.why}" if error.field else error.why
        raise InputError(why, tensor=error.tensor, term=label) from error

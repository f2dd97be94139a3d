"""A LoRA adapter as a task vector: ΔW = s·B·A per target tensor. Knows no method.

Which tensor is changed, and by which scale, is decided in `schemas.lora`; here are the numbers.
Letters: O out, I in, R rank.
"""

from __future__ import annotations

from pathlib import Path

import torch

from merger.blocks import Block
from merger.checkpoint import Checkpoint, TensorFile
from merger.errors import InputError
from merger.request import Operand
from merger.task_vector import Factors
from schemas.header import HeaderError
from schemas.lora import CONFIG, WEIGHTS, AdapterError, LoraTarget, lora_targets
from schemas.model import ModelError, read_config, refuse_pickles


class LoraDelta:
    """The delta of one tensor as the product of two factors, formed block by block."""

    __slots__ = ("_left", "_right")

    def __init__(self, left_OR: torch.Tensor, right_RI: torch.Tensor) -> None:  # noqa: N803 shapes
        self._left = left_OR
        self._right = right_RI

    def block(self, block: Block) -> torch.Tensor:
        """Return the rows of a block of (O, R) · (R, I), flat, in the factors' dtype.

        The product of a block runs on one thread, so it has the same bits however many threads
        the process uses.
        """
        return torch.mm(self._left[block.first : block.last], self._right).reshape(-1)

    def factors(self) -> Factors:
        """Return (O, R) and (R, I), the scale in the left one."""
        return self._left, self._right


class LoraTaskVector:
    """An open adapter folder: its deltas by base tensor.

    The factors are read exactly and multiplied in the compute dtype, s·B first: PEFT multiplies
    in the factors' dtype, so there the delta of a bfloat16 adapter is rounded before it is added.
    """

    __slots__ = ("_compute", "_device", "_file", "_targets", "digest", "label", "names")

    def __init__(
        self,
        folder: Path,
        operand: Operand,
        *,
        base: Checkpoint,
        compute: torch.dtype,
        device: torch.device,
    ) -> None:
        """Open the adapter and hold its keys and shapes against the base.

        Raises InputError for anything that is not plain LoRA on tensors of the base.
        """
        self.label = label = operand.label
        self.digest = operand.digest
        self._compute = compute
        self._device = device
        self._file = _open(folder, label)
        try:
            targets = _targets(self._file, label, base)
        except InputError:
            self._file.close()
            raise
        self._targets = {target.name: target for target in targets}
        self.names = frozenset(self._targets)

    def delta(self, name: str) -> LoraDelta:
        """Return the delta of a tensor of the base that this adapter changes.

        Raises InputError for a factor that is not finite.
        """
        target = self._targets[name]
        a = self._factor(target, target.a)
        b = self._factor(target, target.b) * target.scale
        if target.transposed:
            return LoraDelta(a.T.contiguous(), b.T.contiguous())
        return LoraDelta(b, a)

    def _factor(self, target: LoraTarget, tensor: str) -> torch.Tensor:
        factor = self._file.read(tensor).to(self._device, self._compute)
        if not bool(torch.isfinite(factor).all()):
            why = f"non-finite value in the factor of {target.name}"
            raise InputError(why, tensor=tensor, term=self.label)
        return factor

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
    shapes = {name: info.shape for name, info in base.tensors.items()}
    try:
        config = read_config(file.path.parent, CONFIG)
        targets = lora_targets(config, file.tensors, shapes)
    except ModelError as error:
        raise InputError(str(error), term=label) from error
    except AdapterError as error:
        why = f"{CONFIG}: {error.field}: {error.why}" if error.field else error.why
        raise InputError(why, tensor=error.tensor, term=label) from error
    for target in targets:
        if not base.is_float(target.name):
            why = f"the base holds integers in {target.name}, which are never merged"
            raise InputError(why, tensor=target.a, term=label)
    return targets

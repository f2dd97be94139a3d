"""The kinds of delta that an adapter makes, each formed block by block. Knows no files.

Letters: O out, I in, R rank, E experts. All tensors are in the compute dtype on the device. The
product of a block runs on one thread, so it has the same bits however many threads the process
uses; sums run in fixed order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from merger.blocks import Block
from merger.task_vector import Delta, Factors

Read = Callable[[Block], torch.Tensor]
"""Values of a block, flat."""


class ProductDelta:
    """The product of two factors: a matrix, or a kernel whose other dimensions are seen as one."""

    __slots__ = ("_is_matrix", "_left", "_right")

    def __init__(
        self,
        left_OR: torch.Tensor,  # noqa: N803 shapes
        right_RI: torch.Tensor,  # noqa: N803 shapes
        *,
        is_matrix: bool = True,
    ) -> None:
        self._left = left_OR
        self._right = right_RI
        self._is_matrix = is_matrix

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return self._left.nbytes + self._right.nbytes

    def block(self, block: Block) -> torch.Tensor:
        """Return the rows of a block of (O, R) · (R, I), flat, in the factors' dtype."""
        return torch.mm(self._left[block.first : block.last], self._right).reshape(-1)

    def factors(self) -> Factors | None:
        """Return (O, R) and (R, I), the scale in the left one; None for a kernel."""
        return (self._left, self._right) if self._is_matrix else None


class ExpertsDelta:
    """A product per expert, for a tensor (E, O, I) that packs them."""

    __slots__ = ("_left", "_right")

    def __init__(self, left_EOR: torch.Tensor, right_ERI: torch.Tensor) -> None:  # noqa: N803 shapes
        self._left = left_EOR
        self._right = right_ERI

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return self._left.nbytes + self._right.nbytes

    def block(self, block: Block) -> torch.Tensor:
        """Return the products of the experts of a block, flat."""
        experts = range(block.first, block.last)
        return torch.cat([torch.mm(self._left[e], self._right[e]).reshape(-1) for e in experts])

    def factors(self) -> None:
        """Know no two factors: every expert has its own."""


class VectorDelta:
    """A small delta held whole."""

    __slots__ = ("_values",)

    def __init__(self, values: torch.Tensor) -> None:
        self._values = values.reshape(-1)

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return self._values.nbytes

    def block(self, block: Block) -> torch.Tensor:
        """Return the elements of a block."""
        return self._values[block.start : block.stop]

    def factors(self) -> None:
        """Know no factors."""


class SavedDelta:
    """A saved tensor minus the base's, and what is added to the saved one."""

    __slots__ = ("_added", "_base", "_saved")

    def __init__(self, saved: Read, base: Read, added: Delta | None) -> None:
        self._saved = saved
        self._base = base
        self._added = added

    def block(self, block: Block) -> torch.Tensor:
        """Return the elements of a block."""
        replaced = self._saved(block) - self._base(block)
        return replaced + self._added.block(block) if self._added else replaced

    def factors(self) -> None:
        """Know no factors."""


class TokensDelta:
    """Saved rows minus the base's; all other rows are zero."""

    __slots__ = ("_base", "_rows")

    def __init__(self, rows: torch.Tensor, indices: Sequence[int], base: Read) -> None:
        self._rows = {index: rows[number] for number, index in enumerate(indices)}
        self._base = base

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return sum(row.nbytes for row in self._rows.values())

    def block(self, block: Block) -> torch.Tensor:
        """Return the elements of a block."""
        base = self._base(block).reshape(-1, block.columns)
        delta = torch.zeros_like(base)
        for row in range(block.first, block.last):
            if row in self._rows:
                delta[row - block.first] = self._rows[row] - base[row - block.first]
        return delta.reshape(-1)

    def factors(self) -> None:
        """Know no factors."""


class DoraDelta:
    """DoRA (arXiv 2402.09353): W' - W with W' = m ⊙ (θ + s·B·A) / ‖θ + s·B·A‖, ‖·‖ per output.

    θ is what the adapter was trained on: the base's W, or the tensor saved in its place. Outputs
    are rows; they are columns (`by_column`) where the base stores (in, out), and then all blocks
    are read once beforehand for the norms. Squares are summed in float64. PEFT rounds the norm to
    the dtype of the base, so that the weight of a bfloat16 model has another norm there.
    """

    __slots__ = ("_base", "_magnitude", "_norms", "_origin", "_product")

    def __init__(
        self,
        product: Delta,
        magnitude: torch.Tensor,
        origin: Read,
        base: Read | None,
        blocks: Sequence[Block],
        *,
        by_column: bool,
    ) -> None:
        self._product = product
        self._magnitude = magnitude.reshape(-1)
        self._origin = origin
        self._base = base
        self._norms = self._column_norms(blocks) if by_column else None

    def _column_norms(self, blocks: Sequence[Block]) -> torch.Tensor:
        squares = torch.zeros(self._magnitude.numel(), dtype=torch.float64)
        squares = squares.to(self._magnitude.device)
        for block in blocks:
            changed = self._origin(block) + self._product.block(block)
            squares += changed.reshape(-1, block.columns).double().square().sum(0)
        return squares.sqrt()

    def block(self, block: Block) -> torch.Tensor:
        """Return the elements of a block."""
        origin = self._origin(block).reshape(-1, block.columns)
        product = self._product.block(block).reshape(-1, block.columns)
        if self._norms is None:
            norms = (origin + product).double().square().sum(1).sqrt()
            wanted = self._magnitude[block.first : block.last]
            factor = (wanted / norms).to(product.dtype)[:, None]
        else:
            factor = (self._magnitude / self._norms).to(product.dtype)[None, :]
        # Not W' - W: where little changes, that difference would keep few of its digits.
        delta = (factor * product + (factor - 1) * origin).reshape(-1)
        return delta if self._base is None else delta + (origin.reshape(-1) - self._base(block))

    def factors(self) -> None:
        """Know no factors: the delta is not linear in them."""

"""How an adapter changes one tensor of the base, as plain values. Knows no file and no number.

The changed tensor is θ' = θ₀ + s·B·A, or m ⊙ (θ₀ + s·B·A) / ‖θ₀ + s·B·A‖ with DoRA, where θ₀ is the
base's own tensor or one that the adapter saved in its place; the delta is θ' - θ of the base.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Product:
    """The product `scale` · B·A of two tensors of the adapter.

    `transposed`: the base stores (in, out), as embeddings and Conv1D do. With `experts` above zero,
    A and B hold the factors of that many experts, A as (expert, rank) rows and B as (rank, expert)
    columns; all of them make a packed tensor, or `expert` and the rows `first` to `last` of its
    output make a matrix.
    """

    a: str
    b: str
    scale: float
    rank: int
    transposed: bool = False
    experts: int = 0
    expert: int | None = None
    first: int = 0
    last: int = 0


@dataclass(frozen=True, slots=True)
class Vector:
    """A tensor of the adapter that is added, times `scale`: the bias of B."""

    tensor: str
    scale: float


@dataclass(frozen=True, slots=True)
class Saved:
    """A tensor of the adapter, from its flat element `start` on, that replaces the base's."""

    tensor: str
    start: int = 0


@dataclass(frozen=True, slots=True)
class Tokens:
    """Rows of the adapter that replace the rows `indices` of an embedding."""

    tensor: str
    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Twin:
    """A tensor of the adapter that must equal another one (transposed): both sides of a tie."""

    tensor: str
    other: str
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class LoraTarget:
    """One changed base tensor, by what changes it."""

    name: str
    product: Product | None = None
    vector: Vector | None = None
    saved: Saved | None = None
    magnitude: str = ""
    tokens: Tokens | None = None
    twins: tuple[Twin, ...] = ()

    @property
    def tensor(self) -> str:
        """The adapter's tensor to blame for it."""
        parts = (
            self.product.a if self.product else "",
            self.vector.tensor if self.vector else "",
            self.saved.tensor if self.saved else "",
            self.tokens.tensor if self.tokens else "",
        )
        return next(part for part in parts if part)

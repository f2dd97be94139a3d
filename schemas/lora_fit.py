"""Which parameter of the base a pair of factors changes, and in which layout: by names and shapes.

Every function is pure and raises AdapterError, naming a tensor of the adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schemas.header import TensorInfo
from schemas.lora_base import Base
from schemas.lora_config import AdapterError, rank_of, scale_of
from schemas.lora_header import Module
from schemas.lora_target import Product

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Option:
    """A parameter that a module's factors may change, under the adapter's name for it.

    `key` is what rank_pattern and alpha_pattern are matched with; `is_module` tells a module that
    PEFT replaced from a parameter that it wrapped.
    """

    name: str
    key: str
    is_module: bool = True
    times: int = 1

    @property
    def is_plain(self) -> bool:
        """Whether it is the weight of a module, and not of a wrapped attention."""
        return self.is_module and self.times == 1 and self.name.endswith(".weight")


@dataclass(frozen=True, slots=True)
class Given:
    """An adapter's config and headers, and the base that it is held against."""

    config: Mapping[str, Any]
    header: Mapping[str, TensorInfo]
    base: Base

    def is_side(self, shape: Shape) -> bool:
        """Return whether a tensor of this shape may be one side of a tied matrix."""
        return any(shape == self.base.shapes[name] for name in self.base.tied)


def options(config: Mapping[str, Any], module: Module) -> tuple[Option, ...]:
    """Return the parameters that a module's factors may change."""
    name = module.name
    weight = f"{name}.weight"
    if module.is_embedding:
        return (Option(weight, name),)
    if module.within:
        # PEFT adds this product twice, in training and in folding alike: attention reads the
        # weight of `out_proj` without calling it, so the wrapper around it folds in advance and
        # then lets `out_proj` fold once more. What was trained is the base plus twice the product.
        return (Option(weight, module.within, times=2),)
    parameters = sorted(
        f"{name}.{target.rpartition('.')[2]}"
        for target in config.get("target_parameters") or []
        if f".{name}.{target.rpartition('.')[2]}".endswith(f".{target}")
    )
    wrapped = tuple(Option(parameter, parameter, is_module=False) for parameter in parameters)
    if module.depth or weight in parameters:
        return wrapped
    return (*wrapped, Option(weight, name), Option(f"{name}.in_proj_weight", name))


def choose(found: Mapping[Option, str], module: Module, given: Given) -> tuple[Option, Product]:
    """Return the one option that the factors fit, and their product.

    `found` holds the base's name of every option that the base has.
    """
    fitting: list[tuple[Option, Product]] = []
    errors: list[AdapterError] = []
    for option, name in found.items():
        try:
            fitting.append((option, _product(option, name, module, given)))
        except AdapterError as error:
            errors.append(error)
    if len(fitting) == 1:
        return fitting[0]
    if len(found) == 1:
        raise errors[0]
    names = " and ".join(found.values())
    which = "more than one" if fitting else "none"
    raise AdapterError(f"its shape fits {which} of {names}", tensor=module.factors[0])


def _product(option: Option, name: str, module: Module, given: Given) -> Product:
    a, b = module.factors
    left, right, shape = given.header[b].shape, given.header[a].shape, given.base.shapes[name]
    rank = rank_of(given.config, option.key)
    scale = option.times * scale_of(given.config, option.key)
    experts = shape[0] if not module.is_embedding and (len(right), len(shape)) == (2, 3) else 0
    for tensor in (a, b):
        _check_dimensions(tensor, given.header[tensor].shape, shape, experts)
    if not experts and len(shape) > 2:
        _check_convolution(a, left, right, shape)
    if right[0] != rank * max(1, experts) or left[1] != rank * max(1, experts):
        expected = f"rank {rank} of {experts} experts" if experts else f"rank {rank}"
        raise AdapterError(f"expected {expected}, found {right[0]} and {left[1]}", tensor=a)
    if experts:
        transposed = _is_packed_transposed(name, a, (left[0], right[1]), given.base)
        return Product(a, b, scale, rank, transposed, experts)
    is_flagged = option.is_module and bool(given.config.get("fan_in_fan_out", False))
    transposed = module.is_embedding or is_flagged
    _check_shape(name, a, (left[0], *right[1:]), shape, transposed=transposed)
    if option.is_module and not module.is_embedding:
        _check_square(name, a, given.base, transposed=transposed)
    return Product(a, b, scale, rank, transposed)


_GROUPED = (
    "a convolution in groups: the product spans channels that the base's kernel does not have, "
    "and PEFT does not fold it either; leave such layers out"
)


def _check_dimensions(tensor: str, found: Shape, shape: Shape, experts: int) -> None:
    expected = 2 if experts else len(shape)
    if expected < 2 or len(found) != expected:
        word = {2: "two", 3: "three", 4: "four", 5: "five"}.get(expected, "at least two")
        raise AdapterError(f"expected {word} dimensions, found {len(found)}", tensor=tensor)


def _check_convolution(a: str, left: Shape, right: Shape, shape: Shape) -> None:
    if right[1] != shape[1] and shape[1] and right[1] % shape[1] == 0:
        raise AdapterError(_GROUPED, tensor=a)
    if any(size != 1 for size in left[2:]):
        raise AdapterError(f"expected B with a kernel of 1, found {list(left)}", tensor=a)


def _check_shape(name: str, a: str, delta: Shape, shape: Shape, *, transposed: bool) -> None:
    stored = delta[::-1] if transposed else delta
    if stored != shape:
        why = f"expected a delta of shape {list(shape)} for {name}, found {list(stored)}"
        raise AdapterError(why, tensor=a)


def _check_square(name: str, a: str, base: Base, *, transposed: bool) -> None:
    # A square matrix fits either way; its neighbours with a bias tell how the base stores them.
    shape = base.shapes[name]
    told = base.stores_transposed(name)
    if len(shape) == 2 and shape[0] == shape[1] and told is not None and told != transposed:
        why = f"fan_in_fan_out is {transposed}, but the base stores the layer of {name} otherwise"
        raise AdapterError(why, tensor=a)


def _is_packed_transposed(name: str, a: str, delta: tuple[int, int], base: Base) -> bool:
    """Return whether a packed tensor is (experts, in, out) and not (experts, out, in)."""
    rows, columns = base.shapes[name][1:]
    out, into = delta
    if {rows, columns} != {out, into}:
        found = [base.shapes[name][0], out, into]
        why = f"expected a delta of shape {list(base.shapes[name])} for {name}, found {found}"
        raise AdapterError(why, tensor=a)
    if rows != columns:
        return (rows, columns) == (into, out)
    if name in base.pieces:
        return False
    # Square: the packed gate and up projection beside it, twice as wide on its output, tells.
    beside = base.shapes.get(f"{name.rpartition('.')[0]}.gate_up_proj", ())
    if beside[1:] not in ((rows, 2 * rows), (2 * rows, rows)):
        why = f"{name} is square, and nothing beside it tells in which order it is stored"
        raise AdapterError(why, tensor=a)
    return beside[2] > beside[1]
